"""Pretrain the built-in backbone: its image embedding meets a frozen sentence encoder's embedding of class names.

    accelerate launch --config_file accelerate_config.yaml scripts/pretrain_tiny.py --data tinyimagenet32

An image of a golden retriever is drawn to "a photo of a golden retriever.", to its synonyms, and, more softly, to
"a photo of a retriever.", "... of a canine." and so on up WordNet: a class that was never seen is more often a
relative of these than of the single breed. WordNet's synonym sets that hold the name of a class of CIFAR-10, on which
the results are reported, are left out.

Needs `pip install -e ".[text]"`. Goes on from OUTPUT/checkpoint.safetensors where there is one.
"""

import json
import math
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, set_seed
from PIL import Image
from timm.optim import muon
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm
from tyro import cli

from nestkala.backbones.tiny import PREPROCESSING, network
from nestkala.backbones.tiny_text import PROMPT, load_encoder
from nestkala.cli import guarded
from nestkala.training.checkpoint import load_checkpoint, save_checkpoint
from nestkala.training.zero_shot import zero_shot_labels
from nestkala.utils.errors import NestKALAError
from nestkala.utils.files import save_tensors, write_text
from nestkala.utils.processes import ending_process_group

SYNSETS = Path(__file__).with_name("tiny_imagenet_synsets.tsv")
"""For each of the 200 classes its WordNet 3.0 synonym set and all above it, nearest first."""

REPORTED = {"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"}

CLIP_NORM = 10.0
"""Of an image's embedding, as ViT-B/32 gives it."""

muon.zeropower_via_newtonschulz.__defaults__ = tuple(  # it iterates in bfloat16, which most CPUs only emulate
    torch.float32 if default is torch.bfloat16 else default for default in muon.zeropower_via_newtonschulz.__defaults__
)


@dataclass(frozen=True)
class Settings:
    """Pretrain the built-in backbone on Tiny-ImageNet."""

    data: Path
    """folder of Tiny-ImageNet: train/WNID/ and val/WNID/ at any resolution, or as it was published"""
    output: Path = Path("runs/pretrain_tiny")
    """folder for checkpoint, log and weights"""
    held_out: int = 30
    """classes that are not trained on, to choose settings by zero-shot accuracy on them (0 to 199)"""
    epochs: int = 14
    """passes over the training images"""
    batch_size: int = 256
    """images a step, over all processes"""
    lr: float = 4e-3
    """peak learning rate of Muon"""
    weight_decay: float = 0.05
    scale: float = 8.0
    """of the cosine between image and text, 1 / temperature"""
    hypernyms: float = 1.0
    """weight of all synonyms and hypernyms together against the class name's 1; 0: the name alone"""
    min_crop: float = 0.35
    """smallest share of an image's area that a training crop shows (0 to 1)"""
    ema: float = 0.998
    """of the averaged weights, which are what is validated and kept"""
    threads: int | None = None
    """of each process; by default as the launcher says"""
    seed: int = 0


class Texts:
    """What the images are drawn to: unit, centered text embeddings, and each class's share in them.

    Attributes:
        embeddings: (M, 384); row c < C is class c's name.
        shares: (C, M), rows sum to 1.
    """

    def __init__(self, synsets: list[list[str]], hypernyms: float) -> None:
        names = [chain[0].split(", ")[0] for chain in synsets]
        rows = {name: row for row, name in enumerate(names)}
        counts = Counter(synset for chain in synsets for synset in chain[1:])
        weights = []
        for chain in synsets:
            synonyms = chain[0].split(", ")[1:]
            above = [
                synset.split(", ")[0]
                for synset in chain[1:]
                if counts[synset] < 0.6 * len(synsets) and not REPORTED & set(synset.lower().split(", "))
            ]
            weight = {chain[0].split(", ")[0]: 1.0}
            for group, total in ((synonyms, hypernyms / 2), (above, hypernyms)):
                for name in group if hypernyms else ():
                    weight[name] = weight.get(name, 0) + total / len(group)
                    rows.setdefault(name, len(rows))
            weights.append(weight)
        embeddings = embed_names(list(rows))
        self.mean = embeddings.mean(dim=0)
        self.embeddings = F.normalize(embeddings - self.mean, dim=1)
        self.shares = torch.zeros(len(synsets), len(rows))
        for c, weight in enumerate(weights):
            for name, value in weight.items():
                self.shares[c, rows[name]] = value / sum(weight.values())


def embed_names(names: list[str]) -> Tensor:
    """The sentence encoder's embeddings (n, 384) of photos of these."""
    return torch.from_numpy(load_encoder().encode([PROMPT.format(name) for name in names], show_progress_bar=False))


def loss(features: Tensor, labels: Tensor, embeddings: Tensor, shares: Tensor, scale: float) -> Tensor:
    """Cross-entropy of each text of an image against all texts that are not its own, weighed by its share."""
    logits = scale * F.normalize(features, dim=1) @ embeddings.T  # (B, M)
    own = shares[labels]
    others = logits.masked_fill(own > 0, -torch.inf).logsumexp(dim=1, keepdim=True)
    return (own * F.softplus(others - logits)).sum(dim=1).mean()


def augment(images: Tensor, min_crop: float) -> Tensor:
    """uint8 images (B, 3, 32, 32) -> random crops, flips, brightness, contrast, tint and grays, normalized."""
    batch, device = len(images), images.device
    x = normalized(images)

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(batch, device=device).uniform_(low, high)

    side, aspect = uniform(min_crop, 1).sqrt(), uniform(-0.2, 0.2).exp()
    width, height = (side * aspect).clamp(max=1), (side / aspect).clamp(max=1)
    grid = torch.zeros(batch, 2, 3, device=device)
    grid[:, 0, 0] = width * uniform(-1, 1).sign()
    grid[:, 1, 1] = height
    grid[:, 0, 2] = uniform(-1, 1) * (1.1 - width)
    grid[:, 1, 2] = uniform(-1, 1) * (1.1 - height)
    x = F.grid_sample(
        x, F.affine_grid(grid, list(x.shape), align_corners=False), padding_mode="reflection", align_corners=False
    )
    normal = torch.randn(batch, 5, 1, 1, device=device).clamp(-2, 2)
    x = x * (1 + 0.25 * normal[:, :1]) + 0.25 * normal[:, 1:2] + 0.12 * normal[:, 2:]
    return torch.where(uniform(0, 1)[:, None, None, None] < 0.1, x.mean(dim=1, keepdim=True), x)


def normalized(images: Tensor) -> Tensor:
    """uint8 images as the backbone's preprocessing gives them."""
    mean, std = (torch.tensor(PREPROCESSING[key], device=images.device).view(3, 1, 1) for key in ("mean", "std"))
    return (images.float() / 255 - mean) / std


@torch.no_grad()
def embed(net: nn.Module, images: Tensor, device: torch.device) -> Tensor:
    """Embeddings (N, 384) of uint8 images."""
    net.eval()
    found = [net(normalized(batch.to(device))).float().cpu() for batch in images.split(500)]
    net.train()
    return torch.cat(found)


def accuracy(features: Tensor, labels: Tensor, embeddings: Tensor) -> float:
    """Share of images whose nearest text, both centered by their own mean, is their class's."""
    return (zero_shot_labels(features, embeddings) == labels).float().mean().item()


def read_split(root: Path, split: str, wnids: list[str], show: bool) -> tuple[Tensor, Tensor]:
    """All images of a split as uint8 (N, 3, 32, 32), and their classes (N)."""
    listed = root / split / "val_annotations.txt"
    if listed.is_file():
        rows = [line.split("\t")[:2] for line in listed.read_text().splitlines()]
        files = [(root / split / "images" / name, wnid) for name, wnid in rows]
    else:
        files = [(path, w) for w in wnids for path in sorted((root / split / w).rglob("*")) if path.is_file()]
        files = [(path, w) for path, w in files if path.suffix.lower() in (".jpg", ".jpeg", ".png")]
    if not files:
        raise NestKALAError(f"no images of Tiny-ImageNet in {root / split} (expected {split}/WNID/*.jpg)")
    pixels = np.empty((len(files), 3, 32, 32), np.uint8)
    for row, (path, _) in enumerate(tqdm(files, desc=f"reading {split}", unit="img", disable=not show)):
        with Image.open(path) as image:
            rgb = image.convert("RGB")
            rgb = rgb if rgb.size == (32, 32) else rgb.resize((32, 32), Image.Resampling.BOX)
            pixels[row] = np.asarray(rgb).transpose(2, 0, 1)
    return torch.from_numpy(pixels), torch.tensor([wnids.index(w) for _, w in files])


class Pretrained(nn.Module):
    """The network and its moving average, as a checkpoint keeps them."""

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.network = network().to(memory_format=torch.channels_last)
        self.average = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)

    def trained_state(self) -> dict[str, Tensor]:
        return self.state_dict()

    def load_trained_state(self, state: dict[str, Tensor]) -> None:
        self.load_state_dict(state)


@ending_process_group()
def main(settings: Settings) -> None:
    torch.set_num_threads(settings.threads or torch.get_num_threads())
    accelerator = Accelerator(dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True))
    set_seed(settings.seed)
    show, device, started = accelerator.is_main_process, accelerator.device, time.time()
    table = [line.split("\t") for line in SYNSETS.read_text(encoding="utf-8").splitlines()]
    wnids = [wnid for wnid, *_ in table]
    held = torch.randperm(len(wnids), generator=torch.Generator().manual_seed(0))[: settings.held_out].sort().values
    is_held = torch.zeros(len(wnids), dtype=torch.bool).index_fill_(0, held, True)
    source = (~is_held).nonzero()[:, 0]
    place = torch.zeros(len(wnids), dtype=torch.long)
    place[source], place[held] = torch.arange(len(source)), torch.arange(len(held))

    images, labels = read_split(settings.data, "train", wnids, show)
    checks, check_labels = read_split(settings.data, "val", wnids, show)
    unseen = is_held[labels].nonzero()[::5, 0]
    unseen_images, unseen_labels = images[unseen], place[labels[unseen]]
    seen = ~is_held[check_labels]
    checks, check_labels = checks[seen][::3], place[check_labels[seen][::3]]
    kept = ~is_held[labels]
    images, labels = images[kept], place[labels[kept]]

    texts = Texts([table[c][1:] for c in source.tolist()], settings.hypernyms)
    unseen_texts = embed_names([table[c][1].split(", ")[0] for c in held.tolist()])
    embeddings, shares = texts.embeddings.to(device), texts.shares.to(device)

    pretrained = Pretrained(settings.ema).to(device)
    named = list(pretrained.network.named_parameters())
    by_muon = [p for name, p in named if p.ndim >= 2 and name != "pos_embed" and not name.startswith("head.")]
    others = [p for _, p in named if not any(p is q for q in by_muon)]
    optimizer = muon.Muon(
        [
            {"params": by_muon, "weight_decay": settings.weight_decay},
            {"params": others, "use_fallback": True, "weight_decay": 0.0},
        ],
        lr=settings.lr,
        nesterov=True,
        betas=(0.9, 0.98),
    )
    per_process = settings.batch_size // accelerator.num_processes
    loader = DataLoader(TensorDataset(images, labels), per_process, shuffle=True, drop_last=True)
    net, optimizer, loader = accelerator.prepare(pretrained.network, optimizer, loader)
    steps = settings.epochs * len(loader)

    settings.output.mkdir(parents=True, exist_ok=True)
    checkpoint, log = settings.output / "checkpoint.safetensors", settings.output / "log.jsonl"
    done, seconds = 0, 0.0
    if checkpoint.exists():
        done, seconds, _ = load_checkpoint(checkpoint, pretrained, nn.Module(), optimizer)
    accelerator.print(
        f"{len(images)} images of {len(source)} classes, {texts.shares.shape[1]} texts, {len(held)} classes held out; "
        f"{sum(p.numel() for _, p in named) / 1e6:.2f}M parameters; from epoch {done}; {time.time() - started:.0f} s"
    )
    for epoch in range(done, settings.epochs):
        epoch_started, total = time.time(), torch.zeros((), device=device)
        loader.set_epoch(epoch)
        set_seed(settings.seed + 1000 * epoch, device_specific=True)
        with tqdm(loader, desc=f"epoch {epoch + 1}/{settings.epochs}", unit="step", disable=not show) as bar:
            for step, (batch, batch_labels) in enumerate(bar):
                for group in optimizer.param_groups:
                    group["lr"] = settings.lr * schedule((epoch * len(loader) + step + 1) / steps)
                inputs = augment(batch, settings.min_crop).contiguous(memory_format=torch.channels_last)
                with accelerator.autocast():
                    features = net(inputs)
                value = loss(features.float(), batch_labels, embeddings, shares, settings.scale)
                if not torch.isfinite(value):
                    raise NestKALAError(f"the loss is not finite at step {step} of epoch {epoch}: lower --lr")
                accelerator.backward(value)
                optimizer.step()
                optimizer.zero_grad()
                pretrained.average.update_parameters(pretrained.network)
                total += value.detach()
                bar.set_postfix(loss=f"{total.item() / (step + 1):.3f}", refresh=False)
        seconds += time.time() - epoch_started
        if show:
            average = pretrained.average.module
            row = {"epoch": epoch + 1, "seconds": round(seconds), "loss": round(total.item() / len(loader), 4)}
            found = embed(average, checks, device)
            row["accuracy"] = round(accuracy(found, check_labels, texts.embeddings[: len(source)]), 4)
            if len(held):
                unseen_found = embed(average, unseen_images, device)
                row["zero_shot_accuracy_held_out"] = round(accuracy(unseen_found, unseen_labels, unseen_texts), 4)
            tqdm.write(json.dumps(row))
            write_text(log, (log.read_text() if epoch else "") + json.dumps(row) + "\n")
            save_checkpoint(checkpoint, pretrained, nn.Module(), optimizer, epoch + 1, seconds)
            export(settings, average, found.norm(dim=1).mean().item())
        accelerator.wait_for_everyone()


def schedule(progress: float) -> float:
    """Share of the peak learning rate at a share of the steps: up, level, and down along a cosine to nothing."""
    if progress < 0.3:
        return min(1.0, progress / 0.03)
    return 0.5 * (1 + math.cos(math.pi * (progress - 0.3) / 0.7))


def export(settings: Settings, average: nn.Module, norm: float) -> None:
    """Write the weights in half precision, with the settings they come from, and print their SHA-256.

    Training knows directions alone. The projection is scaled for features to have the mean norm that CLIP's have, so
    that learning rates and initializations published for CLIP fit.
    """
    path = settings.output / "tiny.safetensors"
    state = dict(average.state_dict())
    for name in ("head.weight", "head.bias"):
        state[name] = state[name] * (CLIP_NORM / norm)
    state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    made_by = {key: str(value) for key, value in asdict(settings).items() if key not in ("data", "output", "threads")}
    save_tensors(path, state, made_by)
    tqdm.write(f"{path}: {path.stat().st_size / 1e6:.1f} MB, SHA-256 {sha256(path.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(cli(Settings))))
