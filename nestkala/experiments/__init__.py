"""Experiments: grids of training runs, described in a YAML file, resumable, and shown as tables."""

from .grid import Grid, Trial, absent_data, check_shared, make_grid
from .output import write_output
from .runs import Run, finish, mean_and_spread
from .schema import Experiment, Method, Row, load_experiment
from .tuning import tuned

__all__ = [
    "Experiment",
    "Grid",
    "Method",
    "Row",
    "Run",
    "Trial",
    "absent_data",
    "check_shared",
    "finish",
    "load_experiment",
    "make_grid",
    "mean_and_spread",
    "tuned",
    "write_output",
]
