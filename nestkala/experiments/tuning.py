"""Chooses the best value of a setting for every method of an experiment, before its runs."""

from collections.abc import Sequence

import numpy as np

from .grid import Grid
from .schema import Experiment


def tuned(experiment: Experiment, grids: Sequence[Grid]) -> Experiment:
    """The experiment with the best value of the tuned setting in every method that was tuned.

    The best value has the highest mean of the first measure over data sets and lengths; a run that diverged counts 0.

    Args:
        experiment: experiment as in its file.
        grids: grids of its `tuning` experiments, whose runs are all finished.
    """
    if experiment.tune is None:
        return experiment
    methods = dict(experiment.methods)
    for grid in grids:
        places = dict.fromkeys((trial.data, trial.shots) for trial in grid.trials)
        for name in grid.experiment.methods:
            rows = grid.experiment.rows_of(name)
            scores = [[grid.scores(*place, row, experiment.measures[0]) for place in places] for row in rows]
            best = rows[int(np.nan_to_num(scores).mean(axis=(1, 2, 3)).argmax())]  # (values, places, seeds, lengths)
            methods[name] = methods[name].model_copy(update={experiment.tune.setting: best.value})
    return experiment.model_copy(update={"methods": methods})
