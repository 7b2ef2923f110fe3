"""Look after a run store: `python store.py --help`."""

import hydra
from omegaconf import DictConfig

from lottery import cli
from lottery.upkeep import job


@hydra.main(version_base="1.3", config_path="conf", config_name="store")
def main(config: DictConfig) -> None:
    """List, show, remove, collect, verify, export or import."""
    cli.tool(job.main, config)


if __name__ == "__main__":
    job.register_schema()
    cli.launch(main, job.Options, words=job.WORDS)
