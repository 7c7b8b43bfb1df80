"""`nestkala search`."""

import json
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, UseAppendAction, arg

from ...utils.console import linked
from ...utils.errors import NestKALAError, as_line
from ..backend_flag import BackendFlag

if TYPE_CHECKING:
    from ...index import SearchIndex
    from ...search.places import ImageFolders
    from ...search.queries import Query


@dataclass(frozen=True)
class Search:
    """Find the images of an index that are most like a given one, or like what a sentence says.

    What is no file, and no image of the index by its name there, is taken as a sentence: nestkala search photos dog.
    """

    index: Positional[Annotated[str, arg(metavar="INDEX")]]
    """that `nestkala index` made: a file, a folder with its index beside it, or where Milvus or PostgreSQL keeps it.
    Several files of one model are searched together, separated by commas: 2019.index,2020.index"""

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

    where: UseAppendAction[Annotated[tuple[str, ...], arg(metavar="CONDITION")]] = ()
    """search only images for which this holds, such as folder=2019/italy, date>=2024-05 or date<2020; all of
    several must hold. Quote it, since < and > mean something to a shell"""

    relevant: bool = False
    """show only results that are nearer than chance explains, and none if there are none such"""

    shortlist: int | None = None
    """coarse to fine: so many are found at --bits, and re-ranked by the whole code, or by --rescore"""

    rescore: bool = False
    """re-rank by the query's real-valued output, which parts the ties of short codes"""

    model: str | None = None
    """where the index's model is, if it has moved"""

    backend: BackendFlag = "torch"

    root: UseAppendAction[Annotated[tuple[str, ...], arg(metavar="FOLDER")]] = ()
    """where the images' folder is now, if it was moved; of an index of several, NAME=FOLDER"""

    html: Path | None = None
    """write a page of thumbnails, which open the images, to this file"""

    json: bool = False
    """print the results as JSON: of one query an object, of several a list of them"""

    def run(self) -> None:
        from ...index.prefix_index import PrefixIndex
        from ...search.opening import index_called, open_index
        from ...search.places import folders_of
        from ...search.provenance import hasher_of
        from ...search.queries import as_query, of_text
        from ...utils.files import check_writable

        self._check()
        if self.html is not None:
            check_writable(self.html)
        where = index_called(self.index)
        index = open_index(where)
        if self.relevant and not isinstance(index, PrefixIndex):
            raise NestKALAError(f"--relevant compares with the images of an index file, and {self.index} is none")
        known = {"folder", "folders"} & index.about.keys() or self.root or self.html is not None
        folders = folders_of(index, where, self.root) if known else None
        if folders is not None and self.html is not None:
            folders.check_there(where)
        hasher = hasher_of(index, self.model, where, self.backend)
        asked = [as_query(said, index, hasher, folders) for said in self.queries]
        if self.text is not None:
            asked.append(of_text(self.text, hasher))
        if self.rescore and any(query.relaxed is None for query in asked):
            raise NestKALAError("--rescore takes the real-valued output of an image file: leave it out with sentences")
        also, unlike = (
            [as_query(said, index, hasher, folders) for said in given] for given in (self.also, self.unlike)
        )
        found = [self._found(index, query, also, unlike) for query in asked]
        answers = [
            {"query": str(query.asked), "bits": self.bits or index.bits, "results": results}
            for query, results in zip(asked, found, strict=True)
        ]
        if self.html is not None:
            from ...search.result_page import Section, result_page
            from ...utils.files import write_text

            assert folders is not None
            sections = [
                Section(query.asked, [(result["image"], result["distance"]) for result in results])
                for query, results in zip(asked, found, strict=True)
            ]
            write_text(self.html, result_page(sections, folders, self._compared(index.bits)))
        if self.json:
            page = {} if self.html is None else {"html": str(self.html)}
            print(json.dumps(answers[0] | page if len(answers) == 1 else [answer | page for answer in answers]))
            return
        for place, (query, results) in enumerate(zip(asked, found, strict=True)):
            if len(asked) > 1:
                print(f"{chr(10) if place else ''}{as_line(str(query.asked))}")
            _print_table(results, folders)
        if self.html is not None:
            print(f"page: {self.html}")

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
        if self.relevant and self.rescore:
            raise NestKALAError("--relevant compares whole bits: leave out --rescore")
        if self.also or self.unlike:
            if self.radius is not None or self.rescore or self.bits is not None:
                raise NestKALAError("--also and --not rank by whole codes: leave out --bits, --radius and --rescore")
        elif self.shortlist is not None and self.bits is None and not self.rescore:
            raise NestKALAError("--shortlist is found by the first bits of the code: say how many, --bits")

    def _found(
        self, index: "SearchIndex", query: "Query", also: "list[Query]", unlike: "list[Query]"
    ) -> list[dict[str, Any]]:
        """The results of one query, nearest first, each with what is known of it."""
        from ...index.prefix_index import PrefixIndex
        from ...search.chance import chance_of_pairs, chance_of_query
        from ...search.queries import mixture, search_mixture

        k, bits = 20 if self.k is None else self.k, self.bits
        soft = query.relaxed if self.rescore else None
        if also or unlike:
            soft = mixture([query, *also], unlike, index.bits)
            hits = search_mixture(index, soft, k, self.shortlist, where=self.where)
        elif self.radius is not None:
            hits = index.search_radius(query.code, self.radius, bits, where=self.where)
        else:
            hits = index.search(query.code, k, bits, shortlist=self.shortlist, rescore=soft, where=self.where)
        names, distances = hits.ids[0], hits.distances[0]
        columns: dict[str, list[Any]] = {"distance": distances.tolist(), "image": names}
        if isinstance(index, PrefixIndex):
            compared = index.bits if self.shortlist is not None else bits  # in the end by all bits
            if soft is not None:
                chance = chance_of_query(index, soft)
            elif query.is_image:
                chance = chance_of_pairs(index, compared, with_limit=self.relevant)
            else:
                chance = chance_of_query(index, query.code, compared)
            columns["similarity"] = chance.similarity(distances).round(2).tolist()
            if self.relevant:
                kept = chance.is_relevant(distances)
                columns = {name: list(compress(values, kept)) for name, values in columns.items()}
        items = map(index.get, columns["image"])
        columns["date"] = [None if item is None else item[1].get("date") for item in items]
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def _compared(self, longest: int) -> str:
        if self.also or self.unlike:
            said = [f"like {said} as well" for said in self.also] + [f"not like {said}" for said in self.unlike]
            return f"all {longest} bits, {', '.join(said)}"
        first = f"the first {self.bits} of {longest} bits" if self.bits else f"all {longest} bits"
        if self.rescore:
            return f"{first}, then by the query's real-valued output"
        return f"{first}, then all of {self.shortlist} images" if self.shortlist else first


def _print_table(results: list[dict[str, Any]], folders: "ImageFolders | None") -> None:
    """The results for people: dates without seconds, and names that open the images."""
    from tabulate import tabulate

    if not results:
        print("nothing matches")
        return
    rows = []
    for place, result in enumerate(results, start=1):
        similarity = f"{result['similarity']:.2f} %" if "similarity" in result else ""
        date = str(result["date"] or "").replace("T", " ")[:16]
        file = None if folders is None else folders.file(result["image"])
        rows.append((place, result["distance"], similarity, date, linked(as_line(result["image"]), file)))
    print(tabulate(rows, ("", "distance", "similarity", "date", "image"), tablefmt="simple"))
