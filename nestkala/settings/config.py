"""The settings of a training run: one typed schema for YAML files, command-line flags and the run folder."""

import argparse
import logging
import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    StrictInt,
    ValidationError,
    field_validator,
    model_validator,
)
from tyro.constructors import PrimitiveConstructorSpec

from ..backbone_names import check_name
from ..plugins import WITH_HSWD, check_loss, find_plugin
from ..utils.errors import NestKALAError, nearest, unknown_name
from ..utils.limits import MAX_LENGTH, MAX_PROMPT_LENGTH, MAX_RANK, MAX_THREADS, MAX_UNNAMED
from ..utils.validation import in_words
from .applicable import in_a_sentence, inapplicable
from .by_shots import at_shots
from .files import read_settings

logger = logging.getLogger(__name__)


def comma_separated(item: type, metavar: str) -> PrimitiveConstructorSpec:
    """How a tuple is given on the command line: its items in one word, which is empty where there are none."""
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: tuple(item(word.strip()) for word in words[0].split(",") if words[0]),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(map(str, value))],
    )


class Config(BaseModel):
    """Train nested binary codes from a few labelled images per class.

    Settings come from the YAML file named by --config, and from flags, which win. One that has no effect beside the
    others is refused.
    """

    refuses_without_effect: ClassVar[bool] = True
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    config: str = Field(
        "digits",
        description="a shipped config (digits, photos, cifar10, nuswide21, mscoco, kalahash, mah) or a YAML file's "
        "path; the default counts for its own data alone, not where other data is named",
    )
    output: Path | None = Field(None, description="run folder to make; by default runs/DATA-SHOTSshot-seedSEED-TIME")
    resume: Path | None = Field(
        None,
        description="go on with the run in this folder, from its last checkpoint and with its settings; only "
        "epochs, tracker, checkpoint_every, threads, workers, encode_batch_size, cache and cache_gb may be given anew",
    )
    seed: int = Field(
        0,
        ge=0,
        lt=2**31,
        description="draws the training images and their order, the trained weights, orthonormal anchors (0 or more)",
    )

    # codes
    lengths: Annotated[tuple[StrictInt, ...], comma_separated(int, "BITS,BITS,...")] = Field(
        (8, 16, 32), description=f"code lengths in bits, each 1 to {MAX_LENGTH}, any number of them"
    )
    head: str = Field(
        "nested",
        description="hash layer, a name that `nestkala list heads` shows; nested gives a code at every length up to "
        "the longest, flat and cascade (random start only) at the lengths trained",
    )
    batch_norm: bool = Field(
        True,
        description="random start: normalise every bit over the batch before tanh, without which bits tend to die; "
        "a start from text has bits centred and scaled already, and never does",
    )

    head_init: Literal["auto", "text", "labels", "random"] = Field(
        "auto",
        description="start in closed form from class names, labels and images without labels (text: the anchors' space "
        "must be the features'), the same without names (labels), or random; auto: text where anchors are the "
        "backbone's own text tower's and the head is nested",
    )
    class_bits: int | None = Field(
        None,
        ge=1,
        le=MAX_LENGTH,
        description="closed form: how many of the first bits say what kind of thing an image shows; the rest say which "
        "one it is; by default 32, or half of a code of less than 64, but at least 16",
    )
    unnamed_kinds: int | Literal["auto"] = Field(
        "auto",
        description="closed form: how many kinds of things the images show beside the named classes; auto: as many as "
        "they seem to show, 0 where the classes are all there is",
    )
    unlabelled: int = Field(
        100_000,
        ge=2,
        description="closed form: images without labels that are used at most, of the archive or else of the gallery",
    )

    # data
    data: str = Field(
        "digits",
        description="digits (in scikit-learn), cifar10 (downloaded), or a folder: CLASS/image, SPLIT/CLASS/image, or "
        "lists train.txt, test.txt, database.txt with classnames.txt, or own features in features.npy, labels.npy; "
        "or a manifest with columns of paths and labels (.csv, .tsv, .jsonl, .parquet; MANIFEST:path=A,label=B names "
        "them), metadata.csv with file_name, COCO annotations (.json), hf:NAME-or-FOLDER, torchvision:NAME; "
        "none: an archive and classes alone, the default beside an archive",
    )
    archive: Path | None = Field(
        None,
        description="closed form: images without labels to learn from, as a rule those that are going to be "
        "searched: a folder of images at any depth, one with lists, a manifest, COCO annotations, or a text file with "
        "a path a line; images of data are left out of it, and so are unreadable ones",
    )
    classes: str | None = Field(
        None,
        description="class names with commas between them, or a file with one a line: those of data none, or of class "
        "folders where some classes have no folder",
    )
    data_root: Path = Field(Path("data"), description="where cifar10 and torchvision:NAME are, or are downloaded to")
    shots: int | Literal["all"] | None = Field(
        None,
        description="labelled training images per class (usually 1 to 8), or all, however uneven; 0: codes from the "
        "class names alone; by default 1, with an archive all",
    )
    split: Path | None = Field(
        None,
        description="take training, query and gallery images from this split.json instead of drawing them",
    )
    queries_per_class: int | None = Field(None, ge=1, description="queries drawn from every class (single-label data)")
    queries: int | None = Field(
        None,
        ge=0,
        description="queries drawn in all, where the data has no test list; 0: none, and no scores; by default a tenth "
        "of the images, with an archive none",
    )
    gallery: Literal["all", "labelled"] = Field(
        "all",
        description="search the split's whole gallery, or a database of the labelled training images alone; some "
        "losses learn its codes",
    )
    train_pool: int | None = Field(
        None,
        ge=1,
        description="draw the training images from this many of the gallery; by default from all of it",
    )
    protocol_seed: int = Field(
        0, ge=0, description="draws queries and gallery order, the same for every seed (0 or more)"
    )
    top_k: int | None = Field(None, ge=1, description="score the first K results; by default the whole gallery")
    score_features: bool = Field(
        False, description="also score the frozen backbone's own features, searched by cosine, to compare codes with"
    )
    on_broken: Literal["error", "skip"] = Field(
        "error", description="an unreadable image stops the run, or is left out and counted"
    )

    # backbone and text
    backbone: str = Field(
        "auto",
        description="photo (EfficientNet-Lite0, installed with this), tiny (built in, 32x32 pixels), "
        "open_clip/MODEL:WEIGHTS (such as open_clip/ViT-B-32-quickgelu:openai) or timm/MODEL[:WEIGHTS]; WEIGHTS is a "
        "tag, for open_clip also a file, or random; open_clip/MODEL/TAG:FILE is a file of a "
        "tag's weights; features:WIDTH is none at all: data holds own features; auto: "
        "features where data holds them, tiny where images are as small as digits, and else photo",
    )
    anchors: str = Field(
        "text",
        description="text anchors of the classes: text (the backbone's own text tower), the text tower of another "
        "backbone (tiny, or open_clip/MODEL:WEIGHTS), a .npy file (classes, width), or random orthonormal ones",
    )
    prompts: tuple[str, ...] = Field(
        ("a photo of a {}.",), description="templates that class names are put into; several are averaged"
    )
    class_words: dict[str, str] = Field(
        {}, description="what prompts say for a class in the place of its name, such as automobile car"
    )
    descriptions: Path | None = Field(
        None, description="YAML or JSON file {class: sentence or sentences}, averaged, instead of prompts"
    )

    # adapter
    adapter: Literal["auto", "clora", "lora", "prompts", "biases", "full", "none"] = Field(
        "auto",
        description="what adapts the last blocks: clora, lora, learned prompts, their biases, all of their weights, or "
        "nothing; auto: clora for training from a random start, else nothing",
    )
    adapt_blocks: int = Field(1, ge=1, description="how many last blocks are adapted (1 or more)")
    projections: Annotated[tuple[Literal["q", "k", "v", "o"], ...], comma_separated(str, "{q,k,v,o},...")] = Field(
        ("k", "v"),
        min_length=1,
        description="attention projections that are adapted; photo has none, and its last convolution is",
    )
    rank: int = Field(
        1,
        ge=1,
        le=MAX_RANK,
        description=f"clora: directions per image, at most the number of classes; lora: rank (1 to {MAX_RANK})",
    )
    prompt_length: int = Field(
        8, ge=1, le=MAX_PROMPT_LENGTH, description=f"prompts: learned tokens a block (1 to {MAX_PROMPT_LENGTH})"
    )
    adapter_scale: float = Field(
        1.0, allow_inf_nan=False, description="clora, lora: the adapter's strength; 0 is the frozen model"
    )
    adapter_init: Literal["linear", "zero"] = Field(
        "linear", description="clora: start q like nn.Linear, or at 0, which is the frozen model"
    )

    # objective
    loss: str = Field(
        "kiddo",
        description="objective at every length, a name that `nestkala list losses` shows, or NAME-hswd: with HSWD for "
        "quantisation; dpsh is kiddo without discrete codes and text",
    )
    loss_args: dict[str, float] = Field({}, description="further arguments of the loss, such as margin 0.3")
    centres: Literal["nested", "independent"] = Field(
        "nested",
        description="losses with hash centres: a shorter length's are prefixes of the longest's, or drawn for "
        "themselves (random start only)",
    )
    alpha: float = Field(
        0.1, ge=0, allow_inf_nan=False, description="KIDDO: weight of the alignment with text (0 or more)"
    )
    beta: float = Field(
        1.0, ge=0, allow_inf_nan=False, description="KIDDO: weight of the distance to the codes (0 or more)"
    )
    gamma: float = Field(3.0, ge=0, allow_inf_nan=False, description="KIDDO: weight of pairwise similarity (0 or more)")
    weighting: Literal["auto", "adaptive", "uniform", "halving"] = Field(
        "auto",
        description="balance the lengths' gradients, weigh all lengths alike, or each half of the next shorter; auto: "
        "adaptive under the nested head, uniform under flat and cascade",
    )
    distillation: float = Field(
        1.0, ge=0, allow_inf_nan=False, description="weight of long-to-short self-distillation (0: none)"
    )

    # optimisation
    epochs: int | None = Field(
        None,
        ge=0,
        description="passes over the training images; by default 100 from a random start, none from the closed form, "
        "to which training added nothing where it was measured (docs/results_photos.md)",
    )
    batch_size: int = Field(8, ge=1, description="images a step, over all processes together (1 or more)")
    lr: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="learning rate of SGD (above 0); by default 0.01 from a random start, 0.00003 from text, which "
        "a higher one forgets",
    )
    lr_drops: Annotated[tuple[StrictInt, ...], comma_separated(int, "EPOCHS,EPOCHS,...")] = Field(
        (), description="divide the learning rate by 10 after each of these numbers of epochs (1 or more, ascending)"
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD (0 to below 1)")
    weight_decay: float = Field(1e-5, ge=0, allow_inf_nan=False, description="of SGD (0 or more)")
    max_grad_norm: float | None = Field(
        3.0,
        ge=0,
        allow_inf_nan=False,
        description="scale the gradient of all that is trained down to this Euclidean norm where it is longer, or "
        "features of large scale make training collapse; 0 or None: never, as published",
    )
    checkpoint_every: int = Field(10, ge=1, description="epochs between checkpoints (1 or more)")
    tracker: Literal[
        "none",
        "tensorboard",
        "wandb",
        "comet_ml",
        "aim",
        "mlflow",
        "clearml",
        "dvclive",
        "swanlab",
        "trackio",
    ] = Field("none", description="experiment tracker, as Accelerate knows them; each needs its package")

    # machine
    precision: Literal["fp32", "bf16", "fp16", "fp64"] = Field(
        "fp32",
        description="of the backbone: fp32, mixed bf16, mixed fp16 (GPU only), or fp64 (all of the model; to compare)",
    )
    threads: int = Field(
        0,
        ge=0,
        le=MAX_THREADS,
        description="CPU threads a process; 0: OMP_NUM_THREADS where that is set (a launcher sets 1 by itself, which "
        "does not count), else all cores, shared among the processes",
    )
    workers: int | None = Field(
        None, ge=0, description="processes that decode images; by default one for every two cores, at most 8"
    )
    encode_batch_size: int = Field(128, ge=1, description="images a pass through the frozen trunk (1 or more)")
    cache: Path | None = Field(
        None, description="folder of the token cache; by default NESTKALA_CACHE or ~/.cache/nestkala/tokens"
    )
    cache_gb: float = Field(16.0, ge=0, allow_inf_nan=False, description="bound of the token cache in GB; 0: no cache")

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise NestKALAError(in_words(error, Config.model_fields)) from None

    def replaced(self, **changes: Any) -> "Config":
        """The settings with these changes, checked as new ones are."""
        return Config(**{key: getattr(self, key) for key in self.model_fields_set} | changes)

    @property
    def starts_in_closed_form(self) -> bool:
        """Whether the head starts from class names, labels and images without labels, not at random."""
        return self.has_texts or self.head_init == "labels"

    @property
    def has_texts(self) -> bool:
        """Whether the start uses the class names' embeddings."""
        if self.head_init == "auto":
            return self.head == "nested" and self.anchors == "text" and not self.backbone.endswith(":random")
        return self.head_init == "text"

    @property
    def labels_per_class(self) -> int | Literal["all"]:
        """Labelled images to train on: `shots`, or what suits the data."""
        if self.shots is not None:
            return self.shots
        if self.data == "none":
            return 0
        return 1 if self.archive is None else "all"

    @property
    def trains(self) -> bool:
        """Whether training on labelled images, if there are any, is asked for."""
        return self.labels_per_class != 0 and self.num_epochs > 0

    @property
    def chosen_adapter(self) -> Literal["clora", "lora", "prompts", "biases", "full", "none"]:
        """What adapts the last blocks: `adapter`, or what suits the start."""
        if self.adapter != "auto":
            return self.adapter
        return "none" if self.starts_in_closed_form or self.backbone.startswith("features:") else "clora"

    @property
    def num_adapted(self) -> int:
        """How many last blocks of the tower are adapted: none without an adapter."""
        return self.adapt_blocks if self.chosen_adapter != "none" else 0

    @property
    def num_epochs(self) -> int:
        """Passes over the training images: `epochs`, or what suits the start."""
        if self.epochs is not None:
            return self.epochs
        return 0 if self.starts_in_closed_form else 100

    @property
    def base_loss(self) -> str:
        """Name of the loss, HSWD beside it left out."""
        return self.loss.removesuffix(WITH_HSWD)

    @property
    def learning_rate(self) -> float:
        """Of SGD: `lr`, or what suits the start."""
        if self.lr is not None:
            return self.lr
        return 3e-5 if self.starts_in_closed_form else 0.01

    def learning_rate_in(self, epoch: int) -> float:
        """Of SGD in this epoch, 0 or more: `learning_rate`, divided by 10 for each of `lr_drops` that is past."""
        return self.learning_rate / 10 ** sum(epoch >= drop for drop in self.lr_drops)

    @property
    def normalises_bits(self) -> bool:
        """Whether the head has BatchNorm."""
        return self.batch_norm and not self.starts_in_closed_form

    @field_validator("lengths")
    @classmethod
    def _sorted(cls, lengths: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(set(lengths)))

    @field_validator("unnamed_kinds", mode="before")
    @classmethod
    def _number_or_auto(cls, kinds: Any) -> Any:
        if kinds == "auto" or (isinstance(kinds, int) and not isinstance(kinds, bool) and 0 <= kinds <= MAX_UNNAMED):
            return kinds
        raise ValueError(f"unnamed_kinds must be a whole number of 0 to {MAX_UNNAMED}, or auto, not {kinds!r}")

    @field_validator("shots", mode="before")
    @classmethod
    def _number_or_all(cls, shots: Any) -> Any:
        if shots in (None, "all") or (isinstance(shots, int) and not isinstance(shots, bool) and shots >= 0):
            return shots
        raise ValueError(f"shots must be a whole number of 0 or more, or all, not {shots!r}")

    @field_validator("output", "resume", "archive", "data_root", "split", "descriptions", "cache")
    @classmethod
    def _possible(cls, path: Path | None) -> Path | None:
        if path is not None and "\0" in str(path):
            raise ValueError(f"{str(path)!r} is no path: it holds a NUL")
        return path

    @model_validator(mode="after")
    def _together(self) -> Self:
        if not self.lengths or not all(1 <= b <= MAX_LENGTH for b in self.lengths):
            raise ValueError(f"lengths must be 1 to {MAX_LENGTH} bits each, at least one, not {list(self.lengths)}")
        if not all(earlier < later for earlier, later in pairwise((0, *self.lr_drops))):
            raise ValueError(f"lr_drops must be ascending numbers of epochs, 1 or more, not {list(self.lr_drops)}")
        if self.queries is not None and self.queries_per_class is not None:
            raise ValueError("queries and queries_per_class exclude each other: leave one out, or None")
        if self.backbone.startswith("features:") and (self.chosen_adapter != "none" or self.on_broken == "skip"):
            raise ValueError(f"{self.backbone} has nothing to adapt and no images: set adapter none, on_broken error")
        if self.anchors == "text" and self.backbone.startswith(("timm/", "features:")):
            raise ValueError(
                f"{self.backbone} has no text tower: set anchors to tiny, open_clip/MODEL:WEIGHTS, FILE.npy or "
                "orthonormal"
            )
        if self.normalises_bits and self.batch_size == 1:
            raise ValueError("batch_size 1 cannot be normalised over the batch: set 2 or more, or --no-batch-norm")
        if len(set(self.projections)) < len(self.projections):
            raise ValueError(f"projections has one twice: {','.join(self.projections)}")
        if not self.prompts or any("{}" not in prompt for prompt in self.prompts):
            raise ValueError(f"every one of prompts needs {{}} where the class name goes, not {list(self.prompts)}")
        for key, value in {"shots": self.labels_per_class, "epochs": self.num_epochs}.items():
            if not value and not (self.has_texts if key == "shots" else self.starts_in_closed_form):
                raise ValueError(f"{key} is 0, which needs a start from text: set head_init text, or {key} 1 or more")
        if self.head_init in ("text", "labels") and self.head != "nested":
            raise ValueError(f"head_init {self.head_init} needs head nested, not {self.head}: set head_init random")
        if self.gallery == "labelled" and not self.labels_per_class:
            raise ValueError("gallery labelled is empty at 0 shots: set shots 1 or more, or gallery all")
        if self.head_init == "text" and not (self.anchors == "text" or self.anchors.endswith(".npy")):
            raise ValueError(f"head_init text needs anchors in the features' space: anchors text, not {self.anchors}")
        if self.centres == "independent" and self.starts_in_closed_form:
            raise ValueError(
                "centres independent needs a random start: a closed form places the head at nested centres"
            )
        self._check_archive()
        if self.refuses_without_effect:
            check_loss(self.loss)
            find_plugin("heads", self.head)
            if reasons := inapplicable(self):
                raise ValueError(in_a_sentence(self, reasons))
        if self.backbone != "auto":
            check_name(self.backbone)
        if self.anchors not in ("text", "orthonormal") and not self.anchors.endswith(".npy"):
            _check_text_tower(self.anchors)
        return self

    def _check_archive(self) -> None:
        if self.data == "none":
            if self.archive is None or self.classes is None:
                missing = "an archive" if self.archive is None else "classes"
                raise ValueError(f"data none needs {missing}, such as --archive photos --classes dog,cat,car")
            if self.queries or self.queries_per_class or self.labels_per_class:
                raise ValueError("data none has no labelled images: leave out queries, queries_per_class and shots")
        if self.archive is not None and not self.starts_in_closed_form:
            raise ValueError("an archive is learned from by a start in closed form alone: set head_init text or labels")


class Base(Config):
    refuses_without_effect: ClassVar[bool] = False
    _own: frozenset[str] = PrivateAttr(frozenset())

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)

    @property
    def own(self) -> AbstractSet[str]:
        """Settings that a user's own file gives."""
        return self._own


Base.__doc__ = Config.__doc__  # which is the help of the command line, that makes one


_WITHOUT_EFFECT = dict.fromkeys(
    ("ridge", "text_weight", "unlabelled_weight"),
    "the start finds out by itself how far to trust names, labels and images without labels",
)
"""Settings of earlier versions, which files may still hold."""

FREE_ON_RESUME = {
    *("config", "resume", "epochs", "checkpoint_every", "tracker"),
    *("threads", "workers", "encode_batch_size", "cache", "cache_gb"),
}
"""Settings that may be given anew when a run goes on: they do not change what an epoch computes (but for rounding)."""


_IN_EVERY_RUN = {
    *("lengths", "data_root", "protocol_seed", "projections", "prompt_length", "adapter_init", "gamma", "momentum"),
    *("weight_decay", "tracker", "encode_batch_size", "cache_gb"),
}
"""A file with all of these is a run's, which holds every setting, also those without effect."""


def base_config(args: Sequence[str]) -> Base:
    """The settings that flags are put on top of: those of the file that --config (or --resume) among `args` names.

    What has no effect there may have one beside the flags: `with_flags` decides.

    Without either, those of the shipped default, which are for its data: with --data of another name no file's, nor
    with --archive, beside which the default is no labelled data at all.

    Raises:
        NestKALAError: what is wrong with the file.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config")
    parser.add_argument("--resume", type=Path)
    for flag in ("--data", "--archive", "--classes", "--shots"):
        parser.add_argument(flag)
    default = read_base(Config.model_fields["config"].default)
    try:
        found = parser.parse_known_args(args)[0]
    except argparse.ArgumentError:  # a flag without its value, which the full parser will tell
        return default
    if found.resume is None and found.config is None and found.archive is not None:
        data = {} if found.data is None else {"data": found.data}
        return Base(**{"data": "none", "archive": found.archive, "classes": found.classes} | data)
    if found.resume is None and found.config is None:
        return default if found.data in (None, default.data) else Base()
    if found.resume is None:
        return read_base(found.config, found.shots)
    if found.config is not None:
        raise NestKALAError("--resume goes on with the settings of its run: --config cannot be given beside it")
    if not (found.resume / "config.yaml").is_file():
        raise NestKALAError(f"--resume: {found.resume} is not a run folder, there is no config.yaml in it")
    return read_base(str(found.resume / "config.yaml"))


def with_flags(base: Base, parsed: Config, args: Sequence[str]) -> Config:
    """The settings of a base and flags.

    Args:
        base: what `base_config` gave.
        parsed: what the command line's parser made of it and `args`.
        args: flags, of which those that are there count as given.

    Raises:
        NestKALAError: a flag, or what the user's own file gives, has no effect. What a shipped file, or a run's, gives
            is left out then.
    """
    words = (re.match(r"--(?:no-)?([\w-]+)", word) for word in args)
    flags = Config.model_fields.keys() & {word[1].replace("-", "_") for word in words if word}
    flags |= {key for key, value in parsed if value != getattr(base, key)}
    values = {key: getattr(parsed, key) for key in flags | base.model_fields_set}
    if parsed.base_loss != base.base_loss and "loss_args" not in flags | base.own:
        values.pop("loss_args", None)  # which are of the base's loss
    return without_inapplicable(values, base.model_fields_set - base.own - flags)


def without_inapplicable(values: dict[str, Any], droppable: AbstractSet[str]) -> Config:
    """The settings with these values, less those droppable ones that have no effect beside the others.

    Raises:
        NestKALAError: impossible values, or one that has no effect and is not droppable.
    """
    while dropped := inapplicable(Base(**values)).keys() & droppable & values.keys():
        values = {key: value for key, value in values.items() if key not in dropped}
    return Config(**values)


def check_files(config: Config) -> None:
    """Raise NestKALAError for a file that the settings name and that is not there."""
    named = {"descriptions": config.descriptions}
    if config.resume is None:  # a resumed run has its own copy of the split
        named["split"] = config.split
    if config.anchors.endswith(".npy"):
        named["anchors"] = Path(config.anchors)
    for key, path in named.items():
        if path is not None and not path.is_file():
            raise NestKALAError(f"{key}: there is no file {path}")


def check_resumable(earlier: Config, config: Config) -> None:
    """Raise NestKALAError where a run is to be resumed with settings that change what it computes."""
    if config.resume is None:
        return
    compared = config.model_fields_set - FREE_ON_RESUME  # others are of their default, or have no effect
    for key in Config.model_fields:
        if key in compared and getattr(earlier, key) != getattr(config, key):
            raise NestKALAError(
                f"--resume goes on with {key} {getattr(earlier, key)}, not {getattr(config, key)}: "
                "train into another --output instead"
            )


def load_config(name: str, shots: int | str | None = None) -> Config:
    """Read a shipped config by name, or a YAML file by path; of a run's what has no effect is left out.

    Args:
        name: of the one, or path of the other.
        shots: at which a file with a section `by_shots` is read (`at_shots`), as a number or a word; None: at its own.

    Raises:
        NestKALAError: no such file or name, no YAML mapping, unknown keys, impossible values, one without effect, or no
            settings for so many shots.
    """
    base = read_base(name, shots)
    values = {key: getattr(base, key) for key in base.model_fields_set}
    try:
        return without_inapplicable(values, values.keys() - base.own)
    except NestKALAError as error:
        raise NestKALAError(f"{name}: {error}") from None


def read_base(name: str, shots: int | str | None = None) -> Base:
    """Read a file as `load_config` does, for others to be put on top: what has no effect is not refused yet.

    Raises:
        NestKALAError: as for `load_config`.
    """
    path, values = read_settings("config", name, "nestkala.configs")
    values = at_shots(path, values, int(shots) if isinstance(shots, str) and shots.isdecimal() else shots)
    in_file = [key for key in Config.model_fields if key not in ("config", "resume")]
    for key in [key for key in values if key in _WITHOUT_EFFECT]:
        logger.warning("%s: %s has no effect any more: %s", path, key, _WITHOUT_EFFECT[key])
        del values[key]
    for key in values:
        if key not in in_file:
            raise NestKALAError(f"{path}: unknown key '{key}'{nearest(str(key), in_file)}")
    try:
        base = Base(**values, config=name)
    except NestKALAError as error:
        raise NestKALAError(f"{path}: {error}") from None
    if path == Path(name) and not values.keys() >= _IN_EVERY_RUN:
        base._own = frozenset(values)
    return base


def dump_config(config: Config) -> str:
    """The settings as YAML, as `load_config` reads them; where they came from is left out."""
    values = config.model_dump(mode="json", exclude={"config", "resume"})
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _check_text_tower(anchors: str) -> None:
    if anchors != "tiny" and not anchors.startswith("open_clip/"):
        raise unknown_name("anchors", anchors, ["text", "tiny", "open_clip/MODEL:WEIGHTS", "FILE.npy", "orthonormal"])
    check_name(anchors)
