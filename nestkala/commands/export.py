"""`nestkala export`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class Export:
    """Export a trained encoder, or the codes of an index.

    The suffix of OUTPUT decides: .onnx exports an encoder to ONNX; .npy and .faiss export codes to NumPy and Faiss.
    """

    source: Positional[Annotated[str, arg(metavar="SOURCE")]]
    """for .onnx, a run folder or "owner/name" on the Hugging Face Hub; for .npy and .faiss, an index: a file, or a
    Milvus or PostgreSQL address"""

    output: Positional[Annotated[Path, arg(metavar="OUTPUT")]]
    """file to write, ending in .onnx, .npy or .faiss; image ids go into an .ids.json file next to it"""

    bits: int | None = None
    """code length (default: all bits)"""

    json: bool = False
    """print the names of the files written as JSON"""

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
