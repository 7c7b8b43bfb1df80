"""Which settings have an effect beside the others: what is given and has none is refused, not ignored."""

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
"""Values that say that something is not done, which is true where it could not be done."""


def inapplicable(config: "Config") -> dict[str, str]:
    """{setting: why it has no effect} of those that were given and have none beside the others.

    None and "auto" leave it to the others, and count as not given.
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
    """What `inapplicable` gave, for an error; settings that have the same reason are told together."""
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
    """Settings that have no effect beside the others, given or not, and why."""
    if config.split is not None:
        yield {"shots", "queries", "queries_per_class", "train_pool"}, "split says which images there are"
    if config.labels_per_class == 0:
        yield _TRAINING | {"train_pool"}, "nothing is trained without labeled images"
    if not config.trains:
        start = "a start in closed form is not trained unless epochs says so"
        yield _TRAINING, f"nothing is trained: set epochs 1 or more ({start}), or head_init random"
    yield from _of_adapters(config)
    yield from _of_losses(config)
    if len(config.lengths) == 1:
        yield {"weighting", "distillation"}, "of several lengths alone, and there is one"
    yield from _of_starts(config)
    yield from _of_texts(config)
    if config.data != "cifar10" and not config.data.startswith("torchvision:"):
        yield {"data_root"}, f"of data cifar10 and torchvision:NAME alone, and the data is {config.data}"
    if config.data == "none" or config.queries == 0:
        yield {"top_k", "score_features"}, "there are no queries to score with"


def _of_adapters(config: "Config") -> Iterator[tuple[set[str], str]]:
    adapter = config.chosen_adapter
    for key, adapters in _ADAPTERS_WITH.items():
        if adapter not in adapters:
            yield {key}, f"of adapter {' or '.join(adapters)} alone, and the adapter is {adapter}"
    if config.backbone.partition(":")[0] == "photo":
        yield {"projections"}, "backbone photo has no attention, and its last convolution is adapted"


def _of_losses(config: "Config") -> Iterator[tuple[set[str], str]]:
    loss = config.base_loss
    if loss != "kiddo":
        yield set(KIDDO_WEIGHTS), f"of loss kiddo alone, and the loss is {loss}, whose arguments loss_args sets"
    elif doubled := [key for key in KIDDO_WEIGHTS if key in config.loss_args]:
        yield {"loss_args"}, f"kiddo's {', '.join(doubled)} has a flag of that name, --{doubled[0]}"
    if loss in OWN["losses"] and loss not in LOSSES_WITH_CENTERS:
        yield {"centers"}, f"loss {loss} has no hash centers; {', '.join(LOSSES_WITH_CENTERS)} have"


def _of_starts(config: "Config") -> Iterator[tuple[set[str], str]]:
    if config.starts_in_closed_form:
        yield {"batch_norm"}, "of a random start alone, and a start in closed form has centered and scaled bits"
    else:
        yield (
            {"class_bits", "unlabeled", "unnamed_kinds"},
            "of a start in closed form alone: set head_init text or labels",
        )


def _of_texts(config: "Config") -> Iterator[tuple[set[str], str]]:
    if not config.has_text_tower:
        yield (
            {"prompts", "class_words", "descriptions"},
            f"of a text tower alone, and anchors {config.anchors} need none",
        )
    if config.descriptions is not None:
        yield {"prompts", "class_words"}, "descriptions take their place"
    loss_asks = config.base_loss in LOSSES_WITH_ANCHORS or config.base_loss not in OWN["losses"]
    if not (config.has_texts or (config.trains and (loss_asks or config.chosen_adapter == "clora"))):
        yield {"prompts", "class_words", "descriptions"}, "neither start, adapter nor loss takes text anchors"
