"""Adapters: the parts of a frozen backbone that a few labels may change."""

from .clora import CLoRA
from .contract import Adapter
from .lora import LoRA
from .prompts import Prompts

__all__ = ["Adapter", "CLoRA", "LoRA", "Prompts"]
