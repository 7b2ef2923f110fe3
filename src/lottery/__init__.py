"""Winning tickets in TensorFlow and Keras: train, prune, rewind, retrain, judge."""

from lottery.runs import Run, load_run

__all__ = ["Run", "load_run"]
