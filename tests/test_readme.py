"""What the README and the pages on scoring promise beyond that their code runs."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from nestkala.losses import GreedyHash
from reliability.launching import Launch

ROOT = Path(__file__).parent.parent


def python_blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def test_own_loss_learns() -> None:
    (code,) = (block for block in python_blocks("README.md") if "class MyLoss" in block)
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
    (code,) = (block for block in python_blocks("README.md") if "class MyLoss" in block)
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
    (code,) = (block for block in python_blocks("README.md") if "class MyLoss" in block)
    code = code.replace("lambda bits: MyLoss()", "lambda bits: GreedyHash(10, bits)")
    names: dict[str, Any] = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        exec("from nestkala.losses import GreedyHash\n" + code, names)
    trained = list(names["nested"].parameters())
    assert len(trained) == 3
    for bits, weight in zip((8, 16, 32), trained, strict=True):
        assert not torch.equal(weight, GreedyHash(10, bits).classifier.weight)


def test_a_strangers_loss_is_one_short_file() -> None:
    (code,) = (block for block in python_blocks("docs/howto_loss.md") if "class Contrastive" in block)
    assert len(code.strip().splitlines()) < 40


@pytest.mark.slow
def test_scoring_in_two_processes_finds_what_one_does(tmp_path: Path) -> None:
    (shared,) = (block for block in python_blocks("docs/howto_processes.md") if "found = evaluate(" in block)
    alone = shared.replace(", accelerator=accelerator)", ")").split("accelerator = Accelerator()\n")
    alone = "".join(alone).replace("accelerator.end_training()", "")
    report = "print([found[bits].map for bits in (8, 16, 64)])\n"
    names: dict[str, Any] = {}
    exec(alone, names)
    (tmp_path / "script.py").write_text(shared + report)
    with Launch(2, tmp_path / "script.py", folder=tmp_path / "log") as launch:
        assert launch.done().count(str([names["found"][bits].map for bits in (8, 16, 64)])) == 2


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
