"""`nestkala search`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from ..utils.errors import NestKALAError


@dataclass(frozen=True)
class Search:
    """Find the images of an index that are most like a given one, or like what a sentence says."""

    index: Positional[Annotated[str, arg(metavar="INDEX")]]
    """that `nestkala index` made: a file, or where Milvus keeps it"""

    image: Positional[Annotated[Path | None, arg(metavar="IMAGE")]] = None
    """to ask with, or leave out and give --text"""

    text: str | None = None
    """sentence to ask with, such as "a photo of a dog." """

    bits: int | None = None
    """prefix length that is compared: shorter is faster, longer better; by default the whole code"""

    k: Annotated[int | None, arg(aliases=["-k"])] = None
    """how many; by default 20"""

    radius: int | None = None
    """in place of --k: all that differ in so many of the bits at most"""

    shortlist: int | None = None
    """coarse to fine: so many are found at --bits, and re-ranked by the whole code, or by --rescore"""

    rescore: bool = False
    """re-rank by the query's real-valued output, which parts the ties of short codes"""

    model: str | None = None
    """where the index's model is, if it has moved"""

    html: Path | None = None
    """write a page of thumbnails to this file"""

    json: bool = False
    """print the results as JSON"""

    def run(self) -> None:
        from tabulate import tabulate

        from ..codes import pack
        from ..search.opening import open_index
        from ..search.provenance import folder_of, hasher_of
        from ..search.result_page import result_page
        from ..utils.errors import as_line
        from ..utils.files import write_text

        if (self.image is None) == (self.text is None):
            raise NestKALAError("give an image or --text, one of them")
        if self.text is not None and not self.text.strip():
            raise NestKALAError("--text is empty: say what the images should show")
        if self.text is not None and self.rescore:
            raise NestKALAError("--rescore takes an image's real-valued output: leave it out with --text")
        if self.radius is not None and (self.k is not None or self.shortlist is not None or self.rescore):
            raise NestKALAError("--radius finds all within a distance: leave out --k, --shortlist and --rescore")
        if self.shortlist is not None and self.bits is None and not self.rescore:
            raise NestKALAError("--shortlist is found by the first bits of the code: say how many, --bits")
        index = open_index(self.index)
        hasher = hasher_of(index, self.model)
        relaxed = None if self.image is None else hasher.relaxed(self.image)
        codes = hasher.encode_text(str(self.text)) if relaxed is None else pack(relaxed)
        if self.radius is not None:
            hits = index.search_radius(codes, self.radius, self.bits)
        else:
            soft = relaxed if self.rescore else None
            hits = index.search(
                codes, 20 if self.k is None else self.k, self.bits, shortlist=self.shortlist, rescore=soft
            )
        distances = hits.distances[0].tolist()
        found = [{"distance": d, "image": name} for d, name in zip(distances, hits.ids[0], strict=True)]
        asked = self.image or str(self.text)
        if self.html is not None:
            results = zip(hits.ids[0], distances, strict=True)
            write_text(self.html, result_page(asked, folder_of(index), results, self._compared(index.bits)))
        if self.json:
            print(json.dumps({"query": str(asked), "bits": self.bits or index.bits, "results": found}))
        else:
            rows = [(n, each["distance"], as_line(str(each["image"]))) for n, each in enumerate(found, start=1)]
            print(tabulate(rows, ("", "distance", "image"), tablefmt="simple"))

    def _compared(self, longest: int) -> str:
        first = f"the first {self.bits} of {longest} bits" if self.bits else f"all {longest} bits"
        if self.rescore:
            return f"{first}, then by the query's real-valued output"
        return f"{first}, then all of {self.shortlist} images" if self.shortlist else first
