"""What the environment may say: threads that a user sets are taken, another training than the settings' is refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nestkala.settings.config import Config
from nestkala.training.launcher import check_launcher
from nestkala.training.run import train
from nestkala.utils.errors import NestKALAError
from nestkala.utils.machine import compute_threads, cores_per_process
from reliability.launching import Launch

OTHER_TRAININGS = {
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4",
    "ACCELERATE_DYNAMO_BACKEND": "INDUCTOR",
    "ACCELERATE_USE_FSDP": "true",
    "ACCELERATE_USE_DEEPSPEED": "true",
    "ACCELERATE_USE_MEGATRON_LM": "true",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "true",
    "ACCELERATE_DOWNCAST_BF16": "1",
    "ACCELERATE_MIXED_PRECISION": "fp8",
}


@pytest.mark.parametrize("name", OTHER_TRAININGS)
def test_what_would_be_another_training_is_refused_by_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, OTHER_TRAININGS[name])
    with pytest.raises(NestKALAError) as caught:
        train(Config(output=tmp_path / "run", data="digits"))
    said = str(caught.value)
    assert said.startswith("the launcher asks for ")
    assert "\n" not in said
    assert (name in said) != (name == "ACCELERATE_MIXED_PRECISION")
    assert OTHER_TRAININGS[name] in said
    assert not (tmp_path / "run").exists()


def test_a_precision_that_is_none_here_is_not_recommended() -> None:
    with pytest.raises(NestKALAError) as caught:
        check_launcher("fp32", {"ACCELERATE_MIXED_PRECISION": "fp8"})
    assert "--precision" not in str(caught.value)
    with pytest.raises(NestKALAError, match="use --precision bf16"):
        check_launcher("fp32", {"ACCELERATE_MIXED_PRECISION": "bf16"})


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_launchers_set_by_themselves_is_taken(precision: str) -> None:
    usual = {
        "ACCELERATE_DYNAMO_BACKEND": "NO",
        "ACCELERATE_DYNAMO_MODE": "default",
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1",
        "ACCELERATE_USE_FSDP": "false",
        "ACCELERATE_USE_CPU": "True",
        "XLA_DOWNCAST_BF16": "0",
    }
    check_launcher(precision, usual | {"ACCELERATE_MIXED_PRECISION": "no"})
    check_launcher(precision, usual | {"ACCELERATE_MIXED_PRECISION": precision if precision != "fp32" else "no"})


@pytest.mark.parametrize(
    ("asked", "environment", "threads"),
    [
        (3, {"OMP_NUM_THREADS": "7"}, 3),
        (0, {"OMP_NUM_THREADS": "7"}, 7),
        (0, {"OMP_NUM_THREADS": "1"}, 1),
        (0, {"OMP_NUM_THREADS": " 5,2"}, 5),
        (0, {"OMP_NUM_THREADS": "7", "LOCAL_WORLD_SIZE": "2"}, 7),
        (0, {"OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": "2"}, None),
        (0, {"OMP_NUM_THREADS": "1", "ACCELERATE_MIXED_PRECISION": "no"}, None),
        (0, {"OMP_NUM_THREADS": "many"}, None),
        (0, {}, None),
    ],
)
def test_threads_are_those_of_the_settings_else_of_the_user_else_all(
    asked: int, environment: dict[str, str], threads: int | None
) -> None:
    assert compute_threads(asked, environment) == (cores_per_process() if threads is None else threads)


THREADS = """
import sys, torch
from nestkala.settings.config import Config
from nestkala.utils.errors import NestKALAError
from nestkala.training.run import train

try:
    train(Config(data="nowhere", threads=int(sys.argv[1])))
except NestKALAError:
    print(torch.get_num_threads(), "threads")
"""


@pytest.mark.parametrize(("asked", "threads"), [(0, 3), (2, 2)])
def test_training_takes_the_users_threads(asked: int, threads: int, tmp_path: Path) -> None:
    command = [sys.executable, "-c", THREADS, str(asked)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ACCELERATE_")}
    done = subprocess.run(
        command, env=environment | {"OMP_NUM_THREADS": "3"}, capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout == f"{threads} threads\n"


@pytest.mark.slow
def test_what_the_real_launcher_sets_is_taken(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import os\nfrom nestkala.training.launcher import check_launcher\n"
        "from nestkala.utils.machine import compute_threads\n"
        "check_launcher('fp32')\nprint(os.environ['ACCELERATE_DYNAMO_BACKEND'], compute_threads() >= 1)\n"
    )
    with Launch(1, tmp_path / "script.py", folder=tmp_path / "log") as launch:
        assert "True" in launch.done()
