"""Your own features: a model from the trainer's closed form, then the same codes in a loop without it.

    python examples/own_features.py features

The folder contains features.npy (N, width) and labels.npy (N,). Without it, scikit-learn's digits are used.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

from nestkala import Hasher, PrefixIndex
from nestkala.cli import train_main
from nestkala.codes import pack
from nestkala.heads import NestedHashHead
from nestkala.losses import DPSH, NestedLoss

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("folder", nargs="?", type=Path, default=Path("digit_features"))
parser.add_argument("--output", type=Path, default=Path("runs/own_features"))
parser.add_argument("--epochs", type=int, default=10, help="epochs of the loop without the trainer")
given = parser.parse_args()

if not given.folder.exists():
    digits = load_digits()
    given.folder.mkdir(parents=True)
    np.save(given.folder / "features.npy", digits.data.astype(np.float32) / 16)
    np.save(given.folder / "labels.npy", digits.target)
features = np.load(given.folder / "features.npy").astype(np.float32)  # (N, width)
labels = np.load(given.folder / "labels.npy")  # (N,)

# With the trainer: four labels per class, and all other features without labels.
code = train_main(
    [
        *("--data", str(given.folder), "--shots", "4", "--lengths", "8,16,32", "--output", str(given.output)),
        *("--anchors", "orthonormal", "--head-init", "labels", "--queries", "100"),
    ]
)
if code:
    raise SystemExit(code)
hasher = Hasher.from_pretrained(given.output)
index = PrefixIndex.build(hasher.encode(features), ids=map(str, range(len(features))))
print("closed form:", *index.search(hasher.encode(features[0]), k=5, bits=16).ids[0])

# Without it: any loss, on all labels.
torch.manual_seed(0)
x, targets = torch.from_numpy(features), torch.eye(int(labels.max()) + 1)[torch.from_numpy(labels).long()]
head = NestedHashHead(x.shape[1], lengths=(8, 16, 32), batch_norm=True)
nested = NestedLoss((8, 16, 32), make_loss=lambda bits: DPSH())
optimizer = torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9)
for _ in range(given.epochs):
    for indices in torch.randperm(len(x)).split(64):
        loss = nested(head(x[indices]), targets[indices], indices, weight=head.weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    nested.end_epoch()
head.eval()
with torch.no_grad():
    codes = pack(head(x))  # uint8 (N, 4)
index = PrefixIndex.build(codes, ids=map(str, range(len(x))))
print("own loop:", *index.search(codes[:1], k=5, bits=16).ids[0])
