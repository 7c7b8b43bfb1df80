"""The settings of a run, by what they are about: a typed group each, which a part of the code takes for itself."""

from .data import DataSettings
from .group import Settings
from .head import HeadSettings
from .machine import MachineSettings
from .model import ModelSettings
from .output import OutputSettings
from .start import StartSettings
from .text import TextSettings
from .training import TrainingSettings

__all__ = [
    "GROUPS",
    "DataSettings",
    "HeadSettings",
    "MachineSettings",
    "ModelSettings",
    "OutputSettings",
    "Settings",
    "StartSettings",
    "TextSettings",
    "TrainingSettings",
]

GROUPS: dict[str, type[Settings]] = {
    "data": DataSettings,
    "model": ModelSettings,
    "text": TextSettings,
    "head": HeadSettings,
    "start": StartSettings,
    "training": TrainingSettings,
    "output": OutputSettings,
    "machine": MachineSettings,
}
"""By their names in YAML files, in the order of the help."""
