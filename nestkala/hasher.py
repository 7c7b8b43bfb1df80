"""A trained model at work: images in, packed codes of any length out."""

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
        lengths: the trained code lengths in bits; of a nested head any other up to the longest is served too.
        class_names: of the training classes.
        backend: what computes images' features.
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
        """Load a run folder, or a model repository on the Hugging Face hub.

        Args:
            folder_or_repo: a folder with model.json and model.safetensors, or "owner/name" on the hub.
            device: where to compute; by default a GPU where there is one and the backend can use it.
            backbone: name to load the frozen backbone by, where its weights are a file that lies elsewhere now.
            backend: what computes images' features: "torch"; "onnx" (ONNX Runtime) or "openvino", which are faster on
                processors; "openvino-bf16", faster still where the processor has bfloat16, with slightly different
                codes; or "auto", the fastest that is installed and gives the same codes.

        Raises:
            NestKALAError: no such model, damaged files, a backbone here that is not the one it was trained on, or a
                backend that is unknown, not installed, or cannot run the model.
        """
        folder = Path(folder_or_repo)
        if not folder.is_dir():
            folder = _download(str(folder_or_repo))
        spec, state = load_model(folder)
        frozen = load_backbone(backbone or spec.backbone, spec.num_adapted)
        if frozen.fingerprint != spec.fingerprint:
            raise NestKALAError(
                f"{folder} was trained on another {spec.backbone}: the backbone's weights or preprocessing here have "
                f"fingerprint {frozen.fingerprint}, not {spec.fingerprint}"
            )
        with seeded(0):  # what is drawn here is overwritten: the caller's generator must not notice
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
            images: one image or several: paths, encoded bytes, open files, images of Pillow, arrays or tensors
                (`ImageLike`), arrays uint8 (N, H, W, 3) and tensors (N, 3, H, W) among them; for a model that was
                trained on own features such, (N, width) or (width,). An iterator is read a few batches at a time.
            bits: length of the codes, 1 to the longest trained length, which is the default. A shorter code is
                exactly the prefix of a longer one. Of heads that do not nest, a trained length.
            batch_size: images per pass.
            workers: threads that decode images ahead of the network; 0 decodes in the calling one.
            progress: show a bar.

        Raises:
            NestKALAError: bits out of range, an image that cannot be read, by name, or what is no image, by number.
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
        """Relaxed codes (N, bits), floats in (-1, 1), whose signs `encode` packs. Arguments and errors are the same."""
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
        """Packed codes of sentences, uint8 (N, ceil(bits / 8)), to be searched among those of images.

        Args:
            sentences: one or several, such as "a photo of a dog."
            bits: as for `encode`.

        Raises:
            NestKALAError: bits out of range, a model without a text tower or whose training left text aside, or, of the
                built-in backbone, words it does not know while the encoder is not installed.
        """
        where = self.columns(bits)
        if self.spec.text_tower is None:
            raise NestKALAError(f"{self._folder} was trained without a text tower: it has no codes for sentences")
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
        """The images of an index that are nearest to what each sentence says.

        Args:
            index: of codes that this model made.
            sentences: as for `encode_text`.
            k, bits, shortlist: as for `PrefixIndex.search`.

        Raises:
            NestKALAError: as `encode_text` and `PrefixIndex.search` do.

        Example:
            >>> hits = hasher.search_text(index, "a photo of a dog.", bits=16)
        """
        return index.search(self.encode_text(sentences), k, bits, shortlist=shortlist)

    def class_codes(self, bits: int | None = None) -> np.ndarray:
        """Packed codes of the class names, uint8 (C, ceil(bits / 8)), in their order; `bits` as for `encode`.

        Raises:
            NestKALAError: bits out of range, or a model whose training left text aside.
        """
        return self._text_codes(self.model.anchors, self.columns(bits))

    def classify(
        self, images: ImageLike | Iterable[ImageLike], bits: int | None = None, batch_size: int = 128, workers: int = 0
    ) -> list[str | None]:
        """The class of each image: that whose code is nearest to the image's relaxed one.

        None where a kind of things is nearer that has no name, in a model whose archive showed such.

        Arguments as for `encode`, errors as for `encode` and `class_codes`.
        """
        self._check_classes()
        codes = np.concatenate([self.class_codes(bits), self._unnamed_codes(bits)])
        relaxed = self.relaxed(images, bits, batch_size, workers)
        named = len(self.class_names)
        return [self.class_names[best] if best < named else None for best in nearest_classes(relaxed, codes)]

    def classes_of_codes(self, codes: np.ndarray, bits: int | None = None) -> np.ndarray:
        """The class of each packed code (N, ceil(bits / 8)), by place in `class_names`, int64 (N,); -1 for none.

        As `classify`, of codes that were made before: the nearest class code counts, the first of several.

        Args:
            codes: of images, as `encode` gives them.
            bits: how many of their bits to compare, as for `encode`.

        Raises:
            NestKALAError: as `classify` does.
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
        """How likely each class is for each image, (N, C + 1); the last column is "none of these". Rows sum to 1.

        Of a model whose start was in closed form, these are the probabilities that its class layer gives, those of all
        kinds without a name together in the last column. Of any other it is a softmax of half the product of relaxed
        code and class code, by which the class losses compare the two, and the last column is 0.

        Arguments and errors as for `classify`.
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
            raise NestKALAError(f"{self._folder} was fitted without classes: it can search, but not classify")

    @torch.no_grad()
    def _unnamed_codes(self, bits: int | None) -> np.ndarray:
        """Packed codes of the kinds of things that have no name, (U, ceil(bits / 8))."""
        layer = self.model.class_layer
        if layer is None:
            return np.empty((0, self.class_codes(bits).shape[1]), np.uint8)
        return pack(self.model.head(layer.typical()[len(self.class_names) :])[:, self.columns(bits)])

    @torch.no_grad()
    def _text_codes(self, embedded: Tensor, where: slice) -> np.ndarray:
        if not self.spec.has_text_codes:
            raise NestKALAError(
                f"{self._folder} has no codes for text: its loss learns from images alone, from a random start"
            )
        to_code = self.model.anchor_to_code
        return pack(to_code(embedded.to(to_code.weight))[:, where])

    @torch.no_grad()
    def _codes_towards(self, embedded: Tensor, where: slice) -> np.ndarray:
        """Packed codes of images that lie where texts point, seen from the midst of all sorts of texts."""
        layer = self.model.class_layer
        assert layer is not None  # a model without classes is made with one
        directions = (embedded - self._text_center).to(layer.mean)
        return pack(self.model.head(layer.towards(directions))[:, where])

    @cached_property
    def _text_center(self) -> Tensor:
        from .training.anchors import ALL_SORTS  # here, since a search with an image needs none of the data's formats

        return self._embed_text([PROMPT.format(name) for name in ALL_SORTS]).mean(dim=0)

    @cached_property
    def _embed_text(self) -> Callable[[list[str]], Tensor]:
        name = self.spec.text_tower
        tower = self.backbone if name == self.backbone.name else load_backbone(str(name), num_adapted=0)
        assert tower.embed_text is not None  # or training would have had no anchors
        return tower.embed_text

    def columns(self, bits: int | None = None) -> slice:
        """Where in the head's output the codes of a length are, by default the longest.

        Raises:
            NestKALAError: a length that they do not have.
        """
        try:
            return self.model.head.columns(self.lengths[-1] if bits is None else bits)
        except ValueError as error:
            raise NestKALAError(str(error)) from None

    @cached_property
    def fingerprint(self) -> str:
        """Of what was trained and how it was set: models of one fingerprint give the same codes."""
        digest = hashlib.blake2b(digest_size=16)
        for name in MODEL_FILES:
            digest.update((self._folder / name).read_bytes())
        return digest.hexdigest()

    def push_to_hub(self, repo: str, private: bool = False) -> str:
        """Upload the model, with a card, to "owner/name" on the Hugging Face hub, and return the address.

        It is one commit: the repository holds the whole model, or what it held before.

        The repository has the form that `from_pretrained` takes. Log in first: `hf auth login`.

        Raises:
            NestKALAError: what the hub answered, no network and no permission included.
        """
        from huggingface_hub import CommitOperationAdd, HfApi

        load_model(self._folder)  # which may have been written to since: no two halves are uploaded
        api = HfApi()
        try:
            url = api.create_repo(repo, private=private, exist_ok=True)
            added = [CommitOperationAdd(name, self._folder / name) for name in MODEL_FILES]
            added.append(CommitOperationAdd("README.md", self._card().encode()))
            api.create_commit(repo, added, commit_message="Upload a NestKALA model")
        except Exception as error:
            raise NestKALAError(f"cannot upload to {repo} on the Hugging Face hub: {one_line(error)}") from error
        return str(url)

    def _sources(
        self, images: ImageLike | Iterable[ImageLike], batch_size: int, workers: int
    ) -> Iterator[tuple[GivenImages, TokenSource]]:
        source = None  # one for all, so that no code depends on how a stream is cut
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
                lines += ["The gallery's codes were learned beside the model and are not included here.", ""]
        return "\n".join(lines)


def nearest_classes(relaxed: np.ndarray, class_codes: np.ndarray) -> np.ndarray:
    """Relaxed codes (N, bits) and packed ones of classes (C, ceil(bits / 8)) -> the nearest class of each, (N,)."""
    codes = unpack(class_codes, relaxed.shape[1]).astype(relaxed.dtype)  # (C, bits)
    nearest: np.ndarray = (relaxed @ codes.T).argmax(axis=1)
    return nearest


def _download(repo: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, allow_patterns=list(MODEL_FILES)))
    except Exception as error:
        raise NestKALAError(
            f"'{repo}' is no folder here, and from the Hugging Face hub it cannot be had: {one_line(error)}"
        ) from error
