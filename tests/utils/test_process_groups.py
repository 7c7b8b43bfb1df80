"""A process group is ended on every path, and not by whom it does not belong to; what processes say is kept apart."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import distributed

from nestkala.utils.processes import ending_process_group
from reliability.launching import Launch

AT_EXIT = """
import atexit, sys
from torch import distributed

atexit.register(lambda: print("a group is left" if distributed.is_initialized() else "no group is left"))
"""  # registered first, called last

EVALUATE = """
import numpy as np
from accelerate import Accelerator
from nestkala.evaluation import evaluate

accelerator = Accelerator()
codes, labels = np.arange(4, dtype=np.uint8)[:, None], np.eye(4, dtype=bool)
evaluate(codes, labels, codes, labels, lengths=(8,), accelerator=accelerator)
if sys.argv[1:] == ["fail"]:
    raise ValueError("something is wrong")
"""

TRAIN_AND_ENCODE = """
from pathlib import Path
from nestkala.settings.config import Config
from nestkala.search.shards import encode_folder
from nestkala.utils.errors import NestKALAError
from nestkala.training.run import train

folder, model = map(Path, sys.argv[1:3])
try:
    train(Config(data="digits", batch_size=5, epochs=1, output=folder / "run"))
except NestKALAError as error:
    print(error)
encode_folder(folder / "missing", folder / "codes", str(model))
"""


def launched(script: str, folder: Path, *arguments: object) -> Launch:
    (folder / "script.py").write_text(AT_EXIT + script)
    return Launch(2, folder / "script.py", *arguments, folder=folder / "log")


def test_a_script_that_forgets_its_group_ends_well(tmp_path: Path) -> None:
    with launched(EVALUATE, tmp_path) as launch:
        said = launch.done()
    for rank in range(2):
        assert f"[process {rank}, stdout]\nno group is left" in said


@pytest.mark.slow
def test_a_script_that_fails_tells_its_error_and_leaves_no_group(tmp_path: Path) -> None:
    with launched(EVALUATE, tmp_path, "fail") as launch:
        assert launch.wait() != 0
    assert "ValueError: something is wrong" in launch.said
    assert "no group is left" in launch.said
    assert "a group is left" not in launch.said


@pytest.mark.slow
def test_training_and_encoding_that_fail_leave_no_group(noise_model: Path, tmp_path: Path) -> None:
    with launched(TRAIN_AND_ENCODE, tmp_path, tmp_path, noise_model) as launch:
        assert launch.wait() != 0
    assert "batch_size 5 cannot be shared equally by 2 processes" in launch.said
    assert f"{tmp_path / 'missing'} is not a folder" in launch.said
    assert "no group is left" in launch.said
    assert "a group is left" not in launch.said


@pytest.fixture
def no_group() -> Iterator[None]:
    yield
    if distributed.is_initialized():
        distributed.destroy_process_group()


def make_group() -> None:
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)


@pytest.mark.usefixtures("no_group")
def test_a_group_that_is_made_inside_is_ended() -> None:
    with ending_process_group():
        make_group()
    assert not distributed.is_initialized()


@pytest.mark.usefixtures("no_group")
def test_a_group_that_was_there_before_stays() -> None:
    make_group()
    with ending_process_group():
        pass
    assert distributed.is_initialized()


FAIL_TOGETHER = """
import os, sys, time
from pathlib import Path

rank, folder = int(os.environ["RANK"]), Path(sys.argv[1])
print("printed by", rank)
print("an error of", rank, file=sys.stderr)
(folder / str(rank)).touch()
while not (folder / str(1 - rank)).exists():  # or the launcher would end the one that is slower
    time.sleep(0.01)
sys.exit(1)
"""


@pytest.mark.slow
def test_a_launch_that_fails_tells_what_each_process_said(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(FAIL_TOGETHER)
    launch = Launch(2, tmp_path / "script.py", tmp_path, folder=tmp_path / "log")
    with launch, pytest.raises(RuntimeError) as raised:
        launch.done()
    for rank in range(2):
        assert f"[process {rank}, stderr]\nan error of {rank}\n" in str(raised.value)
        assert f"[process {rank}, stdout]\nprinted by {rank}\n" in str(raised.value)


@pytest.mark.slow
def test_a_launch_that_ends_before_what_is_waited_for_says_so(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("print('this is all')")
    with Launch(1, tmp_path / "script.py", folder=tmp_path / "log") as launch:
        with pytest.raises(RuntimeError, match=r"(?s)ended too early, exit code 0.*this is all"):
            launch.wait_until(lambda: False)
        launch.wait_until(lambda: True)
