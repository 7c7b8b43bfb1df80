"""Multi-head Asymmetric Hashing (arXiv 1809.09329): the cascade head under ADSH.

The labeled training images are the database. Its codes are learned along with the network, and these are searched.

python examples/mah_cascade.py
"""

import argparse

import numpy as np
import torch
from sklearn.datasets import load_digits

from nestkala.codes import pack
from nestkala.evaluation import evaluate
from nestkala.heads import CascadeHashHead
from nestkala.losses import ADSH, NestedLoss, random_codes

LENGTHS = (4, 8, 16)

parser = argparse.ArgumentParser(description="MAH's cascade head, on scikit-learn's digits")
parser.add_argument("--epochs", type=int, default=30)
epochs = parser.parse_args().epochs

torch.manual_seed(0)
digits = load_digits()
features = torch.tensor(digits.data / 16, dtype=torch.float32)  # (1797, 64)
labels = torch.eye(10)[torch.tensor(digits.target)]  # (1797, 10)
order = torch.randperm(len(features))
database, query = order[:1500], order[1500:]

start = random_codes(len(database), LENGTHS[-1], torch.Generator().manual_seed(0))  # (1500, 16)
head = CascadeHashHead(64, LENGTHS)
nested = NestedLoss(
    LENGTHS,
    make_loss=lambda bits: ADSH(labels[database], start[:, :bits]),
    weighting="halving",  # 4 : 2 : 1, as published
    distillation=0,
    columns=head.columns,  # codes of this head are not prefixes of one another
)
optimizer = torch.optim.SGD(head.parameters(), lr=0.01, momentum=0.9)
for epoch in range(epochs):
    sample = nested.sample(epoch)  # the images of this round; None for all
    seen = torch.arange(len(database)) if sample is None else sample
    for indices in seen[torch.randperm(len(seen))].split(64):
        loss = nested(head(features[database[indices]]), labels[database[indices]], indices)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    nested.end_epoch()

learned = nested.database_codes
if learned is None:
    raise SystemExit("too few epochs: the database's codes are updated after every third")
relevant = labels.numpy().astype(np.bool_)
with torch.no_grad():
    h = head(features[query])  # (297, 28)
for bits in LENGTHS:
    asked, searched = pack(h[:, head.columns(bits)]), pack(learned[bits])
    found = evaluate(asked, relevant[query], searched, relevant[database], lengths=[bits])
    print(f"{bits} bits: tie-aware mAP {found[bits].map_tie_aware:.3f}")
