"""Rebuild nestkala/pretrained/vocabulary.safetensors: class names and their text embeddings.

    pip install -c constraints.txt -e ".[text]" wordfreq==3.1.1
    python scripts/build_vocabulary.py

Names come from scripts/class_names (data sets and everyday words), from ImageNet-1k as open_clip and timm name it,
and, up to --names, from ImageNet-12k, the commonest words first. On one machine the same versions give the same bytes;
the SHA-256 printed belongs into nestkala/backbones/tiny_text.py.
"""

import json
import re
from hashlib import sha256
from pathlib import Path

import torch
import tyro
from open_clip import IMAGENET_CLASSNAMES
from timm.data import ImageNetInfo
from wordfreq import zipf_frequency

from nestkala.backbones.tiny_text import PROMPT, VOCABULARY, load_encoder, name_key
from nestkala.utils.files import save_tensors

ROOT = Path(__file__).resolve().parents[1]
LISTS = ROOT / "scripts" / "class_names"

PEOPLE = ("n09480000", "n11400000")
"""WordNet's noun.person in ImageNet's ids, insults and all: nothing of it fills the vocabulary."""

LEFT_OUT = frozenset((ROOT / "scripts" / "left_out.txt").read_text(encoding="utf-8").splitlines())
"""Names among the common ones that mean something harmless to WordNet and something else to most readers."""


def listed_names() -> list[str]:
    """Every name that must be in: our lists, then ImageNet-1k's."""
    names = [name for path in sorted(LISTS.glob("*.txt")) for name in path.read_text(encoding="utf-8").splitlines()]
    return [*names, *IMAGENET_CLASSNAMES, *(name for synonyms in lemmas("imagenet-1k").values() for name in synonyms)]


def lemmas(subset: str) -> dict[str, list[str]]:
    """Synset -> its synonyms, the usual one first, of a subset of ImageNet that timm knows."""
    info = ImageNetInfo(subset)
    return {
        synset: [name.strip() for name in info.label_name_to_description(synset).split(",")]
        for synset in info.label_names()
    }


def common_names() -> list[str]:
    """ImageNet-12k's names without people, the commonest first.

    wordfreq takes the words of a name for independent, which they are not: each further word costs a power of ten,
    and being a synonym half of one.
    """
    scores: dict[str, float] = {}
    for synset, synonyms in lemmas("imagenet-12k").items():
        if PEOPLE[0] <= synset < PEOPLE[1]:
            continue
        for place, name in enumerate(synonyms):
            frequency = zipf_frequency(name, "en")  # log10 a thousand million words; 0: never seen
            if frequency > 0 and re.fullmatch(r"[A-Za-z][A-Za-z' -]{2,}", name) and name_key(name) not in LEFT_OUT:
                score = frequency - len(re.findall(r"[ -]+", name)) - 0.5 * (place > 0)
                scores[name] = max(score, scores.get(name, score))
    return sorted(scores, key=lambda name: (-scores[name], name))


def choose_names(count: int) -> list[str]:
    """The vocabulary in alphabetical order: all that is listed, filled up with common names to `count`."""
    chosen: dict[str, str] = {}
    for name in listed_names():
        chosen.setdefault(name_key(name), name)
    for name in common_names():
        if len(chosen) >= count:
            break
        chosen.setdefault(name_key(name), name)
    return [chosen[key] for key in sorted(chosen)]


def main(output: Path = ROOT / "nestkala" / "pretrained" / VOCABULARY, names: int = 7500) -> None:
    """Choose the names, embed them, write the file and say what it holds.

    Args:
        output: file to write.
        names: how many names in all; each takes 768 bytes and its spelling.
    """
    torch.set_num_threads(1)  # the last bit of a sum depends on how many share it
    chosen = choose_names(names)
    sentences = [PROMPT.format(name) for name in chosen]
    embeddings = torch.from_numpy(load_encoder().encode(sentences, show_progress_bar=True)).half()
    # One entry: safetensors writes several in an order that changes from run to run.
    save_tensors(output, {"embeddings": embeddings}, {"names": json.dumps(chosen, ensure_ascii=False)})
    content = output.read_bytes()
    print(f"{output}: {len(chosen):,} names, {len(content):,} bytes, SHA-256 {sha256(content).hexdigest()}")


if __name__ == "__main__":
    tyro.cli(main)
