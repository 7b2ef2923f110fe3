"""Find a winning ticket: `python prune.py --help`."""

import hydra
from omegaconf import DictConfig

from lottery import cli, studies

STUDY = studies.find("prune")


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
@STUDY.told_by
def main(config: DictConfig) -> float | tuple[float, ...]:
    """Dense -> mask -> rewind -> retrain -> verdict, each step at most once."""
    return cli.job(config, STUDY)


if __name__ == "__main__":
    cli.launch(main, STUDY.schema)
