"""The steps of `train`, one concern per file; each step takes only what it needs."""
