"""A training run, from settings to run folder."""

import time
from contextlib import ExitStack
from pathlib import Path

import torch

from ..data.splits import save_split
from ..modeling.saved_model import save_model
from ..settings.config import Config
from ..settings.loading import dump_config
from ..tokens.shared import SharedTokenSource
from ..utils.files import write_text
from ..utils.processes import ending_process_group, from_main_process
from .metrics_file import save_metrics
from .model_spec import spec_of_run
from .objective import check_objective
from .run_folder import check_output, claim, has_checkpoint
from .steps.announcement import announce
from .steps.fitting import fit, learned_codes
from .steps.images import check_training, choose_backbone, choose_split, load_images
from .steps.model import find_start, load_towers, new_model
from .steps.processes import join_processes, start_tracker
from .steps.scoring import score
from .steps.summary import remarks, table
from .steps.tokens import token_source
from .steps.trained_model import TrainedModel


@ending_process_group()
def train(config: Config, is_held: bool = False) -> Path:
    """Train, evaluate and write a run folder: config.yaml, split.json, model.json, model.safetensors, metrics.json.

    If there is anything to train on, also checkpoint.safetensors and history.json (`Epoch`).

    Call it in every process that the launcher started. It destroys the process group that it creates; for several runs
    in one process create the group first, with an `Accelerator`, and destroy it yourself.

    Args:
        config: settings of the run.
        is_held: whether the main process already holds the run folder (`run_folder.held`).

    Returns:
        The run folder.

    Raises:
        NestKALAError: if settings, data or backbone are invalid, or the loss is not finite.
    """
    with ExitStack() as until_then:
        return _train(config, None if is_held else until_then)


def _train(config: Config, until_then: ExitStack | None) -> Path:
    """Like `train`; the run folder is held until `until_then` ends or, if it is None, by the caller."""
    accelerator = join_processes(config)
    check_output(config)
    main = accelerator.is_main_process

    dataset, unreadable = load_images(config, accelerator)
    config = choose_backbone(config, dataset, show=main)
    split = choose_split(config, dataset)
    trains = check_training(config, len(split.train), accelerator.num_processes)
    backbone, anchors, center = load_towers(config, dataset.class_names, accelerator)
    spec = spec_of_run(config, backbone, dataset.class_names)
    model = new_model(config, spec, backbone, anchors, accelerator.device)
    targets = torch.from_numpy(dataset.targets[split.train]).to(model.dtype)
    if trains:
        check_objective(config, model.head, targets)
    source = token_source(config, spec, backbone, dataset)

    # only now, so that a mistake in the settings leaves no folder behind
    folder = from_main_process(lambda: claim(config, until_then))
    resumes = has_checkpoint(config, folder, trains)
    if main:
        if not resumes:
            write_text(folder / "config.yaml", dump_config(config))
            save_split(folder / "split.json", split, dataset)
        announce(config, dataset, split, anchors, unreadable, accelerator)
    accelerator.wait_for_everyone()
    start_tracker(config, accelerator, folder)

    started = time.perf_counter()
    shared = SharedTokenSource(source, accelerator)
    tokens = list(shared.batches(dataset, split.train.tolist(), "training images" if main else None))
    start, broken = find_start(config, model, shared, dataset, split, tokens, targets, center, show=main)
    if start is not None:
        start.apply(model)
        spec = spec.with_unnamed(start.num_unnamed)
    split = split.without(broken)
    seconds = {"tokens": time.perf_counter() - started, "train": 0.0}

    learned = None
    if trains:
        centers = None if start is None else start.class_codes
        trainer = fit(config, accelerator, model, torch.cat(tokens), targets, centers, folder, resumes)
        learned, seconds["train"] = learned_codes(trainer.loss, split), trainer.seconds
    if main:
        save_model(folder, spec, model.trained_state())

    started = time.perf_counter()
    metrics = score(config, TrainedModel(accelerator, model, source), dataset, split, learned)
    metrics.seconds = seconds | {"evaluate": time.perf_counter() - started}
    metrics.broken_images = [*unreadable, *(dataset.names[index] for index in broken)]
    if start is not None:
        metrics.leave_one_out_accuracy, metrics.unnamed_kinds = start.accuracy, start.num_unnamed
    if main:
        save_metrics(folder, metrics)
        print("\n".join([table(metrics), *remarks(metrics, config), f"run folder: {folder}"]))
    for tracker in accelerator.trackers:
        tracker.finish()
    return folder
