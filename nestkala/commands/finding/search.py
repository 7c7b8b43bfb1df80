"""`nestkala search`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, UseAppendAction, arg

from ...utils.errors import NestKALAError

if TYPE_CHECKING:
    from ...index import Hits, SearchIndex
    from ...search.queries import Query


@dataclass(frozen=True)
class Search:
    """Find the images of an index that are most like a given one, or like what a sentence says.

    What is no file, and no image of the index by its name there, is taken as a sentence: nestkala search photos dog.
    """

    index: Positional[Annotated[str, arg(metavar="INDEX")]]
    """that `nestkala index` made: a file, a folder with its index beside it, or where Milvus keeps it. Several files of
    one model are searched together, with commas between: 2019.index,2020.index"""

    queries: Positional[Annotated[tuple[str, ...], arg(metavar="QUERY")]] = ()
    """image or sentence to ask with; several are answered one after the other"""

    text: str | None = None
    """sentence to ask with, whatever files there are, such as "a photo of a dog." """

    also: UseAppendAction[Annotated[tuple[str, ...], arg(metavar="QUERY")]] = ()
    """image or sentence that the results should be like as well; may be said again"""

    unlike: UseAppendAction[Annotated[tuple[str, ...], arg(name="not", metavar="QUERY")]] = ()
    """image or sentence that the results should not be like; may be said again"""

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
    """write a page of thumbnails, which open the images, to this file"""

    json: bool = False
    """print the results as JSON: of one query an object, of several a list of them"""

    def run(self) -> None:
        from tabulate import tabulate

        from ...search.opening import index_called, open_index
        from ...search.provenance import folder_of, hasher_of
        from ...search.queries import as_query, of_text
        from ...utils.errors import as_line

        self._check()
        where = index_called(self.index)
        index = open_index(where)
        hasher = hasher_of(index, self.model, where)
        folder = folder_of(index) if "folder" in index.about else None
        asked = [as_query(said, index, hasher, folder) for said in self.queries]
        if self.text is not None:
            asked.append(of_text(self.text, hasher))
        if self.rescore and any(query.relaxed is None for query in asked):
            raise NestKALAError("--rescore takes the real-valued output of an image file: leave it out with sentences")
        also, unlike = ([as_query(said, index, hasher, folder) for said in given] for given in (self.also, self.unlike))
        found = [self._found(index, query, also, unlike) for query in asked]
        if self.html is not None:
            from ...search.result_page import Section, result_page
            from ...utils.files import write_text

            sections = [
                Section(query.asked, zip(hits.ids[0], hits.distances[0].tolist(), strict=True))
                for query, hits in zip(asked, found, strict=True)
            ]
            write_text(self.html, result_page(sections, folder_of(index), self._compared(index.bits)))
        answers = [
            {"query": str(query.asked), "bits": self.bits or index.bits, "results": _results(hits)}
            for query, hits in zip(asked, found, strict=True)
        ]
        if self.json:
            print(json.dumps(answers[0] if len(answers) == 1 else answers))
            return
        for place, (query, hits) in enumerate(zip(asked, found, strict=True)):
            if len(asked) > 1:
                print(f"{chr(10) if place else ''}{as_line(str(query.asked))}")
            rows = [(n, r["distance"], as_line(str(r["image"]))) for n, r in enumerate(_results(hits), start=1)]
            print(tabulate(rows, ("", "distance", "image"), tablefmt="simple"))

    def _check(self) -> None:
        """Raise NestKALAError for flags that do not go together."""
        if not self.queries and self.text is None:
            raise NestKALAError("give an image or a sentence to ask with")
        if self.text is not None and not self.text.strip():
            raise NestKALAError("--text is empty: say what the images should show")
        if self.text is not None and self.rescore:
            raise NestKALAError("--rescore takes an image's real-valued output: leave it out with --text")
        if self.radius is not None and (self.k is not None or self.shortlist is not None or self.rescore):
            raise NestKALAError("--radius finds all within a distance: leave out --k, --shortlist and --rescore")
        if self.also or self.unlike:
            if self.radius is not None or self.rescore or self.bits is not None:
                raise NestKALAError("--also and --not rank by whole codes: leave out --bits, --radius and --rescore")
        elif self.shortlist is not None and self.bits is None and not self.rescore:
            raise NestKALAError("--shortlist is found by the first bits of the code: say how many, --bits")

    def _found(self, index: "SearchIndex", query: "Query", also: "list[Query]", unlike: "list[Query]") -> "Hits":
        from ...search.queries import mixture, search_mixture

        k = 20 if self.k is None else self.k
        if also or unlike:
            return search_mixture(index, mixture([query, *also], unlike, index.bits), k, self.shortlist)
        if self.radius is not None:
            return index.search_radius(query.code, self.radius, self.bits)
        soft = query.relaxed if self.rescore else None
        return index.search(query.code, k, self.bits, shortlist=self.shortlist, rescore=soft)

    def _compared(self, longest: int) -> str:
        if self.also or self.unlike:
            said = [f"like {said} as well" for said in self.also] + [f"not like {said}" for said in self.unlike]
            return f"all {longest} bits, {', '.join(said)}"
        first = f"the first {self.bits} of {longest} bits" if self.bits else f"all {longest} bits"
        if self.rescore:
            return f"{first}, then by the query's real-valued output"
        return f"{first}, then all of {self.shortlist} images" if self.shortlist else first


def _results(hits: "Hits") -> list[dict[str, object]]:
    ranked = zip(hits.distances[0].tolist(), hits.ids[0], strict=True)
    return [{"distance": distance, "image": name} for distance, name in ranked]
