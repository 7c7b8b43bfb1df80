"""YAML and JSON of strangers: values, or one error that names the file."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestkala.utils.errors import NestKALAError
from nestkala.utils.text_files import parsed_json, read_json, read_yaml

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(VALUES)
def test_json_comes_back(value: object) -> None:
    assert parsed_json(json.dumps(value), "here") == value


@given(st.binary())
def test_bytes_are_json_or_an_error_with_the_place(content: bytes) -> None:
    try:
        parsed_json(content, "here")
    except NestKALAError as error:
        assert str(error).startswith("here is not JSON: ")  # noqa: PT017 - most bytes raise, not all


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\nb: 2\na: 3\n", "'a' is given twice in"),
        ("x: {b: 1, c: {d: 1, d: 1}}", "'d' is given twice"),
        ("- {1: a, 1: b}", "'1' is given twice"),
        ("a: &a {b: 1}\nc:\n  <<: *a\n", "'<<'"),
        ("!!python/object/apply:os.getcwd []", "python/object"),
        ("[\n" * 5000, "nested too deeply"),
        ("a: 0x" + "f" * 300, "too large"),
        ("!!int ''", "is not valid YAML"),
        ("a: \udcff", "is not valid YAML"),
    ],
)
def test_what_is_no_plain_yaml_is_refused_by_file(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(NestKALAError) as caught:
        read_yaml(path)
    assert str(path) in str(caught.value)
    assert told in str(caught.value)


def test_the_same_word_may_be_a_key_of_two_types_and_in_two_mappings(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text('1: a\n"1": b\nc: {d: 1}\ne: {d: 2}\n')
    assert read_yaml(tmp_path / "x.yaml") == {1: "a", "1": "b", "c": {"d": 1}, "e": {"d": 2}}


@pytest.mark.parametrize("read", [read_json, read_yaml])
def test_a_file_that_is_not_there_is_named(read, tmp_path: Path) -> None:
    with pytest.raises(NestKALAError, match=r"cannot read .*lost: No such file"):
        read(tmp_path / "lost")
