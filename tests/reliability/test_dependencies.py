"""What is asked of the package registry, with a registry that is a folder."""

import zipfile
from pathlib import Path

import pytest

from reliability import dependencies

METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index in which one package is as it should be and another is yanked."""
    for name, attribute in (("sound-one", ""), ("yanked-one", ' data-yanked="broken"')):
        folder = tmp_path / "simple" / name
        folder.mkdir(parents=True)
        wheel, info = f"{name.replace('-', '_')}-1.0-py3-none-any.whl", f"{name.replace('-', '_')}-1.0.dist-info"
        with zipfile.ZipFile(folder / wheel, "w") as archive:
            archive.writestr(f"{info}/METADATA", METADATA.format(name=name))
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")
        (folder / "index.html").write_text(f'<!doctype html><a href="{wheel}"{attribute}>{wheel}</a>')
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "simple").as_uri())
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return tmp_path


@pytest.mark.parametrize(
    ("pins", "measured", "held"),
    [
        (["sound-one==1.0"], "1 of 1 available, 0 yanked", True),
        (["# pins", "sound-one==1.0", "yanked-one==1.0"], "2 of 2 available, 1 yanked", False),
        (["sound-one==2.0"], "0 of 1 available, 0 yanked (ERROR: ", False),
    ],
)
def test_missing_and_yanked_pins_are_reported(registry: Path, pins: list[str], measured: str, held: bool) -> None:
    constraints = registry / "constraints.txt"
    constraints.write_text("\n".join(pins) + "\n")
    finding = dependencies.available(constraints)
    assert finding.measured.startswith(measured)
    assert finding.held == held
