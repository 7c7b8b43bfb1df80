"""What it matters that NestKALA differs from published code: the measured column of docs/deviations.md.

    python scripts/deviations.py                 # all, some fifteen minutes on one core
    python scripts/deviations.py --only adsh     # one comparison

Every comparison trains hash layers for 8, 16 and 32 bits, apart from each other, on the features of scikit-learn's
digits that the built-in backbone gives, as it is here and as published, and prints the difference in tie-aware mAP x
100, mean over the lengths, as mean and standard deviation over 3 seeds. 8 labeled images a class, 100 epochs of
batches of 8, momentum 0.9. Each side has the learning rate that is best for it on one half of the images; labeled
images, queries and gallery are of the other half. docs/deviations.json keeps what was found.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tyro import cli

from nestkala.backbones import load_backbone
from nestkala.cli import guarded
from nestkala.codes import pack
from nestkala.data import load_dataset
from nestkala.evaluation import evaluate
from nestkala.experiments import mean_and_spread
from nestkala.heads import FlatHashHead, HashHead, NestedHashHead
from nestkala.losses import (
    ADSH,
    CSQ,
    DBDH,
    DCH,
    DHN,
    DPN,
    DPSH,
    DSDH,
    DSH,
    DTSH,
    KIDDO,
    LCDSH,
    MDSH,
    HashLoss,
    HashNet,
    NestedLoss,
    TrainingSet,
    nested_centers,
    random_codes,
    shares_label,
)
from nestkala.losses.pairwise import masked_mean
from nestkala.utils.errors import unknown_name
from nestkala.utils.files import write_text
from nestkala.utils.seeding import seeded

LENGTHS, SHOTS, EPOCHS, BATCH, SEEDS = (8, 16, 32), 8, 100, 8, 3
RATES = (0.001, 0.01, 0.1, 1.0)
QUERIES = 300


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes:
        loss: at one length.
        options: further arguments of the loss.
        batch_norm: of the head.
        raw: the loss sees what the head gives before tanh.
        linear_biases: head and G start with nn.Linear's biases, not 0.
        early_anchors: at the end of an epoch the loss is given the anchors from before the last step.
        published_weights: lengths are one nested head's, weighed by NHL's published rule (True) or ours (False).
        keep_order: within a round of three epochs the batches are the same, and the last may be smaller.
    """

    loss: type[HashLoss]
    options: dict[str, float] = field(default_factory=dict)
    batch_norm: bool = True
    raw: bool = False
    linear_biases: bool = False
    early_anchors: bool = False
    published_weights: bool | None = None
    keep_order: bool = False


# As common implementations have them: DeepHash-pytorch, for MDSH its authors', both of what they have in common.


# ruff: noqa: ARG002 - they have the arguments of every loss's `terms`


class CommonMemory(DHN):
    """All images of the training set in the place of the batch, through a memory; a subclass says what is done."""

    def terms(self, h: Tensor, targets: Tensor, indices: Tensor, anchors: Tensor | None = None) -> dict[str, Tensor]:
        self.memory[indices] = h.detach()
        return self.of_pairs(h, self.memory.clone(), shares_label(targets, self.targets))

    def of_pairs(self, h: Tensor, memory: Tensor, similar: Tensor) -> dict[str, Tensor]:
        """The terms, from outputs (B, b), the memory (N, b) and who is similar to whom (B, N)."""
        raise NotImplementedError


class CommonDPSH(CommonMemory):
    """Pairs of the batch with all images."""

    def of_pairs(self, h: Tensor, memory: Tensor, similar: Tensor) -> dict[str, Tensor]:
        likelihood = F.binary_cross_entropy_with_logits(h @ memory.T / 2, similar)
        return {"all": likelihood + 0.1 * F.mse_loss(h, h.detach().sign())}


class CommonDBDH(CommonMemory):
    """Relaxed outputs, pairs with all images, and a balance of each image over its bits."""

    def of_pairs(self, h: Tensor, memory: Tensor, similar: Tensor) -> dict[str, Tensor]:
        likelihood = F.binary_cross_entropy_with_logits(h @ memory.T / 2, similar)
        return {"all": likelihood + 0.1 * h.mean(dim=1).square().mean()}


class BalancedByImage(DBDH):
    """Ours, but for the balance, which is each image's over its bits."""

    def terms(self, h: Tensor, targets: Tensor, indices: Tensor, anchors: Tensor | None = None) -> dict[str, Tensor]:
        terms = super().terms(h, targets, indices, anchors)
        codes = h + (h.detach().sign() - h).detach()
        return terms | {"balance": 0.1 * codes.mean(dim=1).square().mean()}


class CommonDSH(CommonMemory):
    """Pairs with all images; its regularizer is of the signs, and has no gradient."""

    def of_pairs(self, h: Tensor, memory: Tensor, similar: Tensor) -> dict[str, Tensor]:
        distances = (h[:, None] - memory).square().sum(dim=2)
        costs = (similar * distances + (1 - similar) * (2 * h.shape[1] - distances).clamp(min=0)) / 2
        return {"all": costs.mean()}


class CommonDTSH(DTSH):
    """theta twice ours, an image among those similar to itself, and a mean of the queries' means."""

    def terms(self, h: Tensor, targets: Tensor, indices: Tensor, anchors: Tensor | None = None) -> dict[str, Tensor]:
        similar, theta = shares_label(targets), h @ h.T
        triplets = similar[:, :, None] * (1 - similar)[:, None, :]
        costs = -F.logsigmoid(theta[:, :, None] - theta[:, None, :] - 5)
        counts = triplets.sum(dim=(1, 2))
        means = (costs * triplets).sum(dim=(1, 2)) / counts.clamp(min=1)
        return {"all": means.sum() / (counts > 0).sum().clamp(min=1) + F.mse_loss(h, h.detach().sign())}


class CommonDCH(DCH):
    """Pairs i = j among them, and cosines of 0.99 at most."""

    def terms(self, h: Tensor, targets: Tensor, indices: Tensor, anchors: Tensor | None = None) -> dict[str, Tensor]:
        similar, bits = shares_label(targets), h.shape[1]

        def distance(cosines: Tensor) -> Tensor:
            return (1 - cosines.clamp(max=0.99)) * bits / 2

        directions = F.normalize(h, dim=1)
        distances = distance(directions @ directions.T)
        costs = similar * (distances / 20).log() + (1 + 20 / distances).log()
        weighed = masked_mean(costs, similar) + masked_mean(costs, 1 - similar)
        corner = distance(directions.abs().sum(dim=1) / bits**0.5)
        return {"all": weighed + 0.1 * (1 + corner / 20).log().mean()}


class TwiceHashNet(HashNet):
    """Of tanh, tanh(beta tanh(x)): already at beta 1 flatter than ours."""

    def _continued(self, h: Tensor) -> Tensor:
        return torch.tanh(self.beta * h)


class CommonMDSH(MDSH):
    """Images not seen yet count, with a random output."""

    def __init__(self, centers: Tensor, targets: Tensor) -> None:
        super().__init__(centers, targets)
        generator = torch.Generator().manual_seed(1)
        self.memory.copy_(torch.randn(self.memory.shape, generator=generator))


class CommonDSDH(CommonMemory):
    """eta 55 for the codes alone, which are renewed at every step and start at 0; no quantization term."""

    def __init__(self, targets: Tensor, bits: int) -> None:
        super().__init__(targets, bits)
        self.register_buffer("codes", torch.zeros(len(targets), bits))

    codes: Tensor

    def of_pairs(self, h: Tensor, memory: Tensor, similar: Tensor) -> dict[str, Tensor]:
        B = self.codes
        for _ in range(10):
            W = torch.linalg.solve(B.T @ B + torch.eye(B.shape[1]), B.T @ self.targets)  # (b, C)
            B = plain_sweep(B, self.targets @ W.T + 55 * memory, W @ W.T)
        self.codes.copy_(B)
        return {"all": F.binary_cross_entropy_with_logits(h @ memory.T / 2, similar)}


class TwoEtas(DSDH):
    """Ours, but for the B step, where eta is 55 as published."""

    @torch.no_grad()
    def end_epoch(self, anchors: Tensor | None = None) -> None:
        W = self.regression()
        linear = self.mu * self.targets @ W.T + 55 * self.memory
        self.codes.copy_(plain_sweep(self.codes, linear, self.mu * W @ W.T))


class ZeroStartADSH(ADSH):
    """V starts at 0, and the ratio is that of the round's queries to the database."""

    def __init__(self, targets: Tensor, codes: Tensor, queries: int = 40, seed: int = 0) -> None:
        super().__init__(targets, codes, queries=queries, seed=seed)
        self.codes.zero_()

    def terms(self, h: Tensor, targets: Tensor, indices: Tensor, anchors: Tensor | None = None) -> dict[str, Tensor]:
        drawn = self.sample(int(self.epochs))
        similar = shares_label(self.targets[drawn], self.targets).mean().item()
        self.ratio = similar / (1 - similar)
        return super().terms(h, targets, indices, anchors)

    @torch.no_grad()
    def end_epoch(self, anchors: Tensor | None = None) -> None:
        self.epochs += 1
        if self.epochs.item() % self.round_epochs:
            return
        U = self.memory
        products = (1 + self.ratio) * self._sums_over_similar(U) - self.ratio * U.sum(dim=0)
        self.codes.copy_(plain_sweep(self.codes, U.shape[1] * products + self.quantization * U, U.T @ U))
        self.memory.zero_()


def plain_sweep(codes: Tensor, linear: Tensor, gram: Tensor) -> Tensor:
    """A pass of coordinate descent over codes (N, b) that may hold 0."""
    codes = codes.clone()
    for bit in range(codes.shape[1]):
        argument = linear[:, bit] - codes @ gram[:, bit] + codes[:, bit] * gram[bit, bit]
        codes[:, bit] = argument.sign()
    return codes


class PublishedWeights(NestedLoss):
    """Weighs lengths by the rule of NHL's published code."""

    def _balanced(self, gradients: list[Tensor]) -> Tensor:
        m, norm = len(gradients), gradients[0][: self.lengths[0]].square().sum().item()
        weights = [1.0] * m
        for k, bits in enumerate(self.lengths):
            factors: list[float] = []
            for j in range(k + 1, m):
                against = -(gradients[k][:bits] * gradients[j][:bits]).sum().item()
                factor = norm / ((m - 1) * against) if against > norm / (m - 1) else 1.0
                factors.append(min(factor, factors[0]) if factors else factor)
                weights[j] *= factors[-1]
        return gradients[0].new_tensor([w * m / sum(weights) for w in weights])


_kiddo = Side(KIDDO, batch_norm=False)
_adsh = Side(ADSH, {"queries": 40})
COMPARISONS: dict[str, tuple[Side, Side]] = {
    "early anchors (kiddo)": (_kiddo, replace(_kiddo, early_anchors=True)),
    "biases (kiddo)": (_kiddo, replace(_kiddo, linear_biases=True)),
    **{
        f"raw ({kind.__name__.lower()})": (Side(kind), Side(kind, raw=True))
        for kind in (DBDH, DCH, DHN, DPSH, DSH, DTSH, LCDSH, MDSH)
    },
    "raw, margin 1 (dpn)": (Side(DPN), Side(DPN, {"margin": 1.0}, raw=True)),
    "tanh twice (hashnet)": (Side(HashNet), Side(TwiceHashNet)),
    "balance by image (dbdh)": (Side(DBDH), Side(BalancedByImage)),
    "common dbdh": (Side(DBDH), Side(CommonDBDH)),
    "common dpsh": (Side(DPSH), Side(CommonDPSH)),
    "common dsh": (Side(DSH), Side(CommonDSH)),
    "common dtsh": (Side(DTSH), Side(CommonDTSH)),
    "common dch": (Side(DCH), Side(CommonDCH)),
    "common mdsh": (Side(MDSH), Side(CommonMDSH)),
    "two etas (dsdh)": (Side(DSDH), Side(TwoEtas)),
    "common dsdh": (Side(DSDH), Side(CommonDSDH)),
    "adsh, start and ratio": (_adsh, Side(ZeroStartADSH)),
    "adsh, order": (_adsh, replace(_adsh, keep_order=True)),
    "weights (csq)": (Side(CSQ, published_weights=False), Side(CSQ, published_weights=True)),
    "weights (dpsh)": (Side(DPSH, published_weights=False), Side(DPSH, published_weights=True)),
}
"""{what differs: (as here, as published)}"""


@dataclass(frozen=True)
class Images:
    """Features (N, d) and class indices (N,) of a half of the digits, and the embeddings K (C, d) of their names."""

    features: Tensor
    labels: Tensor
    texts: Tensor


@cache
def halves() -> tuple[Images, Images]:
    """For tuning, and for the figures."""
    dataset, backbone = load_dataset("digits", None), load_backbone("tiny", num_adapted=0)  # type: ignore[arg-type]
    tower, every = backbone.tower.eval(), range(len(dataset.names))
    images = torch.stack([backbone.prepare(dataset.read(index), dataset.names[index]) for index in every])
    with torch.no_grad():
        features = torch.cat([tower.tail(tower.trunk(part).float()) for part in images.split(128)])
    assert backbone.embed_text is not None
    texts = backbone.embed_text([f"a photo of a {name}." for name in dataset.class_names])
    labels = torch.from_numpy(dataset.targets).long().argmax(dim=1)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    tuning, reported = (Images(features[part], labels[part], texts) for part in order.chunk(2))
    return tuning, reported


def score(side: Side, images: Images, rate: float, seed: int) -> float:
    """Tie-aware mAP of a training, mean over the lengths; 0 where it diverges."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images.labels), generator=torch.Generator().manual_seed(1))
    queries, gallery = order[:QUERIES], order[QUERIES:]
    drawn = gallery[torch.randperm(len(gallery), generator=generator)]
    labeled = torch.cat([drawn[images.labels[drawn] == label][:SHOTS] for label in range(10)])
    with seeded(seed):
        head = trained(side, images.features[labeled], images.labels[labeled], images.texts, rate, generator)
    if head is None:
        return 0.0
    with torch.no_grad():
        h = head.eval()(images.features)
    hot, scores = F.one_hot(images.labels).bool().numpy(), []
    for bits in LENGTHS:
        codes = pack(h[:, head.columns(bits)].numpy())
        found = evaluate(codes[queries], hot[queries], codes[gallery], hot[gallery], lengths=(bits,))
        scores.append(found[bits].map_tie_aware)
    return float(np.mean(scores))


def trained(
    side: Side, features: Tensor, labels: Tensor, texts: Tensor, rate: float, generator: torch.Generator
) -> HashHead | None:
    """The head, trained; None where the loss did not stay finite."""
    nested = side.published_weights is not None
    width, classes = features.shape[1], len(texts)
    head = (NestedHashHead if nested else FlatHashHead)(width, LENGTHS, side.batch_norm)
    to_code = nn.Linear(texts.shape[1], head.width)
    nn.init.normal_(to_code.weight, std=0.01)
    for module in head.modules() if side.linear_biases else ():
        if isinstance(module, nn.Linear):
            nn.init.uniform_(module.bias, -(module.in_features**-0.5), module.in_features**-0.5)
    if not side.linear_biases:
        nn.init.zeros_(to_code.bias)
    centers = nested_centers(classes, LENGTHS[-1], generator)
    codes = random_codes(len(labels), LENGTHS[-1], generator)
    training = TrainingSet(F.one_hot(labels, classes).float(), codes, lambda bits: centers[:, :bits])
    kind = PublishedWeights if side.published_weights else NestedLoss
    loss = kind(
        LENGTHS,
        lambda bits: side.loss.for_training(bits, training, **side.options),
        "adaptive" if nested else "uniform",
        distillation=0,
        columns=head.columns,
    )
    parameters = [*head.parameters(), *to_code.parameters(), *loss.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=rate, momentum=0.9, weight_decay=1e-5)
    for epoch in range(EPOCHS):
        for indices in batches(side, loss, len(labels), epoch, generator):
            x = features[indices]
            h = head.norm(head.logits(x)) if side.raw else head(x)
            anchors = to_code(texts)
            value = loss(h, labels[indices], indices, anchors, head.weight)
            if not value.isfinite():
                return None
            value.backward()
            nn.utils.clip_grad_norm_(parameters, 3.0)
            optimizer.step()
            optimizer.zero_grad()
        loss.end_epoch(anchors.detach() if side.early_anchors else to_code(texts).detach())
    return head


def batches(side: Side, loss: NestedLoss, num: int, epoch: int, generator: torch.Generator) -> Iterator[Tensor]:
    chosen = loss.sample(epoch)
    chosen = torch.arange(num) if chosen is None else chosen
    if side.keep_order:
        yield from chosen.split(BATCH)
        return
    order = chosen[torch.randperm(len(chosen), generator=generator)]
    yield from order[: len(order) // BATCH * BATCH].split(BATCH)


def compared(here: Side, published: Side) -> dict[str, str]:
    """The scores of both at their best rates, and the difference: what is gained by doing as published."""
    tuning, reported = halves()
    scores = []
    for side in (here, published):
        tuned = {rate: score(side, tuning, rate, seed=100) for rate in RATES}
        rate = max(tuned, key=tuned.__getitem__)
        scores.append(np.array([score(side, reported, rate, seed) for seed in range(SEEDS)]))
    ours, theirs = scores
    gain = mean_and_spread(theirs - ours, sign="+")
    return {"here": mean_and_spread(ours), "published": mean_and_spread(theirs), "difference": gain}


@dataclass(frozen=True)
class Settings:
    """Measure what deviations from published code matter."""

    only: str = ""
    """comparisons whose names contain this"""
    output: Path = Path("docs/deviations.json")
    """where what is found is added"""


def main(settings: Settings) -> None:
    chosen = [name for name in COMPARISONS if settings.only in name]
    if not chosen:
        raise unknown_name("comparison", settings.only, COMPARISONS)
    for name in chosen:
        found = compared(*COMPARISONS[name])
        print(f"{name}: here {found['here']}, as published {found['published']}: {found['difference']}", flush=True)
        known = json.loads(settings.output.read_text()) if settings.output.exists() else {}
        known[name] = found
        write_text(
            settings.output, json.dumps({key: known[key] for key in COMPARISONS if key in known}, indent=1) + "\n"
        )


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(cli(Settings))))
