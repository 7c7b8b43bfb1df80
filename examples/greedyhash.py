"""GreedyHash (NeurIPS 2018) at several lengths: a classifier on the binary codes themselves.

The loss has its own weights, one classifier per length, which the optimizer needs as well.

python examples/greedyhash.py
"""

import argparse

import numpy as np
import torch
from sklearn.datasets import load_digits

from nestkala.codes import pack
from nestkala.evaluation import evaluate
from nestkala.heads import NestedHashHead
from nestkala.losses import GreedyHash, NestedLoss

LENGTHS = (8, 16, 32)

parser = argparse.ArgumentParser(description="GreedyHash at several lengths, on scikit-learn's digits")
parser.add_argument("--epochs", type=int, default=20)
epochs = parser.parse_args().epochs

torch.manual_seed(0)
digits = load_digits()
features = torch.tensor(digits.data / 16, dtype=torch.float32)  # (1797, 64)
labels = torch.eye(10)[torch.tensor(digits.target)]  # (1797, 10)
order = torch.randperm(len(features))
train, query, gallery = order[:500], order[500:600], order[600:]

head = NestedHashHead(64, LENGTHS, batch_norm=True)
nested = NestedLoss(LENGTHS, make_loss=lambda bits: GreedyHash(num_classes=10, bits=bits))
optimizer = torch.optim.SGD([*head.parameters(), *nested.parameters()], lr=0.1, momentum=0.9)
for _ in range(epochs):
    for indices in torch.randperm(len(train)).split(50):
        h = head(features[train[indices]])  # (50, 32)
        loss = nested(h, labels[train[indices]], indices, weight=head.weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    nested.end_epoch()

head.eval()
with torch.no_grad():
    codes = pack(head(features))  # uint8 (1797, 4)
relevant = labels.numpy().astype(np.bool_)
found = evaluate(codes[query], relevant[query], codes[gallery], relevant[gallery], lengths=LENGTHS)
for bits, metrics in found.items():
    print(f"{bits} bits: tie-aware mAP {metrics.map_tie_aware:.3f}")
