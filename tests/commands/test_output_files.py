"""Every command that writes a file: it says which, sees beforehand that it can, and keeps its JSON clean."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import nestkala.analysis.finished_run
import nestkala.search.export
from nestkala import Hasher
from nestkala.cli import main
from nestkala.index import PrefixIndex

WRITING = {
    "advise": "advise RUN --plot {out}/lengths.svg",
    "duplicates": "duplicates photos.index --html {out}/page.html",
    "encode": "encode photos {out}/shards --model RUN",
    "export codes": "export photos.index {out}/codes.npy",
    "export onnx": "export RUN {out}/model.onnx",
    "index": "index photos {out}/new.index --model RUN",
    "index shards": "index shards {out}/new.index",
    "report": "report RUN --output {out}/report",
    "search": "search photos.index 0.png --html {out}/page.html",
}
"""{what: command}; `experiment` and `train` write whole folders, of which their own tests say this."""

WITHOUT_JSON = {"report"}


@pytest.fixture
def run(noise_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to run commands in, with RUN, photos, photos.index, and shards."""
    monkeypatch.chdir(tmp_path)
    Path("RUN").symlink_to(noise_model)
    shutil.copytree(noise_model.parent / "images" / "a", "photos")
    assert main(["index", "photos", "--model", "RUN"]) == 0
    assert main(["encode", "photos", "shards", "--model", "RUN"]) == 0
    return tmp_path


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Make whatever takes long fail the test."""

    def patch() -> None:
        def fail(*_: object, **__: object) -> None:
            raise AssertionError("it began to work before it saw that it cannot write")

        monkeypatch.setattr(Hasher, "from_pretrained", fail)
        monkeypatch.setattr(PrefixIndex, "extend", fail)
        monkeypatch.setattr(nestkala.search.export, "export_codes", fail)
        monkeypatch.setattr(nestkala.analysis.finished_run.FinishedRun, "encode", fail)

    return patch


@pytest.mark.parametrize("what", WRITING)
@pytest.mark.usefixtures("run")
def test_it_says_which_file_it_writes(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    if what == "advise":
        pytest.importorskip("matplotlib")
    command = WRITING[what].format(out="out").split()
    capsys.readouterr()
    assert main(command) == 0
    named = next(word for word in command if word.startswith("out/"))
    assert named in capsys.readouterr().out
    assert Path(named).exists()
    if what in WITHOUT_JSON:
        return
    assert main([*WRITING[what].format(out="other").split(), "--json"]) == 0
    answer = capsys.readouterr().out
    assert named.replace("out/", "other/") in json.dumps(json.loads(answer))  # one value of JSON, and nothing else


@pytest.mark.parametrize("what", WRITING)
@pytest.mark.usefixtures("run")
def test_it_is_told_beforehand_that_a_file_cannot_be_written(
    what: str, no_work: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    if what == "advise":
        pytest.importorskip("matplotlib")
    Path("blocked").write_text("a file, and no folder")
    command = WRITING[what].format(out="blocked").split()
    no_work()
    capsys.readouterr()
    assert main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: cannot write blocked/")
    assert line.endswith("blocked is not a folder")
