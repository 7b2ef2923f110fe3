"""Deployment: networks as files of other runtimes, and what these files cost."""
