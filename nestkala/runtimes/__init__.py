"""Encoding by other libraries than PyTorch: a model's tower is exported once, and they compute it."""
