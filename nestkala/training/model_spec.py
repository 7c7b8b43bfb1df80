"""The model that a run trains."""

from ..backbones import Backbone
from ..modeling.saved_model import ModelSpec
from ..settings.config import Config
from ..settings.groups import TextSettings
from .objective import loss_class


def spec_of_run(config: Config, backbone: Backbone, class_names: tuple[str, ...]) -> ModelSpec:
    """The model that a run with these settings trains."""
    shared = {key: getattr(config, key) for key in ModelSpec.model_fields if key in Config.model_fields}
    adaptable = tuple(name for name in config.projections if name in backbone.tower.projections)
    given = {
        "backbone": backbone.name,
        "fingerprint": backbone.fingerprint,
        "projections": adaptable or backbone.tower.projections,
        "class_names": class_names,
        "text_tower": _text_tower(config, backbone),
        "has_text_codes": (config.has_texts and config.starts_in_closed_form)
        or (config.trains and loss_class(config).uses_anchors),
        "class_layer": config.starts_in_closed_form,
        "batch_norm": config.normalizes_bits,
        "adapter": config.chosen_adapter,
    }
    return ModelSpec(**(shared | given))


def _text_tower(settings: TextSettings, backbone: Backbone) -> str | None:
    if not settings.has_text_tower:
        return None
    return backbone.name if settings.anchors == "text" else settings.anchors
