"""`nestkala duplicates`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from ...utils.errors import NestKALAError

DEFAULT_DISTANCE = 9
"""Of 128 bits. It finds photographs that were saved again, and most of those that were cut a little."""


@dataclass(frozen=True)
class Duplicates:
    """Find groups of near-duplicates among the images of an index, by their whole codes. Nothing is deleted.

    Two images are in a group where a chain of images leads from one to the other, each within the distance of the next.
    """

    index: Positional[Annotated[str, arg(metavar="INDEX")]]
    """that `nestkala index` made: a file, a folder with its index beside it, or where Milvus or PostgreSQL keeps it"""

    max_distance: int | None = None
    """bits in which two near-duplicates differ at most; by default 9 of 128, and in proportion of other lengths. More
    finds stronger crops, too, and ever more photographs that only look alike"""

    html: Path | None = None
    """write a page of the groups as thumbnails, which open the images, to this file"""

    json: bool = False
    """print the groups as JSON"""

    def run(self) -> None:
        from ...search.duplicates import find_duplicates
        from ...search.opening import index_called, open_index
        from ...search.provenance import folder_of
        from ...search.result_page import Section, page_of
        from ...utils.errors import as_line
        from ...utils.files import write_text

        index = open_index(index_called(self.index)).local()
        radius = round(DEFAULT_DISTANCE * index.bits / 128) if self.max_distance is None else self.max_distance
        if not 0 <= radius < index.bits:
            raise NestKALAError(f"--max-distance must be 0 to {index.bits - 1}, not {radius}")
        groups = find_duplicates(index, radius)
        images = sum(len(group) for group in groups)
        count = "1 group" if len(groups) == 1 else f"{len(groups)} groups"
        said = f"{images} of {len(index)} images in {count}, within {radius} of {index.bits} bits"
        if self.html is not None:
            sections = [Section(f"{len(group)} images", [(name, None) for name in group]) for group in groups]
            write_text(self.html, page_of("Near-duplicates", said, sections, folder_of(index)))
        if self.json:
            print(json.dumps({"bits": index.bits, "max_distance": radius, "groups": groups}))
            return
        for group in groups:
            print("\n".join(as_line(name) for name in group), end="\n\n")
        print(said)
