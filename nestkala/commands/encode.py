"""`nestkala encode`."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from .backend_flag import BackendFlag


@dataclass(frozen=True)
class Encode:
    """Encode a large folder of images, over processes and machines; interrupted, it goes on where it stopped.

    One process: nestkala encode. Several: accelerate launch --num_processes 4 -m nestkala.encode, the same arguments.
    """

    folder: Positional[Annotated[Path, arg(metavar="FOLDER")]]
    """of images, with all its subfolders"""

    output: Positional[Annotated[Path, arg(metavar="OUTPUT")]]
    """folder of shards to write, which all processes see; `nestkala index OUTPUT INDEX` makes one index of it"""

    model: str
    """run folder, or "owner/name" on the Hugging Face hub"""

    shard_size: int = 8192
    """images a shard: so many are lost at most by an interruption"""

    workers: int | None = None
    """threads that decode images, 0 for none; by default one for every core, 8 at most"""

    backend: BackendFlag = "torch"

    skip_unlisted: bool = False
    """leave out for good folders and files that cannot be listed, which are an error otherwise"""

    json: bool = False
    """print what was done as JSON"""

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
