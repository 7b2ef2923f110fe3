"""A network as a graph, and smaller networks that compute the same: for export and for training.

What disappears for inference is in :mod:`lottery.compaction.inference`, what disappears for
training in :mod:`lottery.compaction.severed`.
"""
