"""Use a trained model: images in, packed codes of any length out."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from .backbones import Backbone, load_backbone
from .backbones.features import FeatureBackbone
from .backbones.tiny_text import PROMPT
from .codes import columns, pack, unpack
from .images.given import GivenImages, ImageLike, chunks
from .index import Hits, SearchIndex
from .modeling.image_codes import packed_codes, relaxed_codes
from .modeling.model import HashModel
from .modeling.saved_model import MODEL_FILES, ModelSpec, load_model
from .runtimes.choice import set_backend
from .runtimes.names import Backend
from .tokens.source import TokenSource
from .utils.errors import NestKALAError, one_line
from .utils.seeding import seeded


class Hasher:
    """Encodes images with a trained model. Make one with `from_pretrained`.

    Example:
        >>> hasher = Hasher.from_pretrained("runs/digits-1shot-seed0-20260101-120000")
        >>> codes = hasher.encode(["a.jpg", "b.jpg"])  # uint8 (2, 4), of 32 bits
        >>> short = hasher.encode(["a.jpg", "b.jpg"], bits=8)  # uint8 (2, 1), their prefixes

    Attributes:
        lengths: the trained code lengths in bits; nested heads support every other length up to the longest, too.
        class_names: names of the training classes.
        backend: the runtime that computes image features.
    """

    backend: Backend = "torch"

    def __init__(self, spec: ModelSpec, backbone: Backbone, model: HashModel, folder: Path) -> None:
        self.spec, self.backbone, self.model, self._folder = spec, backbone, model.eval(), folder
        self.lengths, self.class_names = spec.lengths, spec.class_names

    def __repr__(self) -> str:
        lengths, classes = ", ".join(map(str, self.lengths)), len(self.class_names)
        return f"Hasher({str(self._folder)!r}: {lengths} bits, {classes} classes, backbone {self.spec.backbone})"

    @classmethod
    def from_pretrained(
        cls,
        folder_or_repo: str | Path,
        device: str | torch.device | None = None,
        backbone: str | None = None,
        backend: str = "torch",
    ) -> Self:
        """Load a run folder, or a model repository on the Hugging Face Hub.

        Args:
            folder_or_repo: a folder with model.json and model.safetensors, or "owner/name" on the Hub.
            device: device to compute on (default: a GPU, if available and supported by the backend).
            backbone: name to load the frozen backbone by, if the file with its weights has moved.
            backend: runtime that computes image features: "torch"; "onnx" (ONNX Runtime) or "openvino", which are
                faster on CPUs; "openvino-bf16", even faster on CPUs with bfloat16, with slightly different codes; or
                "auto", the fastest installed one that gives the same codes.

        Raises:
            NestKALAError: the model does not exist or is damaged, the backbone differs from the one it was trained on,
                or the backend is unknown, not installed, or cannot run the model.
        """
        folder = Path(folder_or_repo)
        if not folder.is_dir():
            folder = _download(str(folder_or_repo))
        spec, state = load_model(folder)
        frozen = load_backbone(backbone or spec.backbone, spec.num_adapted)
        if frozen.fingerprint != spec.fingerprint:
            raise NestKALAError(
                f"{folder} was trained on a different {spec.backbone}: the weights or preprocessing of the backbone "
                f"found here have fingerprint {frozen.fingerprint}, not {spec.fingerprint}"
            )
        with seeded(0):  # random weights are overwritten; leave the caller's generator untouched
            model = spec.build(frozen.tower, torch.zeros_like(state["anchors"]))
        if spec.precision == "fp64":
            model = model.double()
        model.load_trained_state(state)
        on_gpu = torch.cuda.is_available() and backend in ("torch", "auto")
        model.to(device or ("cuda" if on_gpu else "cpu"))
        hasher = cls(spec, frozen, model, folder)
        hasher.backend = set_backend(backend, spec, frozen, hasher.model, hasher.fingerprint)
        return hasher

    def encode(
        self,
        images: ImageLike | Iterable[ImageLike],
        bits: int | None = None,
        batch_size: int = 128,
        workers: int = 0,
        progress: bool = False,
    ) -> np.ndarray:
        """Packed codes of images, uint8 (N, ceil(bits / 8)), big-endian bits, +1 -> 1.

        Args:
            images: one or more images: paths, encoded bytes, open files, Pillow images, arrays or tensors
                (`ImageLike`), including arrays uint8 (N, H, W, 3) and tensors (N, 3, H, W). For a model trained on your
                own features: features (N, width) or (width,). Iterators are read a few batches at a time.
            bits: code length, 1 to the longest trained length (default: the longest). A shorter code is exactly a
                prefix of a longer one. For heads that do not nest, one of the trained lengths.
            batch_size: images per forward pass.
            workers: number of threads that decode images ahead of the network; 0 decodes in the calling thread.
            progress: show a progress bar.

        Raises:
            NestKALAError: bits is out of range, or an image is invalid or cannot be read; the message names it.
        """
        where = self.columns(bits)
        label = "encoding" if progress else None
        codes = [
            packed_codes(self.model, source, given, range(len(given)), label)
            for given, source in self._sources(images, batch_size, workers)
        ]
        return columns(np.concatenate(codes), where)

    def relaxed(
        self,
        images: ImageLike | Iterable[ImageLike],
        bits: int | None = None,
        batch_size: int = 128,
        workers: int = 0,
        progress: bool = False,
    ) -> np.ndarray:
        """Relaxed codes (N, bits), floats in (-1, 1), whose signs `encode` packs; same arguments and errors."""
        where = self.columns(bits)
        label = "encoding" if progress else None
        batches = [
            batch
            for given, source in self._sources(images, batch_size, workers)
            for batch in relaxed_codes(self.model, source, given, range(len(given)), label)
        ]
        h = torch.cat(batches) if batches else torch.empty(0, self.model.head.width)
        relaxed: np.ndarray = h[:, where].to(torch.promote_types(h.dtype, torch.float32)).numpy()
        return relaxed

    def encode_text(self, sentences: str | Sequence[str], bits: int | None = None) -> np.ndarray:
        """Packed codes of sentences, uint8 (N, ceil(bits / 8)), for searching among codes of images.

        Args:
            sentences: one or more sentences, such as "a photo of a dog."
            bits: as for `encode`.

        Raises:
            NestKALAError: bits is out of range, the model has no text tower or was trained without text, or the
                built-in backbone does not know a word and the optional text encoder is not installed.
        """
        where = self.columns(bits)
        if self.spec.text_tower is None:
            raise NestKALAError(f"{self._folder} was trained without a text tower, so it cannot encode sentences")
        said = [sentences] if isinstance(sentences, str) else list(sentences)
        embedded = self._embed_text(said) if said else self.model.anchors[:0].cpu()
        return self._text_codes(embedded, where) if self.class_names else self._codes_towards(embedded, where)

    def search_text(
        self,
        index: SearchIndex,
        sentences: str | Sequence[str],
        k: int = 10,
        bits: int | None = None,
        shortlist: int | None = None,
    ) -> Hits:
        """The images in an index that best match each sentence.

        Args:
            index: an index made with this model.
            sentences: as for `encode_text`.
            k, bits, shortlist: as for `PrefixIndex.search`.

        Raises:
            NestKALAError: as for `encode_text` and `PrefixIndex.search`.

        Example:
            >>> hits = hasher.search_text(index, "a photo of a dog.", bits=16)
        """
        return index.search(self.encode_text(sentences), k, bits, shortlist=shortlist)

    def class_codes(self, bits: int | None = None) -> np.ndarray:
        """Packed codes of the class names, uint8 (C, ceil(bits / 8)), in their order; `bits` as for `encode`.

        Raises:
            NestKALAError: bits is out of range, or the model was trained without text.
        """
        return self._text_codes(self.model.anchors, self.columns(bits))

    def classify(
        self, images: ImageLike | Iterable[ImageLike], bits: int | None = None, batch_size: int = 128, workers: int = 0
    ) -> list[str | None]:
        """The class of each image: the one whose code is nearest to the image's relaxed code.

        The answer is None if an unnamed kind of things is nearer, for models trained on an archive with such kinds.

        Arguments are as for `encode`, errors as for `encode` and `class_codes`.
        """
        self._check_classes()
        codes = np.concatenate([self.class_codes(bits), self._unnamed_codes(bits)])
        relaxed = self.relaxed(images, bits, batch_size, workers)
        named = len(self.class_names)
        return [self.class_names[best] if best < named else None for best in nearest_classes(relaxed, codes)]

    def classes_of_codes(self, codes: np.ndarray, bits: int | None = None) -> np.ndarray:
        """The class of each packed code (N, ceil(bits / 8)), as an index into `class_names`, int64 (N,); -1 for none.

        Like `classify`, but for existing codes: the nearest class code wins, and the first one if there are ties.

        Args:
            codes: codes of images, from `encode`.
            bits: how many of their bits to compare, as for `encode`.

        Raises:
            NestKALAError: as for `classify`.
        """
        self._check_classes()
        compared = self.columns(bits)
        among = np.concatenate([self.class_codes(bits), self._unnamed_codes(bits)])
        relaxed = unpack(codes, compared.stop - compared.start).astype(np.float32)
        best = nearest_classes(relaxed, among)
        return np.where(best < len(self.class_names), best, -1)

    def class_probabilities(
        self, images: ImageLike | Iterable[ImageLike], batch_size: int = 128, workers: int = 0
    ) -> Tensor:
        """The probability of each class for each image, (N, C + 1); the last column is "none of these". Rows sum to 1.

        For models with a closed-form start, these are the probabilities of the class layer, with all unnamed kinds
        summed in the last column. For other models, it is the softmax of half the product of relaxed code and class
        code, the measure that the class losses use, and the last column is 0.

        Arguments and errors are as for `classify`.
        """
        self._check_classes()
        found = [
            self._probabilities(tokens)
            for given, source in self._sources(images, batch_size, workers)
            for tokens in source.batches(given, range(len(given)))
        ]
        return torch.cat(found) if found else torch.empty(0, len(self.class_names) + 1)

    @torch.no_grad()
    def _probabilities(self, tokens: Tensor) -> Tensor:
        model, named = self.model, len(self.class_names)
        tokens = tokens.to(self.backbone.tower.device)
        if model.class_layer is None:
            h, _ = model(tokens)
            where = self.columns(None)
            codes = torch.from_numpy(unpack(self.class_codes(), h[:, where].shape[1])).to(h)
            found = torch.softmax(h[:, where] @ codes.T / 2, dim=1)
        else:
            features = model.features(tokens.to(model.dtype))
            found = model.class_layer.probabilities(model.class_layer.units(features))
        return torch.cat([found[:, :named], found[:, named:].sum(dim=1, keepdim=True)], dim=1).cpu()

    def _check_classes(self) -> None:
        if not self.class_names:
            raise NestKALAError(f"{self._folder} was fitted without classes: it can search but not classify")

    @torch.no_grad()
    def _unnamed_codes(self, bits: int | None) -> np.ndarray:
        """Packed codes of the unnamed kinds of things, (U, ceil(bits / 8))."""
        layer = self.model.class_layer
        if layer is None:
            return np.empty((0, self.class_codes(bits).shape[1]), np.uint8)
        return pack(self.model.head(layer.typical()[len(self.class_names) :])[:, self.columns(bits)])

    @torch.no_grad()
    def _text_codes(self, embedded: Tensor, where: slice) -> np.ndarray:
        if not self.spec.has_text_codes:
            raise NestKALAError(
                f"{self._folder} cannot encode text: its loss learns only from images, from a random start"
            )
        to_code = self.model.anchor_to_code
        return pack(to_code(embedded.to(to_code.weight))[:, where])

    @torch.no_grad()
    def _codes_towards(self, embedded: Tensor, where: slice) -> np.ndarray:
        """Packed codes of images in the directions of texts, relative to the mean of all sorts of texts."""
        layer = self.model.class_layer
        assert layer is not None  # models without classes always have one
        directions = (embedded - self._text_center).to(layer.mean)
        return pack(self.model.head(layer.towards(directions))[:, where])

    @cached_property
    def _text_center(self) -> Tensor:
        from .training.anchors import ALL_SORTS  # here, since searching with an image needs no data formats

        return self._embed_text([PROMPT.format(name) for name in ALL_SORTS]).mean(dim=0)

    @cached_property
    def _embed_text(self) -> Callable[[list[str]], Tensor]:
        name = self.spec.text_tower
        tower = self.backbone if name == self.backbone.name else load_backbone(str(name), num_adapted=0)
        assert tower.embed_text is not None  # otherwise training would have had no anchors
        return tower.embed_text

    def columns(self, bits: int | None = None) -> slice:
        """The columns of the head's output that hold the codes of a length (default: the longest).

        Raises:
            NestKALAError: the model has no codes of this length.
        """
        try:
            return self.model.head.columns(self.lengths[-1] if bits is None else bits)
        except ValueError as error:
            raise NestKALAError(str(error)) from None

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the trained weights and settings: models with the same fingerprint give the same codes."""
        digest = hashlib.blake2b(digest_size=16)
        for name in MODEL_FILES:
            digest.update((self._folder / name).read_bytes())
        return digest.hexdigest()

    def push_to_hub(self, repo: str, private: bool = False) -> str:
        """Upload the model with a model card to "owner/name" on the Hugging Face Hub, and return the URL.

        The upload is a single commit, so the repository holds either the complete model or what it held before. Load
        the model from there with `from_pretrained`. Log in first with `hf auth login`.

        Raises:
            NestKALAError: the upload failed, for example without network or permission.
        """
        from huggingface_hub import CommitOperationAdd, HfApi

        load_model(self._folder)  # check again, in case the files have changed since
        api = HfApi()
        try:
            url = api.create_repo(repo, private=private, exist_ok=True)
            added = [CommitOperationAdd(name, self._folder / name) for name in MODEL_FILES]
            added.append(CommitOperationAdd("README.md", self._card().encode()))
            api.create_commit(repo, added, commit_message="Upload a NestKALA model")
        except Exception as error:
            raise NestKALAError(f"cannot upload to {repo} on the Hugging Face Hub: {one_line(error)}") from error
        return str(url)

    def _sources(
        self, images: ImageLike | Iterable[ImageLike], batch_size: int, workers: int
    ) -> Iterator[tuple[GivenImages, TokenSource]]:
        source = None  # shared, so that codes do not depend on how a stream is split
        for given in chunks(images, isinstance(self.backbone, FeatureBackbone), batch_size):
            if source is None:
                size = max(1, min(batch_size, len(given)))
                source = TokenSource(self.backbone, self.spec.precision, size, workers)
            yield given, source

    def _card(self) -> str:
        from .training.metrics_file import load_metrics

        lengths = ", ".join(map(str, self.lengths))
        prefixes = ", each a prefix of the longest," if self.model.head.nested else ""
        lines = [
            "---",
            "library_name: nestkala",
            "tags: [image-retrieval, deep-hashing, binary-codes]",
            "---",
            f"# {'Nested binary' if self.model.head.nested else 'Binary'} image codes",
            "",
            f"Codes of {lengths} bits{prefixes} from one NestKALA model on the frozen backbone "
            f"`{self.spec.backbone}` (fingerprint `{self.spec.fingerprint}`, not included here).",
            "",
            f"Trained on {len(self.class_names)} classes: {', '.join(self.class_names)}.",
            "",
        ]
        metrics = load_metrics(self._folder)
        if metrics is not None and metrics.lengths:
            lines += ["```json", json.dumps(metrics.lengths, indent=2), "```", ""]
            if metrics.searched == "learned codes":
                lines += ["The gallery's codes were learned together with the model and are not included here.", ""]
        return "\n".join(lines)


def nearest_classes(relaxed: np.ndarray, class_codes: np.ndarray) -> np.ndarray:
    """Relaxed codes (N, bits) and packed class codes (C, ceil(bits / 8)) -> the nearest class of each, (N,)."""
    codes = unpack(class_codes, relaxed.shape[1]).astype(relaxed.dtype)  # (C, bits)
    nearest: np.ndarray = (relaxed @ codes.T).argmax(axis=1)
    return nearest


def _download(repo: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, allow_patterns=list(MODEL_FILES)))
    except Exception as error:
        raise NestKALAError(
            f"'{repo}' is not a folder, and loading it from the Hugging Face Hub failed: {one_line(error)}"
        ) from error
