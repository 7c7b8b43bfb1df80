"""What messages say, and what they keep to themselves."""

import pytest

from nestkala.cli import main
from nestkala.search.opening import shown_address
from nestkala.utils.errors import without_passwords


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no postgresql://me:se%23cret@host:5432/x here", "no postgresql://me:***@host:5432/x here"),
        ("postgresql:/me:se%23cret@host/x is no folder", "postgresql:/me:***@host/x is no folder"),  # as Path has it
        ("postgres://:secret@host/x", "postgres://:***@host/x"),
        ("postgresql://me:sec@ret@host/x, 'http://you:secret@b'", "postgresql://me:***@host/x, 'http://you:***@b'"),
        ("postgresql://me@host/x?password=secret&port=1", "postgresql://me@host/x?password=***&port=1"),
        ("postgresql:///x?port=1&password=secret", "postgresql:///x?port=1&password=***"),
        ("postgresql://me@host:5432/x", "postgresql://me@host:5432/x"),
        ("http://host:19530/a@b", "http://host:19530/a@b"),
        ("C:/photos/me@home: no folder", "C:/photos/me@home: no folder"),
    ],
)
def test_passwords_in_addresses_are_not_shown(text: str, shown: str) -> None:
    assert without_passwords(text) == shown


def test_addresses_are_shown_without_passwords_and_files_as_they_are() -> None:
    assert shown_address("http://root:s3cret@host:19530#photos") == "http://root:***@host:19530#photos"
    assert shown_address("postgresql://me:s3cret@host/x?password=s3cret") == "postgresql://me@host/x#nestkala"
    assert shown_address("a:/b:c@d/photos.index") == "a:/b:c@d/photos.index"


@pytest.mark.parametrize(
    "command",
    [
        ("advise", "ADDRESS"),
        ("report", "ADDRESS"),
        ("train", "--data", "ADDRESS"),
        ("index", "nowhere", "ADDRESS"),
        ("search", "nowhere.index,ADDRESS", "x"),
    ],
)
@pytest.mark.parametrize(
    "address", ["postgresql://me:s3cret@127.0.0.1:1/x", "postgresql://127.0.0.1:1/x?password=s3cret"]
)
def test_an_address_in_the_wrong_place_keeps_its_password(
    command: tuple[str, ...], address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word.replace("ADDRESS", address) for word in command]) == 2
    captured = capsys.readouterr()
    assert "s3cret" not in captured.out + captured.err
    assert "error: " in captured.err
