"""`nestkala export`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class Export:
    """Take a trained encoder to ONNX, or an index's codes to numpy or faiss; the output's suffix chooses."""

    source: Positional[Annotated[str, arg(metavar="SOURCE")]]
    """for .onnx a run folder, or "owner/name" on the Hugging Face hub; for .npy and .faiss an index: a file, or where
    Milvus or PostgreSQL keeps it"""

    output: Positional[Annotated[Path, arg(metavar="OUTPUT")]]
    """file to write, ending in .onnx, .npy or .faiss; the ids of codes go beside it, to .ids.json"""

    bits: int | None = None
    """length of the codes, by default all"""

    json: bool = False
    """print the names of the files as JSON"""

    def run(self) -> None:
        from ..hasher import Hasher
        from ..search.export import export_codes, export_onnx
        from ..search.opening import open_index
        from ..utils.files import check_writable

        check_writable(self.output)
        files = [self.output]
        if self.output.suffix == ".onnx":
            export_onnx(Hasher.from_pretrained(self.source, "cpu"), self.output, self.bits)
        else:
            files.append(export_codes(open_index(self.source).local(), self.output, self.bits))
        if self.json:
            print(json.dumps({"files": [str(file) for file in files]}))
        else:
            for file in files:
                print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")
