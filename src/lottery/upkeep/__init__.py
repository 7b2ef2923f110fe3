"""Looking after a run store: what is in it, who asked for it, what may go, what is damaged.

All of it is safe beside running jobs, on any number of machines. ``store.py`` at the root of the
repository is a thin script over :mod:`lottery.upkeep.job`.
"""
