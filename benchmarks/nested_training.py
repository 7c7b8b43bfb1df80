"""Five nested lengths against one: seconds of training, same images, same epochs, cached tokens.

python benchmarks/nested_training.py                                   # the built-in backbone
python benchmarks/nested_training.py --backbone open_clip/ViT-B-32-quickgelu:random
"""

import statistics
import tempfile
from pathlib import Path

import torch
import tyro
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from tabulate import tabulate

from nestkala.anchors import orthonormal_anchors
from nestkala.backbones import Backbone, load_backbone
from nestkala.config import Config
from nestkala.data import load_dataset
from nestkala.data.splits import draw_split
from nestkala.objective import make_loss
from nestkala.saved_model import ModelSpec
from nestkala.tokens import TokenSource
from nestkala.trainer import Trainer

NESTED, SINGLE = (4, 8, 16, 32, 64), (64,)


def main(backbone: str = "tiny", shots: int = 1, epochs: int = 100, repeats: int = 5) -> None:
    """Train on scikit-learn's digits, nested and single in turn, and print median seconds and their ratio.

    Args:
        backbone: any that `--backbone` of train.py takes; random weights serve as well here.
        shots: training images a class.
        epochs: as in training.
        repeats: trainings of each kind, after one of each that does not count.
    """
    dataset = load_dataset("digits", Path("data"))
    split = draw_split(dataset, shots=shots, seed=0, queries_per_class=50)
    loaded = load_backbone(backbone, num_adapted=1)
    source = TokenSource(loaded, "fp32", batch_size=min(16, len(split.train)), workers=0)
    tokens = torch.cat(list(source.batches(dataset, split.train.tolist())))
    targets = torch.from_numpy(dataset.targets[split.train]).float()

    seconds: dict[tuple[int, ...], list[float]] = {NESTED: [], SINGLE: []}
    for _ in range(repeats + 1):
        for lengths, runs in seconds.items():
            config = Config(lengths=lengths, epochs=epochs, checkpoint_every=epochs)
            runs.append(_train(config, loaded, dataset.class_names, tokens, targets))
    medians = {lengths: statistics.median(runs[1:]) for lengths, runs in seconds.items()}
    ratios = [nested / single for nested, single in zip(seconds[NESTED][1:], seconds[SINGLE][1:], strict=True)]
    rows = [(str(list(lengths)), median) for lengths, median in medians.items()]
    print(f"{backbone}, {shots} shot(s), {epochs} epochs, {torch.get_num_threads()} threads")
    print(tabulate(rows, ("lengths", "seconds"), tablefmt="github", floatfmt=".2f"))
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"ratio: {statistics.median(ratios):.2f} ({spread} over {repeats} pairs; target 1.25 at most)")


def _train(
    config: Config, backbone: Backbone, class_names: tuple[str, ...], tokens: torch.Tensor, targets: torch.Tensor
) -> float:
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        dataloader_config=DataLoaderConfiguration(split_batches=True, use_seedable_sampler=True, data_seed=0),
    )
    spec = ModelSpec.of_run(config, backbone, class_names)
    model = spec.build(backbone.tower, orthonormal_anchors(len(class_names), 384, seed=0)).to(accelerator.device)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder, "checkpoint.safetensors")
        loss = make_loss(config, model.head, targets)
        trainer = Trainer(config, accelerator, model, loss, tokens, targets, checkpoint)
        trainer.fit()
    return trainer.seconds


if __name__ == "__main__":
    tyro.cli(main)
