"""A plain PyTorch loop on a timm backbone, without NestKALA's trainer: fine-tune, encode, index, search.

    python examples/plain_pytorch.py photos/train query.jpg --model resnet18

The folder contains one folder of images per class. timm downloads the weights; --random-weights tries it without.
"""

import argparse

import timm
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from nestkala import PrefixIndex
from nestkala.codes import pack
from nestkala.heads import NestedHashHead
from nestkala.losses import DPSH, NestedLoss

LENGTHS = (8, 16, 32, 64)

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("folder", help="folder of class folders")
parser.add_argument("query", help="an image")
parser.add_argument("--model", default="resnet18", help="any timm model")
parser.add_argument("--random-weights", action="store_true")
parser.add_argument("--epochs", type=int, default=5)
given = parser.parse_args()

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
backbone = timm.create_model(given.model, pretrained=not given.random_weights, num_classes=0).to(device)
preprocess = timm.data.create_transform(**timm.data.resolve_data_config({}, model=backbone))
images = ImageFolder(given.folder, preprocess)
one_hot = torch.eye(len(images.classes), device=device)

head = NestedHashHead(backbone.num_features, LENGTHS, batch_norm=True).to(device)
nested = NestedLoss(LENGTHS, make_loss=lambda bits: DPSH()).to(device)
optimizer = torch.optim.AdamW([*backbone.parameters(), *head.parameters()], lr=1e-4)
order = DataLoader(range(len(images)), batch_size=32, shuffle=True, drop_last=len(images) >= 32)
for epoch in range(given.epochs):
    backbone.train()
    for indices in order:
        batch = torch.stack([images[i][0] for i in indices.tolist()]).to(device)
        labels = one_hot[[images.targets[i] for i in indices.tolist()]]  # (B, C)
        loss = nested(head(backbone(batch)), labels, indices.to(device), weight=head.weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    nested.end_epoch()
    print(f"epoch {epoch}: loss {loss.item():.3f}")

backbone.eval()
head.eval()
with torch.no_grad():
    codes = torch.cat([head(backbone(batch.to(device))) for batch, _ in DataLoader(images, batch_size=32)])  # (N, 64)
    query = head(backbone(preprocess(Image.open(given.query).convert("RGB"))[None].to(device)))  # (1, 64)
index = PrefixIndex.build(pack(codes), ids=[path for path, _ in images.samples])
for bits in (8, 64):
    hits = index.search(pack(query), k=5, bits=bits)
    print(f"{bits} bits:", *hits.ids[0])
