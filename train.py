"""Train a dense network: `python train.py --help`."""

import hydra
from omegaconf import DictConfig

from lottery import cli


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(config: DictConfig) -> float:
    """Train, or find the result of having trained, the dense network of a config."""
    from lottery.experiment import dense_result  # here, because --help shall not wait for it

    if config.profile:
        return cli.profile(config)
    return cli.job(config, dense_result)


if __name__ == "__main__":
    cli.launch(main)
