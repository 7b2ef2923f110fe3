"""Sweeps as values: progressions and the checks before submission. Hydra's plugins are shells."""
