"""A training run from settings to run folder."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import filter_trackers
from accelerate.utils import DataLoaderConfiguration, InitProcessGroupKwargs, gather_object
from numpy.typing import NDArray
from tabulate import tabulate
from torch import Tensor

from ..backbones import Backbone, load_backbone
from ..codes import columns, pack, unpack
from ..data import FeatureDataset, ImageDataset, load_dataset, with_archive, without_broken
from ..data.class_names import names_in_doubt
from ..data.splits import Split, draw_split, load_split, save_split
from ..evaluation import Metrics
from ..evaluation.collapse import Collapse
from ..evaluation.copies import MEANING, CopyRecall, NearCopies, draw_originals, score_copies
from ..evaluation.features import chance_level, features_map
from ..evaluation.lengths import score_lengths
from ..losses import NestedLoss
from ..modeling.encoding import packed_codes
from ..modeling.model import HashModel
from ..modeling.saved_model import ModelSpec, save_model
from ..settings.config import Config, dump_config
from ..tokens.cache import TokenCache, default_folder
from ..tokens.shared import SharedTokenSource
from ..tokens.source import Images, TokenSource
from ..utils.errors import NestKALAError
from ..utils.files import write_text
from ..utils.machine import compute_threads, decoding_workers
from ..utils.processes import PATIENCE, ending_process_group, from_main_process
from ..utils.seeding import seeded
from .anchors import alike_in_words, class_anchors, text_centre
from .backbone_choice import suitable_backbone
from .closed_form import closed_form
from .history import history_as_json
from .launcher import check_launcher
from .model_spec import spec_of_run
from .objective import check_objective, make_loss
from .result import Result, save_result
from .run_folder import check_output, claim
from .trainer import Trainer, check_batch

logger = logging.getLogger(__name__)


@ending_process_group()
def train(config: Config, is_held: bool = False) -> Path:
    """Train, evaluate and leave a run folder: config.yaml, split.json, model.json, model.safetensors, metrics.json.

    Where there was anything to train on, also checkpoint.safetensors and history.json (`Epoch`).

    Call it in every process that the launcher started. The process group that it makes, it ends; for several runs in
    one process make the group first, by an `Accelerator`, and end it yourself.

    Args:
        config: its settings.
        is_held: whether the main process holds the run folder already (`run_folder.held`).

    Returns:
        The run folder.

    Raises:
        NestKALAError: whatever is wrong with settings, data, backbone or a loss that is not finite.
    """
    with ExitStack() as until_then:
        return _train(config, None if is_held else until_then)


def _train(config: Config, until_then: ExitStack | None) -> Path:
    """As `train`; the run folder is held until then, or, for None, by the caller."""
    torch.set_num_threads(compute_threads(config.threads))
    accelerator = _accelerator(config)
    check_output(config)
    main = accelerator.is_main_process

    result = Result()
    with accelerator.local_main_process_first():  # which may download
        dataset = load_dataset(config.data, config.data_root, config.classes)
    if config.on_broken == "skip" and len(dataset):
        dataset, result.broken_images = without_broken(dataset)
    if config.archive is not None:
        dataset = with_archive(dataset, config.archive)
    if config.backbone == "auto":
        name, reason = suitable_backbone(dataset)
        config = config.replaced(backbone=name)
        if main:
            print(f"backbone {name}: {reason}")
    _check_pair(config, dataset)
    split = _split(config, dataset)
    _check_queries(config, split)
    trains = config.trains and len(split.train) > 0
    if trains:
        check_batch(config, len(split.train), accelerator.num_processes)
    elif not config.starts_in_closed_form:
        raise NestKALAError(f"{config.data} has no labelled image to train on, which needs a start from text")

    with accelerator.local_main_process_first():  # likewise
        backbone = load_backbone(config.backbone, config.num_adapted)
        anchors = class_anchors(config, backbone, dataset.class_names)
        centre = text_centre(config, backbone) if config.has_texts else None
    spec = spec_of_run(config, backbone, dataset.class_names)
    with seeded(config.seed):
        model = spec.build(backbone.tower, anchors).to(accelerator.device)
    if config.precision == "fp64":
        model = model.double()

    targets = torch.from_numpy(dataset.targets[split.train]).to(model.dtype)
    if trains:
        check_objective(config, model.head, targets)

    # only now, so that a mistake in the settings leaves no folder behind
    folder = from_main_process(lambda: claim(config, until_then))
    checkpoint = folder / "checkpoint.safetensors"
    resumes = config.resume is not None and checkpoint.exists()
    if config.resume is not None and trains and not resumes and (folder / "model.safetensors").exists():
        raise NestKALAError(f"{folder} holds a trained model and no {checkpoint.name}: there is nothing to go on from")
    if main:
        if not resumes:
            write_text(folder / "config.yaml", dump_config(config))
            save_split(folder / "split.json", split, dataset)
        _announce(config, dataset, split, result, accelerator)
        for line in alike_in_words(anchors, dataset.class_names):
            print(line)
    accelerator.wait_for_everyone()
    if config.tracker != "none":
        _start_tracker(config, accelerator, folder)

    started = time.perf_counter()
    source = token_source(config, spec, backbone, dataset)
    shared = SharedTokenSource(source, accelerator)
    tokens = list(shared.batches(dataset, split.train.tolist(), "training images" if main else None))
    centres = None
    if config.starts_in_closed_form:
        broken: list[int] = []
        unlabelled = _unlabelled_batches(shared, dataset, split, config.unlabelled, broken, main)
        start = closed_form(model, unlabelled, tokens, targets, config, centre)
        spec = spec.with_unnamed(start.num_unnamed)
        result.unnamed_kinds = start.num_unnamed
        centres, result.leave_one_out_accuracy = start.class_codes, start.accuracy
        split = split.without(broken)
        result.broken_images += [dataset.names[index] for index in broken]
        if main and broken:
            print(_left_out([dataset.names[index] for index in broken], "of the archive"))
    result.seconds["tokens"] = time.perf_counter() - started

    result.seconds["train"] = 0.0
    learned: dict[int, np.ndarray] | None = None
    if trains:
        loss = make_loss(config, model.head, targets, centres)
        trainer = Trainer(config, accelerator, model, loss, torch.cat(tokens), targets, checkpoint)
        if resumes:
            trainer.resume()
            if main:  # only now, so that a damaged checkpoint leaves the run as it was
                write_text(folder / "config.yaml", dump_config(config))
        elif config.resume is not None and main:
            print("note: the run ended before its first checkpoint, and begins anew")
        trainer.fit()
        result.seconds["train"] = trainer.seconds
        if main:
            write_text(folder / "history.json", history_as_json(trainer.history) + "\n")
        learned = _learned_codes(trainer.loss, split)
        if learned:
            result.searched = "learned codes"
    if main:
        save_model(folder, spec, model.trained_state())

    started = time.perf_counter()

    def encoded(name: str, indices: np.ndarray, images: Images = dataset) -> np.ndarray:
        return _sharded_codes(accelerator, model, source, images, indices, f"encoding {name}" if main else None)

    train_codes, query_codes = encoded("training images", split.train), encoded("queries", split.query)
    gallery_codes = learned or encoded("gallery", split.gallery)
    scores: dict[int, Metrics] = {}
    if len(split.query):
        query_targets, gallery_targets = dataset.targets[split.query], dataset.targets[split.gallery]
        scores = score_lengths(
            model.head,
            query_codes,
            query_targets,
            gallery_codes,
            gallery_targets,
            config.top_k,
            device=accelerator.device,
            accelerator=accelerator,
        )
        result.chance = chance_level(query_targets, gallery_targets)
        if config.score_features:
            queries, gallery = (
                _shared(accelerator, part, lambda share: _frozen_features(source, model, dataset, share))
                for part in (split.query, split.gallery)
            )
            if main:
                features = torch.from_numpy(queries), torch.from_numpy(gallery)
                result.features_map = features_map(
                    features[0], query_targets, features[1], gallery_targets, config.top_k
                )
    copies: dict[int, CopyRecall] = {}
    originals = draw_originals(dataset, split.gallery, config.protocol_seed)
    if len(originals) and isinstance(gallery_codes, np.ndarray):
        copy_codes = encoded("near copies", split.gallery[originals], NearCopies(dataset))
        copies = score_copies(
            model.head, copy_codes, gallery_codes, originals, device=accelerator.device, accelerator=accelerator
        )
    if main:
        longest = config.lengths[-1]
        result.lengths = {str(bits): metrics.scores for bits, metrics in scores.items()}
        for bits, recall in copies.items():
            result.lengths.setdefault(str(bits), {}).update(recall.scores)
        result.queries, result.gallery = len(split.query), len(split.gallery)
        result.constant_bits = constant_bits(columns(train_codes, model.head.columns(longest)), longest)
        if isinstance(gallery_codes, np.ndarray):
            result.warnings = Collapse.of(columns(gallery_codes, model.head.columns(longest)), longest).warnings()
        result.seconds["evaluate"] = time.perf_counter() - started
        save_result(folder, result)
        print("\n".join([table(result), *remarks(result, config), f"run folder: {folder}"]))
    for tracker in accelerator.trackers:
        tracker.finish()
    return folder


def constant_bits(codes: np.ndarray, length: int) -> list[int]:
    """The bits, from 0, that are the same in all of these packed codes of `length` bits: they tell nothing apart.

    Of no codes none is.
    """
    signs = unpack(codes, length)
    return np.flatnonzero((signs == signs[0]).all(axis=0)).tolist() if len(codes) else []


def table(result: Result) -> str:
    """The scores by length as a Markdown table; all lengths come from the one training whose seconds it gives.

    A sentence says so where there were no queries to score with.
    """
    titles = {
        "map": "mAP",
        "map_tie_aware": "mAP tie-aware",
        "copy_recall_at_1": "copy@1",
        "copy_recall_at_10": "copy@10",
    }
    shown = {name: title for name, title in titles.items() if any(name in of for of in result.lengths.values())}
    unscored = [] if "map" in shown else ["no mAP: there are no queries (--queries N draws N of the labelled images)"]
    if not shown:
        return unscored[0]
    rows = [
        (bits, *(scores[name] for name in shown), result.seconds["train"]) for bits, scores in result.lengths.items()
    ]
    headers = ("bits", *shown.values(), "seconds")
    scores = tabulate(rows, headers, tablefmt="github", floatfmt=("", *(".4f" for _ in shown), ".1f"))
    return "\n".join([scores, *unscored])


def remarks(result: Result, config: Config) -> list[str]:
    """What a reader of the table should know."""
    seconds = result.seconds
    lines = [
        f"one model gives all lengths; seconds: {seconds['tokens']:.1f} tokens of the training images, "
        f"{seconds['train']:.1f} training, {seconds['evaluate']:.1f} encoding and evaluation"
    ]
    if any("copy_recall_at_1" in scores for scores in result.lengths.values()):
        lines.append(MEANING)
    if result.chance is not None:
        own = (
            f"; the backbone's own features reach {result.features_map:.4f}" if result.features_map is not None else ""
        )
        asked = "" if result.queries is None else f" ({result.queries:,} queries, {result.gallery:,} images searched)"
        lines.append(f"chance level of the mAP: {result.chance:.4f}{asked}{own}")
    if result.leave_one_out_accuracy is not None:
        known = "the class names and the other labels" if config.has_texts else "the other labels"
        share = f"{result.leave_one_out_accuracy:.2f}"
        lines.append(f"leave-one-out estimate: {known} give {share} of the labelled images their class")
    if result.unnamed_kinds:
        lines.append(
            f"note: the images show more kinds of things than were named: {result.unnamed_kinds} clusters without a "
            "name stand for the others (--unnamed-kinds 0 if every image is of a named class)"
        )
    if result.searched == "learned codes":
        lines.append(f"note: the gallery's codes are those that {config.loss} learned, the queries' are the network's")
    if dead := result.constant_bits:
        lines.append(
            f"warning: {len(dead)} of {config.lengths[-1]} bits are the same on all training images "
            f"(numbers {', '.join(map(str, dead))})"
        )
    return [*lines, *(f"{line} (gallery)" for line in result.warnings)]


def _accelerator(config: Config) -> Accelerator:
    if config.precision == "fp16" and not torch.cuda.is_available():
        raise NestKALAError("precision fp16 needs a GPU: use bf16 or fp32 here")
    check_launcher(config.precision)
    data_seed = config.seed * 2**20  # epochs are added to it: no two seeds share an order
    AcceleratorState._reset_state()  # or a second run in one process could not choose another precision
    accelerator = Accelerator(
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
        mixed_precision=config.precision if config.precision in ("bf16", "fp16") else "no",
        dataloader_config=DataLoaderConfiguration(split_batches=True, use_seedable_sampler=True, data_seed=data_seed),
    )
    if config.tracker != "none" and not filter_trackers(config.tracker, Path()):
        raise NestKALAError(f"tracker '{config.tracker}' is not installed: pip install {config.tracker}")
    return accelerator


def _start_tracker(config: Config, accelerator: Accelerator, folder: Path) -> None:
    accelerator.project_configuration.set_directories(str(folder))
    accelerator.log_with = filter_trackers(config.tracker, folder)
    try:
        accelerator.init_trackers("nestkala", config={key: str(value) for key, value in config})
    except Exception as error:  # each tracker has errors of its own
        raise NestKALAError(f"tracker '{config.tracker}' cannot start: {error}") from error


def _check_pair(config: Config, dataset: ImageDataset) -> None:
    if isinstance(dataset, FeatureDataset):
        width = dataset.features.shape[1]
        if config.backbone != f"features:{width}":
            raise NestKALAError(
                f"{config.data} holds features of width {width}: say --backbone features:{width}, not {config.backbone}"
            )
    elif config.backbone.startswith("features:"):
        raise NestKALAError(f"backbone {config.backbone} needs own features, and {config.data} holds images")


def _check_queries(config: Config, split: Split) -> None:
    asked = [f"{key} {getattr(config, key)}" for key in ("top_k", "score_features") if getattr(config, key)]
    if asked and not len(split.query):
        raise NestKALAError(f"{', '.join(asked)} cannot be: there are no queries to score with (--queries N draws N)")


def _split(config: Config, dataset: ImageDataset) -> Split:
    if config.resume is not None and (config.resume / "split.json").exists():  # else it was killed before
        split = load_split(config.resume / "split.json", dataset)
    elif config.split is not None:
        split = load_split(config.split, dataset)
    else:
        split = draw_split(
            dataset,
            shots=config.labels_per_class,
            seed=config.seed,
            queries_per_class=config.queries_per_class,
            queries=config.queries,
            train_pool=config.train_pool,
            protocol_seed=config.protocol_seed,
        )
    return split if config.gallery == "all" else replace(split, gallery=split.train)


def _learned_codes(loss: NestedLoss, split: Split) -> dict[int, np.ndarray] | None:
    """{length: packed codes} of the gallery, where all of it was trained on and the loss has codes to be searched."""
    if loss.database_codes is None or not np.isin(split.gallery, split.train).all():
        return None
    number = {index: place for place, index in enumerate(split.train.tolist())}
    places = [number[index] for index in split.gallery.tolist()]
    return {bits: pack(codes[places]) for bits, codes in loss.database_codes.items()}


def _announce(config: Config, dataset: ImageDataset, split: Split, result: Result, accelerator: Accelerator) -> None:
    data = "class names alone" if config.data == "none" else config.data
    print(
        f"{data}: {len(split.train)} training images of {len(dataset.class_names)} classes, "
        f"{len(split.query)} queries, {len(split.gallery)} in the gallery{_archive_in_words(config, split)}; "
        f"{accelerator.num_processes} process(es) on {accelerator.device.type}, {torch.get_num_threads()} threads each"
    )
    for line in dataset.notes:
        print(line)
    if config.has_texts and config.descriptions is None:
        for line in names_in_doubt([config.class_words.get(name, name) for name in dataset.class_names]):
            print(line)
    if config.backbone.endswith(":random"):
        print("note: the backbone has random weights: this shows that everything runs, not how well it hashes")
    if config.anchors == "orthonormal":
        print("note: the text anchors are random orthonormal directions, which say nothing of the classes")
    if result.broken_images:
        print(_left_out(result.broken_images, ""))
    _note_short_classes(config, dataset.targets[split.train].sum(axis=0))


def _archive_in_words(config: Config, split: Split) -> str:
    return "" if split.archive is None else f", {len(split.archive)} without labels in the archive {config.archive}"


def _left_out(broken: Sequence[str], where: str) -> str:
    return f"warning: left out {len(broken)} unreadable images {where}".rstrip() + f", first {broken[0]!r}"


def _note_short_classes(config: Config, counts: np.ndarray) -> None:
    shots = config.labels_per_class
    if config.split is not None or not shots:
        return
    wanted, why = (1, "") if shots == "all" else (shots, ", by shared labels" if config.archive is None else "")
    if short := int((counts < wanted).sum()):
        print(f"note: {short} of {len(counts)} classes have fewer than {wanted} training images{why}")


def _unlabelled_batches(
    source: TokenSource, dataset: ImageDataset, split: Split, most: int, broken: list[int], show: bool
) -> Iterator[Tensor]:
    """Tokens of the images whose labels are not looked at; those of an archive that cannot be read go to `broken`."""
    chosen = np.setdiff1d(split.unlabelled[:most], split.train).tolist()
    label = "images without labels" if show else None
    yield from source.batches(dataset, chosen, label, broken=None if split.archive is None else broken)
    if chosen and len(broken) == len(chosen):
        first = dataset.names[broken[0]]
        raise NestKALAError(f"none of the {len(broken)} images of the archive can be read, the first is {first!r}")


def token_source(config: Config, spec: ModelSpec, backbone: Backbone, dataset: ImageDataset) -> TokenSource:
    """Where a run takes the tokens of its images from, with the cache that the settings ask for."""
    cache = None  # own features are as quickly read as cached ones
    if config.cache_gb > 0 and not isinstance(dataset, FeatureDataset):
        on = f"{backbone.tower.device.type} by {config.encode_batch_size}"
        kind = f"version 1: {spec.fingerprint} {config.precision} last {spec.num_adapted} blocks on {on}"
        cache = TokenCache(config.cache or default_folder(), kind, config.cache_gb * 1e9)
    workers = decoding_workers(config.workers)
    return TokenSource(backbone, config.precision, config.encode_batch_size, workers, cache)


@torch.no_grad()
def _frozen_features(
    source: TokenSource, model: HashModel, dataset: ImageDataset, indices: Sequence[int]
) -> NDArray[np.floating]:
    """What the backbone gives without its adapter, (n, d)."""
    batches = source.batches(dataset, indices)
    features = [model.tower.tail(tokens.to(source.device, model.dtype)).cpu() for tokens in batches]
    return torch.cat([torch.empty(0, model.tower.feature_dim, dtype=model.dtype), *features]).numpy()


def _sharded_codes(
    accelerator: Accelerator,
    model: HashModel,
    source: TokenSource,
    images: Images,
    indices: np.ndarray,
    progress: str | None,
) -> np.ndarray:
    """Packed codes of the images named, each process having encoded its share."""
    return _shared(accelerator, indices, lambda share: packed_codes(model, source, images, share, progress))


def _shared(
    accelerator: Accelerator, indices: np.ndarray, compute: Callable[[Sequence[int]], np.ndarray]
) -> np.ndarray:
    """The rows of all images named, in that order, each process having computed those of its share."""
    share: Sequence[int] = np.array_split(indices, accelerator.num_processes)[accelerator.process_index].tolist()
    shares: list[Any] = gather_object([compute(share)])
    return np.concatenate(shares)
