"""Scripts under Accelerate's launcher, on CPUs."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def launch(processes: int, *arguments: str, script: Path = ROOT / "train.py") -> "subprocess.CompletedProcess[str]":
    """Run a script in that many processes to its end, capturing what it prints."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch"]
    several = ["--multi_gpu", "--num_processes", str(processes)] if processes > 1 else []
    environment = os.environ | {"ACCELERATE_USE_CPU": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [*launcher, *several, "--main_process_port", "0", str(script), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
