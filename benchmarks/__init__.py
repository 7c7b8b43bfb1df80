"""Benchmarks against plain baselines: python -m benchmarks."""
