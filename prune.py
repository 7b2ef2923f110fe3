"""Find a winning ticket: `python prune.py --help`."""

import hydra
from omegaconf import DictConfig

from lottery import cli


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> float:
    """Dense -> mask -> rewind -> retrain -> verdict, each step at most once."""
    from lottery.experiment import find_ticket  # here, because --help shall not wait for it

    return cli.job(config, find_ticket)


if __name__ == "__main__":
    cli.launch(main)
