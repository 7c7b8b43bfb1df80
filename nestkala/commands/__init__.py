"""The subcommands of `nestkala`: one dataclass of arguments each, with a `run` method. Only `run` imports torch."""

from .advise import Advise
from .cache import Cache
from .encode import Encode
from .eval import Eval
from .experiment import Experiment
from .export import Export
from .finding import Classify, Duplicates, Search
from .index import Index
from .listing import List
from .report import Report
from .serve import Serve

__all__ = [
    "Advise",
    "Cache",
    "Classify",
    "Duplicates",
    "Encode",
    "Eval",
    "Experiment",
    "Export",
    "Index",
    "List",
    "Report",
    "Search",
    "Serve",
]
