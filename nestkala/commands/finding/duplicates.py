"""`nestkala duplicates`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, UseAppendAction, arg

from ...utils.console import linked
from ...utils.errors import NestKALAError, as_line

DEFAULT_DISTANCE = 9
"""Out of 128 bits. Finds photographs that were saved again and most that were slightly cropped."""


@dataclass(frozen=True)
class Duplicates:
    """Find groups of near-duplicate images in an index. Nothing is deleted.

    Full codes are compared. Two images share a group if a chain of images connects them, each within --max-distance of
    the next.
    """

    index: Positional[Annotated[str, arg(metavar="INDEX")]]
    """index made by `nestkala index`: a file, a folder with its index next to it, or a Milvus or PostgreSQL address"""

    max_distance: int | None = None
    """maximum number of differing bits (default: 9 of 128, in proportion for other lengths). Larger values also find
    stronger crops, but more photographs that merely look alike"""

    html: Path | None = None
    """write the groups to this file as an HTML page of thumbnails that link to the images"""

    root: UseAppendAction[Annotated[tuple[str, ...], arg(metavar="FOLDER")]] = ()
    """new location of the image folder, if it has moved; NAME=FOLDER if the index covers several"""

    json: bool = False
    """print the groups as JSON"""

    def run(self) -> None:
        from ...search.duplicates import find_duplicates
        from ...search.opening import index_called, open_index
        from ...search.places import folders_of
        from ...search.result_page import Section, page_of
        from ...utils.files import check_writable, write_text

        if self.html is not None:
            check_writable(self.html)
        where = index_called(self.index)
        index = open_index(where).local()
        radius = round(DEFAULT_DISTANCE * index.bits / 128) if self.max_distance is None else self.max_distance
        if not 0 <= radius < index.bits:
            raise NestKALAError(f"--max-distance must be 0 to {index.bits - 1}, not {radius}")
        known = {"folder", "folders"} & index.about.keys() or self.root or self.html is not None
        folders = folders_of(index, where, self.root) if known else None
        if folders is not None and self.html is not None:
            folders.check_there(where)
        groups = find_duplicates(index, radius)
        images = sum(len(group) for group in groups)
        count = "1 group" if len(groups) == 1 else f"{len(groups)} groups"
        said = f"{images} of {len(index)} images in {count}, within {radius} of {index.bits} bits"
        if self.html is not None:
            sections = [Section(f"{len(group)} images", [(name, None) for name in group]) for group in groups]
            assert folders is not None
            write_text(self.html, page_of("Near-duplicates", said, sections, folders))
        if self.json:
            page = {} if self.html is None else {"html": str(self.html)}
            print(json.dumps({"bits": index.bits, "max_distance": radius, "groups": groups} | page))
            return
        for group in groups:
            files = ((name, None if folders is None else folders.file(name)) for name in group)
            print("\n".join(linked(as_line(name), file) for name, file in files), end="\n\n")
        print(said)
        if self.html is not None:
            print(f"page: {self.html}")
