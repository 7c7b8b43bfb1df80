"""Which settings have an effect given the others: a setting without effect is an error, not ignored."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..plugins import OWN
from .groups import TrainingSettings

if TYPE_CHECKING:
    from .config import Config

KIDDO_WEIGHTS = ("alpha", "beta", "gamma")
LOSSES_WITH_CENTERS = ("csq", "dpn", "mdsh", "orthohash-arc", "orthohash-cos")
LOSSES_WITH_ANCHORS = ("kiddo",)
_TRAINING = TrainingSettings.model_fields.keys() | {"adapter", "checkpoint_every", "tracker"}
_ADAPTERS_WITH = {
    "adapt_blocks": ("clora", "lora", "prompts", "biases", "full"),
    "projections": ("clora", "lora"),
    "rank": ("clora", "lora"),
    "adapter_scale": ("clora", "lora"),
    "adapter_init": ("clora",),
    "prompt_length": ("prompts",),
}
_OFF: dict[str, tuple[Any, ...]] = {
    "adapter": ("none",),
    "batch_norm": (False,),
    "distillation": (0,),
    "epochs": (0,),
    "class_words": ({},),
    "loss_args": ({},),
    "lr_drops": ((),),
    "max_grad_norm": (0,),
    "score_features": (False,),
    "tracker": ("none",),
    "unnamed_kinds": (0,),
    "weighting": ("uniform",),
}
"""Values that turn something off, which is allowed even if it could not be on."""


def inapplicable(config: "Config") -> dict[str, str]:
    """{setting: why it has no effect} for the settings that were given but have no effect given the others.

    None and "auto" leave the choice to the other settings, and count as not given.
    """
    given = {
        key
        for key in config.model_fields_set
        if (value := getattr(config, key)) not in (None, "auto") and value not in _OFF.get(key, ())
    }
    reasons: dict[str, str] = {}
    for keys, reason in _without_effect(config):
        for key in sorted(given & keys):
            reasons.setdefault(key, reason)
    return reasons


def in_a_sentence(config: "Config", reasons: dict[str, str]) -> str:
    """Format the result of `inapplicable` for an error; settings with the same reason are grouped."""
    together: dict[str, list[str]] = {}
    for key, reason in reasons.items():
        value = getattr(config, key)
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        together.setdefault(reason, []).append(f"{key} {text}")
    return "; ".join(
        f"{', '.join(told)} {'has' if len(told) == 1 else 'have'} no effect: {reason}"
        for reason, told in together.items()
    )


def _without_effect(config: "Config") -> Iterator[tuple[set[str], str]]:
    """Settings that have no effect given the others, whether given or not, and why."""
    if config.split is not None:
        yield {"shots", "queries", "queries_per_class", "train_pool"}, "split already selects the images"
    if config.labels_per_class == 0:
        yield _TRAINING | {"train_pool"}, "without labeled images there is no training"
    if not config.trains:
        start = "a closed-form start is trained only if epochs is set"
        yield _TRAINING, f"there is no training: set epochs to 1 or more ({start}), or head_init to random"
    yield from _of_adapters(config)
    yield from _of_losses(config)
    if len(config.lengths) == 1:
        yield {"weighting", "distillation"}, "only for several lengths, but there is one"
    yield from _of_starts(config)
    yield from _of_texts(config)
    if config.data != "cifar10" and not config.data.startswith("torchvision:"):
        yield {"data_root"}, f"only for data cifar10 and torchvision:NAME, but the data is {config.data}"
    if config.data == "none" or config.queries == 0:
        yield {"top_k", "score_features"}, "there are no queries"


def _of_adapters(config: "Config") -> Iterator[tuple[set[str], str]]:
    adapter = config.chosen_adapter
    for key, adapters in _ADAPTERS_WITH.items():
        if adapter not in adapters:
            yield {key}, f"only for adapter {' or '.join(adapters)}, but the adapter is {adapter}"
    if config.backbone.partition(":")[0] == "photo":
        yield {"projections"}, "backbone photo has no attention; its last convolution is adapted"


def _of_losses(config: "Config") -> Iterator[tuple[set[str], str]]:
    loss = config.base_loss
    if loss != "kiddo":
        yield set(KIDDO_WEIGHTS), f"only for loss kiddo, but the loss is {loss}: use loss_args for its arguments"
    elif doubled := [key for key in KIDDO_WEIGHTS if key in config.loss_args]:
        yield {"loss_args"}, f"kiddo's {', '.join(doubled)} is set by its own flag, --{doubled[0]}"
    if loss in OWN["losses"] and loss not in LOSSES_WITH_CENTERS:
        yield {"centers"}, f"loss {loss} has no hash centers; {', '.join(LOSSES_WITH_CENTERS)} have"


def _of_starts(config: "Config") -> Iterator[tuple[set[str], str]]:
    if config.starts_in_closed_form:
        yield {"batch_norm"}, "only for a random start; a closed-form start has centered and scaled bits"
    else:
        yield (
            {"class_bits", "unlabeled", "unnamed_kinds"},
            "only for a closed-form start: set head_init to text or labels",
        )


def _of_texts(config: "Config") -> Iterator[tuple[set[str], str]]:
    if not config.has_text_tower:
        yield (
            {"prompts", "class_words", "descriptions"},
            f"only for a text tower, but anchors {config.anchors} do not use one",
        )
    if config.descriptions is not None:
        yield {"prompts", "class_words"}, "descriptions replace them"
    loss_asks = config.base_loss in LOSSES_WITH_ANCHORS or config.base_loss not in OWN["losses"]
    if not (config.has_texts or (config.trains and (loss_asks or config.chosen_adapter == "clora"))):
        yield (
            {"prompts", "class_words", "descriptions"},
            "neither the start, the adapter nor the loss uses text anchors",
        )
