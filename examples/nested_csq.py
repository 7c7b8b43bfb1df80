"""The nested head under CSQ (CVPR 2020): one training run, codes of every length, one hash center per class.

python examples/nested_csq.py
"""

import argparse

import numpy as np
import torch
from sklearn.datasets import load_digits

from nestkala.codes import pack
from nestkala.evaluation import evaluate
from nestkala.heads import NestedHashHead
from nestkala.losses import CSQ, NestedLoss, nested_centers

LENGTHS = (8, 16, 32)

parser = argparse.ArgumentParser(description="The nested head under CSQ, on scikit-learn's digits")
parser.add_argument("--epochs", type=int, default=20)
epochs = parser.parse_args().epochs

torch.manual_seed(0)
digits = load_digits()
features = torch.tensor(digits.data / 16, dtype=torch.float32)  # (1797, 64)
labels = torch.eye(10)[torch.tensor(digits.target)]  # (1797, 10)
order = torch.randperm(len(features))
train, query, gallery = order[:500], order[500:600], order[600:]

# Prefixes of these centers separate the classes well, so every length takes the first bits of one set.
centers = nested_centers(10, LENGTHS[-1], torch.Generator().manual_seed(0))  # (10, 32)
head = NestedHashHead(64, LENGTHS, batch_norm=True)
nested = NestedLoss(LENGTHS, make_loss=lambda bits: CSQ(centers[:, :bits]))
optimizer = torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9)
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
found = evaluate(codes[query], relevant[query], codes[gallery], relevant[gallery], lengths=(4, *LENGTHS))
for bits, metrics in found.items():  # 4 bits were never trained, but are a prefix like any other
    print(f"{bits} bits: tie-aware mAP {metrics.map_tie_aware:.3f}")
