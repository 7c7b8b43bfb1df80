"""Adapters: what a few labels may change in a frozen backbone."""

from .clora import CLoRA

__all__ = ["CLoRA"]
