"""What training was like, epoch by epoch: history.json of a run folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
        terms: {bits: {term's name: its mean over the steps}}, before the lengths' weights; a step without it counts 0.
        weights: {bits: mean over the steps of the length's weight}.
        objective: {bits: `HashLoss.discrete_objective` at the epoch's end}; None for losses that have none.
    """

    terms: dict[int, dict[str, float]]
    weights: dict[int, float]
    objective: dict[int, float] | None


class EpochMeans:
    """Takes the steps of one epoch and gives their `Epoch`.

    Values stay on their device until `finish`, so that no step waits for them.
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        self._lengths, self._steps = tuple(lengths), 0
        self._weights: Tensor | float = 0.0
        self._sums: dict[tuple[tuple[int, str], ...], Tensor | float] = {}

    def add(self, step: NestedTerms) -> None:
        """Count a step."""
        names = tuple((bits, name) for bits, terms in step.terms.items() for name in terms)
        values = torch.stack([value.detach() for terms in step.terms.values() for value in terms.values()])
        self._sums[names] = self._sums.get(names, 0.0) + values
        self._weights = self._weights + step.weights.detach()
        self._steps += 1

    def finish(self, objectives: Tensor | None) -> Epoch:
        """The means over the steps, one at least, with the lengths' discrete objectives (m,), if any."""
        terms: dict[int, dict[str, float]] = {bits: {} for bits in self._lengths}
        for names, sums in self._sums.items():
            for (bits, name), value in zip(names, self._means(sums), strict=True):
                terms[bits][name] = terms[bits].get(name, 0.0) + value
        weights = dict(zip(self._lengths, self._means(self._weights), strict=True))
        if objectives is None:
            return Epoch(terms, weights, None)
        return Epoch(terms, weights, dict(zip(self._lengths, objectives.tolist(), strict=True)))

    def _means(self, sums: Tensor | float) -> list[float]:
        means: list[float] = (torch.as_tensor(sums).double() / self._steps).tolist()
        return means


_JSON = TypeAdapter(list[Epoch])


def history_as_json(history: Sequence[Epoch]) -> str:
    """The epochs as JSON, on one line."""
    return _JSON.dump_json(list(history)).decode()


def history_from_json(text: str | bytes, where: str) -> list[Epoch]:
    """The epochs of what `history_as_json` gave; raises NestKALAError, which names `where`, for anything else."""
    try:
        return _JSON.validate_json(text)
    except ValidationError as error:
        raise NestKALAError(f"{where} holds no history of training: {first_in_words(error)}") from None


def load_history(run: Path) -> list[Epoch] | None:
    """The epochs of a run folder, None where there is no history.json; raises NestKALAError for a damaged one."""
    path = run / "history.json"
    return history_from_json(path.read_bytes(), str(path)) if path.is_file() else None
