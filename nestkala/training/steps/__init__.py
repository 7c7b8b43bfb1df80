"""The steps of `train`: each takes what it needs, and a file holds those of one concern."""
