"""Training on the labeled images."""

from pathlib import Path

import numpy as np
from accelerate import Accelerator
from torch import Tensor

from ...codes import pack
from ...data.splits import Split
from ...losses import NestedLoss
from ...modeling.model import HashModel
from ...settings.config import Config
from ...settings.loading import dump_config
from ...utils.files import write_text
from ..history import history_as_json
from ..objective import make_loss
from ..run_folder import CHECKPOINT
from ..trainer import Trainer


def fit(
    config: Config,
    accelerator: Accelerator,
    model: HashModel,
    tokens: Tensor,
    targets: Tensor,
    centers: Tensor | None,
    folder: Path,
    resumes: bool,
) -> Trainer:
    """Train the model, from the last checkpoint if the run resumes, and write the history of its epochs.

    Args:
        config: settings of the run.
        accelerator: the run's processes.
        model: the model at the start of training.
        tokens: tokens of the training images (N, ...).
        targets: their multi-hot labels (N, C).
        centers: hash centers (C, L) that the model starts from, if any.
        folder: folder of the run.
        resumes: whether there is a checkpoint to resume from.
    """
    main = accelerator.is_main_process
    loss = make_loss(config, model.head, targets, seed=config.seed, centers=centers)
    trainer = Trainer(config, accelerator, model, loss, tokens, targets, folder / CHECKPOINT)
    if resumes:
        trainer.resume()
        if main:  # only now, so that a damaged checkpoint leaves the run as it was
            write_text(folder / "config.yaml", dump_config(config))
    elif config.resume is not None and main:
        print("note: the run ended before its first checkpoint and starts again")
    trainer.fit()
    if main:
        write_text(folder / "history.json", history_as_json(trainer.history) + "\n")
    return trainer


def learned_codes(loss: NestedLoss, split: Split) -> dict[int, np.ndarray] | None:
    """{length: packed codes} of the gallery, if all of it was trained on and the loss has codes to be searched."""
    if loss.database_codes is None or not np.isin(split.gallery, split.train).all():
        return None
    number = {index: place for place, index in enumerate(split.train.tolist())}
    places = [number[index] for index in split.gallery.tolist()]
    return {bits: pack(codes[places]) for bits, codes in loss.database_codes.items()}
