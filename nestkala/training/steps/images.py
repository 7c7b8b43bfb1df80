"""The images of a run, and their train/query/gallery split."""

from dataclasses import replace

from accelerate import Accelerator

from ...data import FeatureDataset, ImageDataset, load_dataset, with_archive, without_broken
from ...data.splits import Split, draw_split, load_split
from ...settings.config import Config
from ...settings.groups import DataSettings
from ...utils.errors import NestKALAError
from ..backbone_choice import suitable_backbone
from ..trainer import check_batch


def load_images(settings: DataSettings, accelerator: Accelerator) -> tuple[ImageDataset, list[str]]:
    """The data set with its archive, and the names of unreadable images that were skipped."""
    with accelerator.local_main_process_first():  # which may download
        dataset = load_dataset(settings.data, settings.data_root, settings.classes)
    broken: list[str] = []
    if settings.on_broken == "skip" and len(dataset):
        dataset, broken = without_broken(dataset)
    if settings.archive is not None:
        dataset = with_archive(dataset, settings.archive)
    return dataset, broken


def choose_backbone(config: Config, dataset: ImageDataset, show: bool) -> Config:
    """The settings with a backbone for the data; prints the choice if the settings name none.

    Raises:
        NestKALAError: if features do not have the backbone's width, or a feature backbone is given images.
    """
    if config.backbone == "auto":
        name, reason = suitable_backbone(dataset)
        config = config.replaced(backbone=name)
        if show:
            print(f"backbone {name}: {reason}")
    if isinstance(dataset, FeatureDataset):
        width = dataset.features.shape[1]
        if config.backbone != f"features:{width}":
            raise NestKALAError(
                f"{config.data} holds features of width {width}: use --backbone features:{width}, not {config.backbone}"
            )
    elif config.backbone.startswith("features:"):
        raise NestKALAError(f"backbone {config.backbone} needs features, but {config.data} holds images")
    return config


def choose_split(config: Config, dataset: ImageDataset) -> Split:
    """The split: drawn, given, or that of the resumed run.

    Raises:
        NestKALAError: if it is invalid, or settings of scores are given without queries.
    """
    if config.resume is not None and (config.resume / "split.json").exists():  # otherwise it was killed earlier
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
    asked = [f"{key} {getattr(config, key)}" for key in ("top_k", "score_features") if getattr(config, key)]
    if asked and not len(split.query):
        raise NestKALAError(f"{', '.join(asked)} cannot be used: there are no queries (--queries N draws N)")
    return split if config.gallery == "all" else replace(split, gallery=split.train)


def check_training(config: Config, num_images: int, processes: int) -> bool:
    """Whether there is any training with this many labeled images.

    Raises:
        NestKALAError: if they are too few for the settings.
    """
    if config.trains and num_images:
        check_batch(config, num_images, processes)
        return True
    if not config.starts_in_closed_form:
        raise NestKALAError(f"{config.data} has no labeled images: training without labels needs a start from text")
    return False
