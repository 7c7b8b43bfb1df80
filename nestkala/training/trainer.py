"""The training loop: cached tokens in, a trained tail and head out, on any number of processes."""

import math
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ..losses import NestedLoss, NotFiniteError, TermsError
from ..modeling.model import HashModel
from ..settings.config import Config
from ..utils.errors import DivergedError, NestKALAError
from .checkpoint import load_checkpoint, save_checkpoint
from .history import Epoch, EpochSteps, StepValues

_MOST_PREPARED = 10**9
"""Bytes of prepared tokens: 3,000 photographs of the backbone `photo`."""


class TrainingImages(Dataset[tuple[Tensor, ...]]):
    """Tokens, labels and index of each training image, or of a chosen subset."""

    def __init__(self, tokens: Tensor, targets: Tensor) -> None:
        self.tokens, self.targets = tokens, targets
        self.chosen = self.every = torch.arange(len(tokens))

    def choose(self, indices: Tensor | None) -> None:
        """Use only these from now on; None for all."""
        self.chosen = self.every if indices is None else indices

    def all(self) -> tuple[Tensor, Tensor, Tensor]:
        """All chosen images as one batch."""
        return self.tokens[self.chosen], self.targets[self.chosen], self.chosen

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, place: int) -> tuple[Tensor, ...]:
        index = self.chosen[place]
        return self.tokens[index], self.targets[index], index

    def __getitems__(self, places: list[int]) -> tuple[Tensor, ...]:
        """Return a whole batch at once, which needs no collating."""
        indices = self.chosen[places]
        return self.tokens[indices], self.targets[indices], indices


class Trainer:
    """Trains a model on the tokens of its training images.

    The loss sees the global batch: features are gathered across processes, with gradient, before the head, and every
    process computes head, losses and weights on all of them. So n processes with batches of B / n compute the same as
    one process with batches of B, and the losses' memories are equal everywhere. If there are fewer images than one
    batch, they form a single batch, which every process computes in full.

    Args:
        config: epochs, batch size (global), learning rate and so on.
        accelerator: created with split_batches and a seedable sampler.
        model: on the accelerator's device.
        loss: the loss for all lengths.
        tokens: tokens of the training images (N, ...), half precision, on the CPU.
        targets: multi-hot (N, C).
        checkpoint: checkpoint file to write.

    Attributes:
        epoch: number of completed epochs.
        seconds: time they took.
        history: their records.
    """

    def __init__(
        self,
        config: Config,
        accelerator: Accelerator,
        model: HashModel,
        loss: NestedLoss,
        tokens: Tensor,
        targets: Tensor,
        checkpoint: Path,
    ) -> None:
        self.config, self.accelerator, self.checkpoint = config, accelerator, checkpoint
        self.model, self.loss = model, loss.to(accelerator.device)
        model.anchor_to_code.requires_grad_(loss.uses_anchors)  # distributed training rejects unused parameters
        # The loss's own parameters need no wrapping, because every process computes their full gradient.
        self.trained = [p for p in (*model.parameters(), *self.loss.parameters()) if p.requires_grad]
        self.optimizer = torch.optim.SGD(
            self.trained, lr=config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay
        )
        if accelerator.mixed_precision == "no":
            tokens = prepared(model, tokens, accelerator.device)
        self.images = TrainingImages(tokens, targets)
        self._choose_images(epoch=0)
        loader = DataLoader(self.images, config.batch_size, shuffle=True, drop_last=True, collate_fn=tuple)
        self.network, self.loader = accelerator.prepare(model, loader)
        self.epoch, self.seconds = 0, 0.0
        self.history: list[Epoch] = []

    def resume(self) -> None:
        """Resume from the last checkpoint.

        Raises:
            NestKALAError: if there is none, it is damaged, or it belongs to another run.
        """
        parts = self.model, self.loss, self.optimizer, self.accelerator.scaler
        self.epoch, self.seconds, self.history = load_checkpoint(self.checkpoint, *parts)

    def fit(self) -> None:
        """Train for the remaining epochs, writing checkpoints.

        Raises:
            DivergedError: if the loss is not finite; names step, length and term.
        """
        left = max(0, self.config.num_epochs - self.epoch)
        show = self.accelerator.is_main_process
        self.model.train()
        bar: tqdm[Any]
        with tqdm(total=left * self._steps, desc="training", unit="step", disable=not show) as bar:
            while self.epoch < self.config.num_epochs:
                self._train_epoch(bar)
                if self.epoch % self.config.checkpoint_every == 0 or self.epoch == self.config.num_epochs:
                    self._save()

    def _train_epoch(self, bar: "tqdm[Any]") -> None:
        started = time.perf_counter()
        self._choose_images(self.epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate_in(self.epoch)
        steps = EpochSteps(self.loss.lengths)
        for tokens, targets, indices in self._batches():
            h, anchors = self.network(tokens, self._gather)
            try:
                result = self.loss.terms(h, targets, indices, anchors, self.model.head.weight)
            except TermsError as error:  # a loss from a plugin
                raise NestKALAError(f"loss {self.config.loss}: {error}") from error
            self._descend(result.total)
            steps.add(result)
            bar.update()
        values = steps.values()  # only now, because this waits for the device
        self._look_at(values, bar)
        with torch.no_grad():
            anchors = self.model.anchor_to_code(self.model.anchors)
            try:
                self.loss.end_epoch(anchors)
            except NotFiniteError as error:  # the last step diverged
                raise self._diverged(f"end of epoch {self.epoch}: {error}") from error
        self.epoch += 1
        self.history.append(Epoch.of(values, self.loss.discrete_objectives(anchors)))
        self.seconds += time.perf_counter() - started

    def _descend(self, total: Tensor) -> None:
        scaler = self.accelerator.scaler  # only with precision fp16
        self.accelerator.backward(total)
        if self.config.max_grad_norm:  # the gradients are already averaged over processes
            if scaler is not None:
                scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.trained, self.config.max_grad_norm)
        if scaler is None:
            self.optimizer.step()
        else:
            scaler.step(self.optimizer)
            scaler.update()
        self.optimizer.zero_grad()

    def _choose_images(self, epoch: int) -> None:
        self.images.choose(self.loss.sample(epoch))
        check_batch(self.config, len(self.images), self.accelerator.num_processes)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """This process's tokens of each batch, with the labels and indices of the whole batch."""
        if self._in_one_batch:
            tokens, targets, indices = self.images.all()
            device = self.accelerator.device
            yield tokens.to(device), targets.to(device), indices.to(device)
            return
        self.loader.set_epoch(self.epoch)
        for tokens, targets, indices in self.loader:
            yield tokens, *self.accelerator.gather((targets, indices))

    @property
    def _in_one_batch(self) -> bool:
        return len(self.images) < self.config.batch_size

    @property
    def _steps(self) -> int:
        return 1 if self._in_one_batch else len(self.loader)

    @property
    def _gather(self) -> Callable[[Tensor], Tensor] | None:
        shared = self.accelerator.num_processes > 1 and not self._in_one_batch
        return all_gather_with_gradient if shared else None

    def _look_at(self, steps: list[StepValues], bar: "tqdm[Any]") -> None:
        """Show and log the values of this epoch's steps. Raises DivergedError at the first that is not finite."""
        for step, values in enumerate(steps, start=self.epoch * self._steps):
            for bits, of_length in values.terms.items():
                total = sum(of_length.values())
                if not math.isfinite(total):
                    wrong = [(name, value) for name, value in of_length.items() if not math.isfinite(value)]
                    name, value = wrong[0] if wrong else ("sum", total)
                    raise self._diverged(
                        f"step {step} (epoch {self.epoch}): the loss at {bits} bits is not finite: its term '{name}' "
                        f"is {value}"
                    )
            if self.accelerator.trackers:
                logged = {
                    f"{name}/{bits}": value for bits, terms in values.terms.items() for name, value in terms.items()
                }
                self.accelerator.log(logged | {f"weight/{b}": w for b, w in values.weights.items()}, step=step)
        bar.set_postfix({str(bits): f"{sum(terms.values()):.3f}" for bits, terms in steps[-1].terms.items()})

    def _diverged(self, what: str) -> DivergedError:
        there = self.checkpoint.exists()
        last = f"the last good checkpoint is {self.checkpoint}" if there else "there is no checkpoint yet"
        return DivergedError(f"{what}; {last}; a lower --lr (now {self.config.learning_rate:g}) often helps")

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            parts = self.model, self.loss, self.optimizer
            progress = self.epoch, self.seconds, self.history
            save_checkpoint(self.checkpoint, *parts, *progress, self.accelerator.scaler)


@torch.no_grad()
def prepared(model: HashModel, tokens: Tensor, device: torch.device) -> Tensor:
    """Tokens (N, ...) on the CPU -> `Tower.prepare` of them, unless it has nothing to do or takes too much memory."""
    first = tokens[:1].to(device, model.dtype)
    one = model.tower.prepare(first)
    if one is first or len(tokens) * one.nbytes > _MOST_PREPARED:
        return tokens
    parts = [model.tower.prepare(part.to(device, model.dtype)).cpu() for part in tokens.split(64)]
    return torch.cat(parts)


def check_batch(config: Config, num_images: int, processes: int) -> None:
    """Raise NestKALAError if the processes cannot share the batch equally, or it is too small for BatchNorm."""
    if config.batch_size % processes:
        raise NestKALAError(f"batch_size {config.batch_size} cannot be shared equally by {processes} processes")
    if config.normalizes_bits and num_images == 1:
        raise NestKALAError(
            "a single training image cannot be batch-normalized: label more images, or set --no-batch-norm"
        )


def all_gather_with_gradient(features: Tensor) -> Tensor:
    """Features (B / n, d) of each of n processes -> (B, d) on all of them, in the order of the processes.

    The backward pass sums the gradients over the processes, and data-parallel training then averages them. Together
    this is the exact gradient of one loss on the global batch, so nothing needs to be scaled.
    """
    from torch.distributed.nn.functional import all_gather

    with warnings.catch_warnings():  # deprecated in favor of a successor that torch before 2.13 lacks
        warnings.simplefilter("ignore", FutureWarning)
        return torch.cat(list(all_gather(features)))
