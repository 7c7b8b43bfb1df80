"""The subcommands of `nestkala`, one a file: a dataclass of its arguments, with `run`. Torch is imported only there."""

from .advise import Advise
from .cache import Cache
from .classify import Classify
from .encode import Encode
from .eval import Eval
from .experiment import Experiment
from .export import Export
from .index import Index
from .listing import List
from .report import Report
from .search import Search
from .serve import Serve

__all__ = [
    "Advise",
    "Cache",
    "Classify",
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
