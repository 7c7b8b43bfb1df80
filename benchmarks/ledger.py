"""Measurements with their machine and commit, stored in a JSON file entry by entry, and shown as Markdown."""

import json
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from nestkala.utils.errors import unknown_name
from nestkala.utils.files import write_text

Measure = Callable[[], Sequence[Any]]
Rows = list[dict[str, Any]]


Page = Callable[[dict[str, Rows], str], str]


def measure(kind: str, known: Mapping[str, Measure], names: Sequence[str], output: Path, page: Page) -> None:
    """Run the named measurements, or all, and write OUTPUT.json and OUTPUT.md; other entries are kept.

    Args:
        kind: what errors call a measurement.
        known: {name: function that measures it and returns dataclasses with `what` and `measured`}.
        names: names of the measurements; none for all.
        output: path of the files, without suffix.
        page: makes Markdown from {name: rows}, in the order of `known`, and the machine.

    Raises:
        NestKALAError: if a name is not known.
    """
    for name in names:
        if name not in known:
            raise unknown_name(kind, name, known)
    saved = output.with_suffix(".json")
    found: dict[str, Any] = json.loads(saved.read_text(encoding="utf-8")) if saved.exists() else {}
    where = {"machine": machine(), "revision": revision()}  # before the output, possibly a tracked file, changes
    for name in names or known:
        rows = [asdict(row) for row in known[name]()]
        for row in rows:
            print(f"{row['what']}: {row['measured']}", flush=True)
        found[name] = where | {"rows": rows}
        write_text(saved, json.dumps(found, indent=1) + "\n")
    machines = "; ".join(dict.fromkeys(entry["machine"] for entry in found.values()))
    rows_of = {name: found[name]["rows"] for name in known if name in found}
    write_text(output.with_suffix(".md"), page(rows_of, machines))
    print(f"{output}.md and .json")


def table(rows: Rows, titles: Mapping[str, str]) -> str:
    """Rows in Markdown, with columns {key: title}; failed conditions are in bold."""
    yes_or_no = {True: "yes", False: "**no**"}
    cells = [[yes_or_no[row[key]] if isinstance(row[key], bool) else row[key] for key in titles] for row in rows]
    return tabulate(cells, list(titles.values()), tablefmt="github", disable_numparse=True)


def machine() -> str:
    """Processor, cores, threads, system and versions."""
    info = Path("/proc/cpuinfo")
    found = [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line]
    processor = found[0] if found else platform.processor() or platform.machine()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{len(found) or '?'} cores of {processor}, {torch.get_num_threads()} threads, {gpu}, {platform.system()}, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


def revision() -> str:
    """The measured commit, and whether files differ from it."""
    told = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return told.stdout.strip() or "unknown"
