"""Adapters: what a few labels may change in a frozen backbone."""

from .clora import CLoRA
from .contract import Adapter
from .lora import LoRA
from .prompts import Prompts

__all__ = ["Adapter", "CLoRA", "LoRA", "Prompts"]
