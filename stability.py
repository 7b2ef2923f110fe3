"""Measure from which point on training is stable: `python stability.py --help`."""

import hydra
from omegaconf import DictConfig

from lottery import cli, studies

STUDY = studies.find("stability")


@hydra.main(version_base="1.3", config_path="conf", config_name="stability")
@STUDY.told_by
def main(config: DictConfig) -> float | tuple[float, ...]:
    """Dense -> two children from one of its states -> the error on the line between them."""
    return cli.job(config, STUDY)


if __name__ == "__main__":
    cli.launch(main, STUDY.schema)
