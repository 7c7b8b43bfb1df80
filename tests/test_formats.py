"""Files that earlier versions wrote: they load, or are refused with the command that makes them anew."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from nestkala.cli import main
from nestkala.hasher import Hasher
from nestkala.images import digests
from nestkala.images.digests import Digests
from nestkala.index import PrefixIndex
from nestkala.search.shards import read_shards, unreadable
from nestkala.settings.loading import load_config
from nestkala.tokens.cache import TokenCache, image_key
from nestkala.training.history import load_history
from nestkala.utils.errors import NestKALAError
from nestkala.utils.versions import check_version

# What each file held, as told by the code that wrote it.
FEATURE_CODES = [
    77,
    242,
    23,
    77,
    242,
    22,
    77,
    242,
    23,
    77,
    242,
    23,
    77,
    242,
    18,
    77,
    242,
    146,
    77,
    242,
    146,
    77,
    242,
    22,
]
PHOTO_CODES = {
    "a.png": [173, 146, 192],
    "b/c.png": [172, 146, 192],
    "b/d.png": [173, 146, 192],
    "e.png": [172, 146, 192],
}


TEXT_CODES = [
    *(211, 65, 44, 246, 65, 9, 246, 65, 9, 211, 65, 44),
    *(211, 9, 9, 211, 65, 9, 246, 65, 9, 211, 65, 9),
]
"""Of the features in reverse less twice the features, by `run-3-text`."""


@pytest.fixture
def formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the files, as working folder."""
    folder = shutil.copytree(Path(__file__).parent / "formats", tmp_path / "formats")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("version", [1, 2, 3])
def test_finished_runs_give_their_codes_and_are_scored(
    formats: Path, version: int, capsys: pytest.CaptureFixture[str]
) -> None:
    run = formats / f"run-{version}"
    codes = Hasher.from_pretrained(run).encode(np.load(formats / "own" / "features.npy"))
    assert codes.ravel().tolist() == FEATURE_CODES
    assert main(["eval", str(run), "--json"]) == 0
    scored = json.loads(capsys.readouterr().out)
    kept = json.loads((run / "metrics.json").read_text())["lengths"]
    assert [score["map"] for score in scored[0]["lengths"]] == pytest.approx([each["map"] for each in kept.values()])
    history = load_history(run)
    assert (history is None) == (version < 3)


def test_a_model_from_an_earlier_closed_form_has_no_class_layer_and_gives_its_codes(
    formats: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features = np.load(formats / "own" / "features.npy")
    assert "class_layer" not in json.loads((formats / "run-3-text" / "model.json").read_text())
    hasher = Hasher.from_pretrained("run-3-text")
    assert hasher.model.class_layer is None
    assert hasher.encode(features[::-1] - 2 * features).ravel().tolist() == TEXT_CODES
    assert main(["eval", "run-3-text", "--json"]) == 0
    scored = json.loads(capsys.readouterr().out)
    kept = json.loads(Path("run-3-text", "metrics.json").read_text())["lengths"]
    assert [score["map"] for score in scored[0]["lengths"]] == pytest.approx([each["map"] for each in kept.values()])


@pytest.mark.parametrize("version", [2, 4])
def test_models_with_a_class_layer_give_their_codes(formats: Path, version: int) -> None:
    hasher = Hasher.from_pretrained(formats / f"model-{version}")
    assert hasher.spec.version == version
    assert hasher.encode(np.load(formats / "own" / "features.npy")).ravel().tolist() == 8 * [190, 9, 211]


@pytest.mark.parametrize("run", ["run-1", "run-2", "run-3", "run-3-text"])
def test_settings_that_are_gone_are_dropped_and_the_rest_is_read(
    formats: Path, run: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = load_config(str(formats / run / "config.yaml"))
    assert (config.lengths, config.data) == ((4, 8), "own")
    assert config.starts_in_closed_form == (run == "run-3-text")
    assert config.unlabeled == (1000 if config.starts_in_closed_form else 100_000)  # of a random start it says nothing
    said = [record.getMessage() for record in caplog.records]
    assert [message.split()[1] for message in said] == ["ridge", "text_weight", "unlabelled_weight"]
    assert all("now estimates how far to trust names, labels and unlabeled images" in message for message in said)


@pytest.mark.parametrize("version", [1, 2])
def test_unfinished_runs_of_earlier_versions_name_the_command_that_trains_anew(
    formats: Path, version: int, capsys: pytest.CaptureFixture[str]
) -> None:
    run = f"run-{version}"
    assert main(["train", "--resume", run, "--epochs", "3"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"error: the checkpoint {run}/checkpoint.safetensors has version {version}, expected 3: " in said
    command = re.search(r"nestkala (train .*) trains from scratch", said)
    assert command is not None
    assert main([*shlex.split(command.group(1)), "--lengths", "4,8"]) == 0
    assert (formats / "NEW" / "model.safetensors").is_file()


def test_an_unfinished_run_of_an_earlier_closed_form_names_the_command_that_trains_anew(
    formats: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in (formats / "run-3-text").iterdir()}
    assert main(["train", "--resume", "run-3-text", "--epochs", "3"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "run-3-text/checkpoint.safetensors has a closed-form start from an earlier version: " in said
    command = re.search(r"nestkala (train .*) trains from scratch", said)
    assert command is not None
    assert main(shlex.split(command.group(1))) == 0
    assert (formats / "NEW" / "model.safetensors").is_file()
    assert {path.name: path.read_bytes() for path in (formats / "run-3-text").iterdir()} == before


def test_an_unfinished_run_goes_on(formats: Path) -> None:
    before = load_history(formats / "run-3")
    assert main(["train", "--resume", "run-3", "--epochs", "3"]) == 0
    after = load_history(formats / "run-3")
    assert before is not None
    assert after is not None
    assert (len(before), after[:2]) == (2, before)
    assert len(after) == 3


def test_an_index_is_searched(formats: Path) -> None:
    index = PrefixIndex.load(formats / "photos-1.index")
    assert index.about["folder"] == "/photos"
    assert {name: code.tolist() for name, code in zip(index.ids, index.codes, strict=True)} == PHOTO_CODES
    assert all(about["size"] == 268 for _, about in index.items())
    hits = index.search(np.array([PHOTO_CODES["a.png"]], np.uint8), k=4)
    assert set(hits.ids[0][:2]) == {"a.png", "b/d.png"}
    assert hits.distances[0].tolist() == [0, 0, 1, 1]


def test_shards_make_an_index(formats: Path) -> None:
    shards = list(read_shards(formats / "encoding-1"))
    assert [name for shard in shards for name in unreadable(shard)] == ["broken.png"]
    assert main(["index", "encoding-1", "made.index"]) == 0
    made = PrefixIndex.load(formats / "made.index")
    assert {name: code.tolist() for name, code in zip(made.ids, made.codes, strict=True)} == PHOTO_CODES


@pytest.mark.parametrize("kind", ["a kind", "an older kind"])
def test_cached_tokens_are_read(formats: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    cache = TokenCache(formats / "tokens-1", kind, 1e9)
    for number in range(3):
        assert cache[image_key(bytes([number]))].tolist() == [
            [number, number + 1, number + 2],
            [number + 3, number + 4, number + 5],
        ]
    assert not caplog.records


def test_remembered_digests_are_read(
    formats: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    remembered = Digests(formats / "digests-1")
    for number in range(3):
        monkeypatch.setattr(digests, "_key", lambda *_, n=number: bytes([n] * 16))
        assert remembered.of(formats / "README.md") == bytes([100 + number] * 16)
    assert not caplog.records


def of_version(path: Path, version: object) -> None:
    """Make a file say that it is of this version."""
    if path.suffix == ".json":
        path.write_text(json.dumps(json.loads(path.read_text()) | {"version": version, "what it will have": 0}))
        return
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        metadata = file.metadata() or {}
    metadata.pop("checksum", None)
    save_file(tensors, path, metadata | {"version": str(version)})


@pytest.mark.parametrize(
    ("file", "read"),
    [
        ("run-3/model.json", lambda folder: Hasher.from_pretrained(folder / "run-3")),
        ("run-3/split.json", lambda _: main(["train", "--resume", "run-3"])),
        ("run-3/checkpoint.safetensors", lambda _: main(["train", "--resume", "run-3"])),
        ("photos-1.index", lambda folder: PrefixIndex.load(folder / "photos-1.index")),
        ("encoding-1/encoding.json", lambda folder: read_shards(folder / "encoding-1")),
    ],
)
def test_files_of_newer_versions_ask_for_an_upgrade(
    formats: Path, file: str, read: Callable[[Path], object], capsys: pytest.CaptureFixture[str]
) -> None:
    of_version(formats / file, 9)
    try:
        assert read(formats) == 2
        said = capsys.readouterr().err.splitlines()[-1]
    except NestKALAError as error:
        said = str(error)
    assert file in said
    assert "has version 9, expected " in said
    assert "it was written by a newer NestKALA: upgrade yours" in said


def test_cached_tokens_of_a_newer_version_are_left_out(formats: Path, caplog: pytest.LogCaptureFixture) -> None:
    for segment in (formats / "tokens-1").rglob("*.safetensors"):
        of_version(segment, 2)
    assert image_key(bytes([0])) not in TokenCache(formats / "tokens-1", "a kind", 1e9)
    assert "has version 2, expected 1: it was written by a newer NestKALA" in caplog.text


@pytest.mark.parametrize("found", [None, "0", 0, "-1", "x", 1.5, []])
def test_versions_that_never_were_are_damage(found: object) -> None:
    with pytest.raises(NestKALAError, match=r"F has version .*, expected 1: there is no such version"):
        check_version("F", found, 1)
