"""Train a dense network: `python train.py --help`."""

import hydra
from omegaconf import DictConfig

from lottery import cli, studies

STUDY = studies.find("train")


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
@STUDY.told_by
def main(config: DictConfig) -> float | tuple[float, ...]:
    """Train, or find the result of having trained, the dense network of a config."""
    if config.profile:
        return cli.profile(config, STUDY)
    return cli.job(config, STUDY)


if __name__ == "__main__":
    cli.launch(main, STUDY.schema)
