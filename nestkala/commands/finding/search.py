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
    """Find the images in an index that are most similar to an image or best match a sentence.

    A query that is neither a file nor the name of an image in the index is a sentence: nestkala search photos dog.
    """

    index: Positional[Annotated[str, arg(metavar="INDEX")]]
    """index made by `nestkala index`: a file, a folder with its index next to it, or a Milvus or PostgreSQL address.
    To search several files made with the same model, separate them with commas: 2019.index,2020.index"""

    queries: Positional[Annotated[tuple[str, ...], arg(metavar="QUERY")]] = ()
    """image or sentence to search for; several are answered one after another"""

    text: str | None = None
    """sentence to search for, even if a file has that name, such as "a photo of a dog." """

    also: UseAppendAction[Annotated[tuple[str, ...], arg(metavar="QUERY")]] = ()
    """image or sentence that results should also be similar to"""

    unlike: UseAppendAction[Annotated[tuple[str, ...], arg(name="not", metavar="QUERY")]] = ()
    """image or sentence that results should not be similar to"""

    bits: int | None = None
    """prefix length to compare: shorter is faster, longer is better (default: the full code)"""

    k: Annotated[int | None, arg(aliases=["-k"])] = None
    """how many results to return (default: 20)"""

    radius: int | None = None
    """return all images that differ in at most this many bits, instead of --k"""

    where: UseAppendAction[Annotated[tuple[str, ...], arg(metavar="CONDITION")]] = ()
    """search only images that meet this condition, such as folder=2019/italy, "date>=2024-05" or "date<2020"; if given
    several times, all must hold. Quote < and >, which are special to the shell"""

    relevant: bool = False
    """show only results that are closer than chance would explain, which may be none"""

    shortlist: int | None = None
    """coarse-to-fine search: find this many images at --bits, then re-rank them by the full code or by --rescore"""

    rescore: bool = False
    """re-rank by the query's real-valued output, which breaks ties between short codes"""

    model: str | None = None
    """new location of the index's model, if it has moved"""

    backend: BackendFlag = "torch"

    root: UseAppendAction[Annotated[tuple[str, ...], arg(metavar="FOLDER")]] = ()
    """new location of the image folder, if it has moved; NAME=FOLDER if the index covers several"""

    html: Path | None = None
    """write the results to this file as an HTML page of thumbnails that link to the images"""

    json: bool = False
    """print the results as JSON: an object for one query, a list of objects for several"""

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
            raise NestKALAError(f"--relevant needs an index file, and {self.index} is not one")
        known = {"folder", "folders"} & index.about.keys() or self.root or self.html is not None
        folders = folders_of(index, where, self.root) if known else None
        if folders is not None and self.html is not None:
            folders.check_there(where)
        hasher = hasher_of(index, self.model, where, self.backend)
        asked = [as_query(said, index, hasher, folders) for said in self.queries]
        if self.text is not None:
            asked.append(of_text(self.text, hasher))
        if self.rescore and any(query.relaxed is None for query in asked):
            raise NestKALAError("--rescore uses the real-valued output of an image file: leave it out for sentences")
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
        """Raise NestKALAError for conflicting flags."""
        if not self.queries and self.text is None:
            raise NestKALAError("give an image or a sentence to search for")
        if self.text is not None and not self.text.strip():
            raise NestKALAError("--text is empty: describe what the images should show")
        if self.text is not None and self.rescore:
            raise NestKALAError("--rescore uses an image's real-valued output: leave it out with --text")
        if self.radius is not None and (self.k is not None or self.shortlist is not None or self.rescore):
            raise NestKALAError("--radius finds all images within a distance: leave out --k, --shortlist and --rescore")
        if self.relevant and self.rescore:
            raise NestKALAError("--relevant compares whole bits: leave out --rescore")
        if self.also or self.unlike:
            if self.radius is not None or self.rescore or self.bits is not None:
                raise NestKALAError("--also and --not rank by the full code: leave out --bits, --radius and --rescore")
        elif self.shortlist is not None and self.bits is None and not self.rescore:
            raise NestKALAError("--shortlist is found by the first bits of the code: say how many with --bits")

    def _found(
        self, index: "SearchIndex", query: "Query", also: "list[Query]", unlike: "list[Query]"
    ) -> list[dict[str, Any]]:
        """The results of one query, nearest first, with the metadata of each."""
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
            compared = index.bits if self.shortlist is not None else bits  # the final ranking uses all bits
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
            said = [f"also like {said}" for said in self.also] + [f"not like {said}" for said in self.unlike]
            return f"all {longest} bits, {', '.join(said)}"
        first = f"the first {self.bits} of {longest} bits" if self.bits else f"all {longest} bits"
        if self.rescore:
            return f"{first}, then by the query's real-valued output"
        return f"{first}, then all of {self.shortlist} images" if self.shortlist else first


def _print_table(results: list[dict[str, Any]], folders: "ImageFolders | None") -> None:
    """Print the results as a table: dates without seconds, names that link to the images."""
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
