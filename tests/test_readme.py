"""The README's Python runs as it stands there."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from nestkala.losses import GreedyHash
from reliability.launching import Launch

BLOCKS = re.findall(r"```python\n(.*?)```", Path(__file__).parent.parent.joinpath("README.md").read_text(), re.DOTALL)


def test_own_loss_learns() -> None:
    (code,) = (block for block in BLOCKS if "class MyLoss" in block)
    assert len(code.strip().splitlines()) < 25
    names: dict[str, object] = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        exec(
            code.replace("loss.backward()", "loss.backward(); losses.append(loss.item())"),
            names | {"losses": (losses := [])},
        )
    assert losses[-1] < losses[0]


def test_own_loss_sees_class_indices_and_multi_hot_labels_alike() -> None:
    (code,) = (block for block in BLOCKS if "class MyLoss" in block)
    given = "torch.arange(10).repeat(20)"
    assert code.count(given) == 1
    values = []
    for labels in (given, "torch.eye(10).repeat(20, 1)", "torch.eye(10, dtype=torch.bool).repeat(20, 1)"):
        names: dict[str, Any] = {}
        with torch.random.fork_rng():
            torch.manual_seed(0)
            exec(code.replace(given, labels), names)
        values.append(names["loss"].item())
    assert values[0] == values[1] == values[2]
    assert values[0] < 0.5  # 2.05 where class indices were multiplied with each other


def test_the_loop_trains_the_parameters_of_a_loss_that_has_some() -> None:
    (code,) = (block for block in BLOCKS if "class MyLoss" in block)
    code = code.replace("lambda bits: MyLoss()", "lambda bits: GreedyHash(10, bits)")
    names: dict[str, Any] = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        exec("from nestkala.losses import GreedyHash\n" + code, names)
    trained = list(names["nested"].parameters())
    assert len(trained) == 3
    for bits, weight in zip((8, 16, 32), trained, strict=True):
        assert not torch.equal(weight, GreedyHash(10, bits).classifier.weight)


def test_search_prints_distances_at_each_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    from nestkala.settings.config import Config
    from nestkala.training.run import train

    (code,) = (block for block in BLOCKS if "hasher.encode" in block)
    run = tmp_path / "runs" / "photos-4shot-seed0-20260101-120000"
    monkeypatch.chdir(tmp_path)
    train(Config(output=run, queries_per_class=100, epochs=1, lengths=(8, 16, 64), cache=tmp_path / "cache"))
    capsys.readouterr()
    for shade, name in enumerate(("a", "b", "c", "query")):
        Image.new("RGB", (40, 30), (shade * 60, 80, 200 - shade * 50)).save(f"{name}.jpg")
    exec(code, {})
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["8", "16", "64"]


def test_scoring_in_two_processes_finds_what_one_does(tmp_path: Path) -> None:
    alone, shared = (block for block in BLOCKS if "found = evaluate(" in block)
    report = "print([found[bits].map for bits in (8, 16, 64)])\n"
    names: dict[str, Any] = {}
    exec(alone, names)
    (tmp_path / "script.py").write_text(alone + shared + report)
    with Launch(2, tmp_path / "script.py", folder=tmp_path / "log") as launch:
        assert launch.done().count(str([names["found"][bits].map for bits in (8, 16, 64)])) == 2
