"""The history of training, epoch by epoch: history.json of a run folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import NamedTuple, Self

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from ..losses import NestedTerms
from ..utils.errors import NestKALAError
from ..utils.validation import first_in_words


@dataclass(frozen=True)
class Epoch:
    """An epoch at every length.

    Attributes:
        terms: {bits: {term name: mean over the steps}}, before the lengths' weights; a step without the term counts 0.
        weights: {bits: mean over the steps of the length's weight}.
        objective: {bits: `HashLoss.discrete_objective` at the end of the epoch}; None for losses without one.
    """

    terms: dict[int, dict[str, float]]
    weights: dict[int, float]
    objective: dict[int, float] | None

    @classmethod
    def of(cls, steps: Sequence["StepValues"], objectives: Tensor | None) -> Self:
        """Means over at least one step, with the lengths' discrete objectives (m,), if any."""
        lengths = tuple(steps[0].weights)
        names = {bits: dict.fromkeys(name for step in steps for name in step.terms[bits]) for bits in lengths}
        terms = {
            bits: {name: fmean(step.terms[bits].get(name, 0.0) for step in steps) for name in of_length}
            for bits, of_length in names.items()
        }
        weights = {bits: fmean(step.weights[bits] for step in steps) for bits in lengths}
        values = None if objectives is None else dict(zip(lengths, objectives.tolist(), strict=True))
        return cls(terms, weights, values)


class StepValues(NamedTuple):
    """One step at every length.

    Attributes:
        terms: {bits: {term name: value}}, before the lengths' weights.
        weights: {bits: the length's weight}.
    """

    terms: dict[int, dict[str, float]]
    weights: dict[int, float]


class EpochSteps:
    """Collects the steps of one epoch and returns their values. Until then these stay on the device: no step waits."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self._lengths = tuple(lengths)
        self._names: list[list[tuple[int, str]]] = []
        self._kept: list[Tensor] = []

    def add(self, step: NestedTerms) -> None:
        """Add a step."""
        self._names.append([(bits, name) for bits, terms in step.terms.items() for name in terms])
        values = [value.detach() for terms in step.terms.values() for value in terms.values()]
        self._kept.append(torch.cat([torch.stack(values), step.weights.detach()]))

    def values(self) -> list[StepValues]:
        """The values of each step, in order."""
        flat = iter(torch.cat(self._kept).tolist() if self._kept else ())
        found = []
        for names in self._names:
            terms: dict[int, dict[str, float]] = {bits: {} for bits in self._lengths}
            for bits, name in names:
                terms[bits][name] = next(flat)
            found.append(StepValues(terms, {bits: next(flat) for bits in self._lengths}))
        return found


_JSON = TypeAdapter(list[Epoch])


def history_as_json(history: Sequence[Epoch]) -> str:
    """The epochs as JSON, on one line."""
    return _JSON.dump_json(list(history)).decode()


def history_from_json(text: str | bytes, where: str) -> list[Epoch]:
    """The epochs from `history_as_json`; raises NestKALAError, which names `where`, for anything else."""
    try:
        return _JSON.validate_json(text)
    except ValidationError as error:
        raise NestKALAError(f"{where} does not contain a training history: {first_in_words(error)}") from None


def load_history(run: Path) -> list[Epoch] | None:
    """The epochs of a run folder, None if there is no history.json; raises NestKALAError if it is damaged."""
    path = run / "history.json"
    return history_from_json(path.read_bytes(), str(path)) if path.is_file() else None
