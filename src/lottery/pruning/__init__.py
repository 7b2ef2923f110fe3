"""Scores, allocation and masks. Knows nothing of training."""
