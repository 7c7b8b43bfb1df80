"""A mixture of directions on the unit sphere: posteriors, means, likelihood and clusters."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

SHARPNESS = 20.0
"""The concentration of every component, by cosine."""

CHUNK = 8192
"""Images per chunk, for operations whose results are wider than their inputs."""

_CLUSTER_ROUNDS, _WEIGHT_ROUNDS = 15, 10


def log_densities(prototypes: Tensor, units: Tensor) -> Tensor:
    """Log-densities up to a constant, (M, C), of units (M, k) under components with prototypes (C, k)."""
    return SHARPNESS * units @ prototypes.T


def posteriors_of(units: Tensor, score: Callable[[Tensor], Tensor], added: Tensor | None = None) -> Tensor:
    """Probabilities of the components (M, C), in half precision: 200 MB for 100,000 images and 1,000 classes.

    Args:
        units: images (M, k).
        score: computes the log-densities (m, C) of some of them (m, k).
        added: added to the log-densities, (M, C).
    """
    if added is None:
        return torch.cat([score(rows).softmax(dim=1).half() for rows in units.split(CHUNK)])
    chunks = zip(units.split(CHUNK), added.split(CHUNK), strict=True)
    return torch.cat([(score(rows) + more).softmax(dim=1).half() for rows, more in chunks])


def weighted_sums(weights: Tensor, units: Tensor, space: Callable[[Tensor], Tensor] = lambda rows: rows) -> Tensor:
    """Sums (C, d) over images of weight (M, C) times image (M, k), mapped to a space of d dimensions."""
    chunks = zip(weights.split(CHUNK), units.split(CHUNK), strict=True)
    return torch.stack([w.to(rows).T @ space(rows) for w, rows in chunks]).sum(dim=0)


def likelihood(prototypes: Tensor, units: Tensor, space: Callable[[Tensor], Tensor]) -> float:
    """Log-likelihood of units (M, k), mapped to a space, under equally frequent components, up to a constant."""
    return sum(log_densities(prototypes, space(rows)).logsumexp(dim=1).sum().item() for rows in units.split(CHUNK))


def held_out_likelihood(prototypes: Tensor, fitted: Tensor, held_out: Tensor) -> float:
    """Mean log-likelihood of units (h, k), with component frequencies estimated on other units (f, k)."""
    frequencies = fitted.new_full((len(prototypes),), 1 / len(prototypes))
    for _ in range(_WEIGHT_ROUNDS):
        frequencies = (log_densities(prototypes, fitted) + frequencies.log()).softmax(dim=1).mean(dim=0).clamp(min=1e-9)
    return (log_densities(prototypes, held_out) + frequencies.log()).logsumexp(dim=1).mean().item()


def clusters(units: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """Cluster prototypes (number, k) of units (M, k): soft k-means on the sphere from a k-means++ start.

    Source: k-means++ (Arthur and Vassilvitskii, SODA 2007).
    """
    chosen = units[torch.randint(len(units), (1,), generator=generator).to(units.device)]
    nearest = units @ chosen[0]
    while len(chosen) < number:
        far = (1 - nearest).clamp(min=0).square().cpu() + 1e-12
        chosen = torch.cat([chosen, units[torch.multinomial(far, 1, generator=generator).to(units.device)]])
        nearest = torch.maximum(nearest, units @ chosen[-1])
    for _ in range(_CLUSTER_ROUNDS):
        found = posteriors_of(units, lambda rows: log_densities(chosen, rows))  # noqa: B023 -- called at once
        chosen = F.normalize(weighted_sums(found, units), dim=1)
    return chosen
