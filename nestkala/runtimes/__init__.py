"""Encode with libraries other than PyTorch, which run a model's exported tower."""
