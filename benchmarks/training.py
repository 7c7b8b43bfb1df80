"""The project's trainer on existing tokens."""

import tempfile
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from torch import Tensor

from nestkala.modeling.model import HashModel
from nestkala.settings.config import Config
from nestkala.training.objective import make_loss
from nestkala.training.trainer import Trainer
from nestkala.utils.processes import end_process_group_at_exit


def trained(config: Config, model: HashModel, tokens: Tensor, targets: Tensor) -> tuple[HashModel, float]:
    """The model, trained on tokens (N, ...) with multi-hot targets (N, C), and the seconds it took."""
    end_process_group_at_exit()
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        dataloader_config=DataLoaderConfiguration(split_batches=True, use_seedable_sampler=True, data_seed=config.seed),
    )
    model = model.to(accelerator.device)
    with tempfile.TemporaryDirectory() as folder:
        loss = make_loss(config, model.head, targets, seed=config.seed)
        trainer = Trainer(config, accelerator, model, loss, tokens, targets, Path(folder, "checkpoint.safetensors"))
        trainer.fit()
    return model, trainer.seconds
