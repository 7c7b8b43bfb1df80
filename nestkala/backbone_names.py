"""Names of backbones, "library/model:weights", checked without loading anything heavy."""

import json
from importlib.util import find_spec
from pathlib import Path

from .utils.errors import NestKALAError, nearest, unknown_name

_LIBRARIES = ("open_clip", "timm")
_ALONE = ("tiny", "photo", "features")
_NON_STANDARD_IMAGE = ("timm_model_name", "attentional_pool", "patch_dropout", "block_type", "qk_norm")
_NON_STANDARD_TEXT = ("hf_model_name", "hf_tokenizer_name")


def split_name(name: str) -> tuple[str, str, str | None]:
    """ "library/model:weights" -> its parts; "tiny", "photo" and "features" (whose weights are a width) stand alone.

    The model is "MODEL/TAG" where a file of open_clip is named together with the tag that it holds the weights of.

    Raises:
        NestKALAError: a name of another form or of an unknown library.
    """
    model, colon, weights = name.partition(":")
    library, slash, model = model.partition("/")
    if library in _ALONE and not slash:
        return library, "", weights if colon else None
    if library not in _LIBRARIES or not model or (colon and not weights):
        raise NestKALAError(
            f"unknown backbone '{name}'{nearest(library, [*_LIBRARIES, *_ALONE])} "
            "(known: tiny, photo, open_clip/MODEL:WEIGHTS, open_clip/MODEL/TAG:FILE, timm/MODEL, timm/MODEL:WEIGHTS, "
            "features:WIDTH)"
        )
    return library, model, weights if colon else None


def check_name(name: str) -> None:
    """Raise NestKALAError where the name cannot be right, as far as can be told without importing its library."""
    library, model, weights = split_name(name)
    if library == "tiny" and weights not in (None, "random"):
        raise unknown_name("weights of tiny", weights or "", ["random"])
    if library == "photo" and weights not in (None, "lite2"):
        raise unknown_name("weights of photo", weights or "", ["lite2"])
    if library == "features" and not ((weights or "").isdecimal() and int(weights or 0) > 0):
        raise NestKALAError(f"backbone '{name}' needs the features' width: say features:512")
    if library != "open_clip":
        return
    known = open_clip_models()
    model, slash, tag = model.partition("/")
    if model not in known:
        raise unknown_name("open_clip ViT", model, known)
    if slash and (not tag or weights in (None, "random")):
        raise NestKALAError(f"'{name}' names no file of the tag's weights: say open_clip/{model}/{tag or 'TAG'}:FILE")
    if weights is None:
        raise NestKALAError(f"'{name}' names no weights: say '{name}:TAG', such as open_clip/ViT-B-32-quickgelu:openai")


def open_clip_models() -> list[str]:
    """The installed open_clip's models whose image and text towers are its own standard transformers."""
    spec = find_spec("open_clip")
    if spec is None or not spec.submodule_search_locations:
        raise NestKALAError("open_clip is not installed: pip install open_clip_torch")
    names = []
    for path in Path(spec.submodule_search_locations[0], "model_configs").glob("*.json"):
        model = json.loads(path.read_text(encoding="utf-8"))
        image, text = model["vision_cfg"], model.get("text_cfg", {})
        if (
            isinstance(image.get("layers"), int)
            and "multimodal_cfg" not in model
            and not any(image.get(key) for key in _NON_STANDARD_IMAGE)
            and not any(text.get(key) for key in _NON_STANDARD_TEXT)
        ):
            names.append(path.stem)
    return sorted(names)
