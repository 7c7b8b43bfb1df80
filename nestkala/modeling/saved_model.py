"""A trained model on disk: model.json describes it, model.safetensors holds the trained tensors."""

import json
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from torch import Tensor

from ..adapters import Adapter, CLoRA, LoRA, Prompts
from ..backbones import Projection, Tower
from ..heads import check_lengths
from ..plugins import find_plugin
from ..utils.errors import NestKALAError
from ..utils.files import load_tensors, save_tensors, sha256, write_text
from ..utils.limits import MAX_LENGTH, MAX_PROMPT_LENGTH, MAX_RANK, MAX_UNNAMED
from ..utils.text_files import read_json
from ..utils.validation import first_in_words
from ..utils.versions import check_version
from .model import HashModel

_VERSION: Literal[5] = 5
_EARLIER = (1, 2, 3, 4)
_WITHOUT_CHECKSUM = (1, 2, 3)
MODEL_FILES = ("model.json", "model.safetensors")
MAX_ANCHOR_WIDTH = 2**16
"""Maximum width of a saved model's anchors; no text tower comes close."""


class ModelSpec(BaseModel):
    """Everything needed to build the model again, besides the trained tensors.

    Attributes:
        backbone: name of the frozen backbone, from which it is loaded again.
        fingerprint: fingerprint of the backbone's weights and preprocessing.
        class_names: names of the training classes, in the order of the anchors.
        text_tower: name of the backbone whose text tower made the anchors; None if none did.
        class_layer: whether a `ClassLayer` precedes the head.
        num_unnamed: number of unnamed kinds of things that it distinguishes in addition to the classes.
        has_text_codes: whether `anchor_to_code` was learned, or set, to map text to the codes of what it describes.
        weights_sha256: SHA-256 of the file model.safetensors, in hex digits; None before it is saved.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["nestkala-model"] = "nestkala-model"
    version: Literal[1, 2, 3, 4, 5] = _VERSION
    backbone: str
    fingerprint: str
    precision: Literal["fp32", "bf16", "fp16", "fp64"]
    class_names: tuple[str, ...]
    text_tower: str | None = None
    has_text_codes: bool = False
    lengths: tuple[int, ...]
    batch_norm: bool
    head: str = "nested"
    class_layer: bool = False
    num_unnamed: Annotated[int, Field(ge=0, le=MAX_UNNAMED)] = 0
    adapter: Literal["clora", "lora", "prompts", "biases", "full", "none"]
    adapt_blocks: Annotated[int, Field(ge=1)]
    projections: tuple[Projection, ...]
    rank: Annotated[int, Field(ge=1, le=MAX_RANK)]
    prompt_length: Annotated[int, Field(ge=1, le=MAX_PROMPT_LENGTH)] = 8
    adapter_scale: Annotated[float, Field(allow_inf_nan=False)]
    adapter_init: Literal["linear", "zero"]
    weights_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None

    @field_validator("lengths")
    @classmethod
    def _ascending(cls, lengths: tuple[int, ...]) -> tuple[int, ...]:
        if max(lengths, default=1) > MAX_LENGTH:
            raise ValueError(f"lengths must be 1 to {MAX_LENGTH} bits each")
        return check_lengths(lengths)

    def with_unnamed(self, number: int) -> Self:
        """A copy with this number of unnamed kinds of things."""
        return self.model_copy(update={"num_unnamed": number})

    @property
    def num_adapted(self) -> int:
        """Number of the tower's last blocks in its tail: none without an adapter."""
        return self.adapt_blocks if self.adapter != "none" else 0

    def build(self, tower: Tower, anchors: Tensor) -> HashModel:
        """Build the model on this tower, with weights drawn from torch's current generator."""
        width, projected, blocks = tower.width, tower.projected_width, self.adapt_blocks
        self._check_fits(tower)
        adapter: Adapter | None = None
        match self.adapter:
            case "clora":
                prefix, init = tower.num_prefix_tokens, self.adapter_init
                adapter = CLoRA(width, blocks, self.projections, self.rank, self.adapter_scale, prefix, init)
            case "lora":
                adapter = LoRA(width, blocks, self.projections, self.rank, self.adapter_scale, projected)
            case "prompts":
                adapter = Prompts(width, blocks, self.prompt_length)
            case "biases" | "full":
                tower.unlock("biases" if self.adapter == "biases" else "all")
        head = find_plugin("heads", self.head).load()
        return HashModel(
            tower, anchors, self.lengths, adapter, self.batch_norm, head, self.class_layer, self.num_unnamed
        )

    def _check_fits(self, tower: Tower) -> None:
        if self.adapter == "prompts" and not tower.takes_prompts:
            raise NestKALAError(
                f"{self.backbone} does not support prompts: set adapter to clora, lora, biases, full or none"
            )
        others = [name for name in self.projections if name not in tower.projections]
        if self.adapter in ("clora", "lora") and others:
            known = ", ".join(tower.projections)
            raise NestKALAError(f"{self.backbone} has no projection {', '.join(others)} to adapt (it has {known})")


def save_model(folder: Path, spec: ModelSpec, state: dict[str, Tensor]) -> None:
    """Write model.safetensors, then model.json with its checksum, each atomically."""
    save_tensors(folder / "model.safetensors", state)
    spec = spec.model_copy(update={"weights_sha256": sha256(folder / "model.safetensors")})
    write_text(folder / "model.json", json.dumps(spec.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n")


def load_model(folder: Path) -> tuple[ModelSpec, dict[str, Tensor]]:
    """Read the output of `save_model`.

    Raises:
        NestKALAError: if files are missing, damaged, in another format or version, or from different models.
    """
    for name in MODEL_FILES:
        if not (folder / name).is_file():
            raise NestKALAError(f"{folder} contains no trained model: there is no {name}")
    path = folder / "model.json"
    try:
        found = read_json(path)
        if isinstance(found, dict) and "version" in found:
            version = found["version"]
            check_version(str(path), version, version if version in _EARLIER else _VERSION)
        spec = ModelSpec.model_validate(found)
    except ValidationError as error:
        raise NestKALAError(f"{path}: {first_in_words(error)}") from None
    weights = folder / "model.safetensors"
    state, _ = load_tensors(weights, str(weights))
    if spec.version not in _WITHOUT_CHECKSUM and spec.weights_sha256 is None:
        raise NestKALAError(f"{path} is damaged: it has no checksum of the weights (weights_sha256)")
    if spec.weights_sha256 not in (None, sha256(weights)):
        raise NestKALAError(
            f"{path} and {weights.name} belong to different models (SHA-256): copy, download or save both again"
        )
    anchors = state.get("anchors")
    if anchors is None or anchors.ndim != 2 or not 1 <= anchors.shape[1] <= MAX_ANCHOR_WIDTH:
        found = "absent" if anchors is None else tuple(anchors.shape)
        raise NestKALAError(f"the saved model in {folder} does not fit: anchors are {found}, not (classes, width)")
    if len(spec.class_names) != len(anchors):
        raise NestKALAError(f"{path}: class_names: {len(spec.class_names)} names for {len(anchors)} classes")
    return spec, state
