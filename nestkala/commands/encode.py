"""`nestkala encode`."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from .backend_flag import BackendFlag


@dataclass(frozen=True)
class Encode:
    """Encode a large folder of images, on one or more processes or machines.

    If interrupted, run the same command again to resume. To use several processes, replace nestkala encode with
    accelerate launch --num_processes 4 -m nestkala.encode.
    """

    folder: Positional[Annotated[Path, arg(metavar="FOLDER")]]
    """folder of images; subfolders are included"""

    output: Positional[Annotated[Path, arg(metavar="OUTPUT")]]
    """folder to write shards to, visible to all processes; `nestkala index OUTPUT INDEX` turns it into one index"""

    model: str
    """run folder, or "owner/name" on the Hugging Face Hub"""

    shard_size: int = 8192
    """images per shard, and the most work an interruption can lose"""

    workers: int | None = None
    """number of threads that decode images, 0 for none (default: one per core, at most 8)"""

    backend: BackendFlag = "torch"

    skip_unlisted: bool = False
    """permanently skip folders and files that cannot be listed, instead of stopping with an error"""

    json: bool = False
    """print a summary as JSON"""

    def run(self) -> None:
        from accelerate import PartialState

        from ..search.shards import PLAN, encode_folder, read_shards, unreadable
        from ..utils.files import check_writable

        check_writable(self.output / PLAN)
        plan = encode_folder(
            self.folder,
            self.output,
            self.model,
            self.shard_size,
            self.workers,
            progress=not self.json,
            skip_unlisted=self.skip_unlisted,
            backend=self.backend,
        )
        if not PartialState().is_main_process:
            return
        broken = [name for shard in read_shards(self.output, verify=False) for name in unreadable(shard)]
        if self.json:
            done = {"output": str(self.output), "images": plan.images, "unreadable": broken}
            print(json.dumps(done | {"left_out": asdict(plan.left_out)}))
            return
        for name in broken:
            print(f"warning: cannot read {name!r}")
        for line in plan.left_out.in_words():
            print(line)
        print(
            f"{self.output}: {plan.images - len(broken)} images in {plan.num_shards} shards, {len(broken)} unreadable"
        )
