"""Move a ticket to another data set: `python transfer.py --help`."""

import hydra
from omegaconf import DictConfig

from lottery import cli
from lottery.config import TransferConfig


@hydra.main(version_base="1.3", config_path="conf", config_name="transfer")
def main(config: DictConfig) -> float:
    """Ticket -> new head -> fine-tuned at a low rate; and the controls that a claim needs."""
    from lottery.transfer import transfer  # here, because --help shall not wait for it

    return cli.job(config, transfer)


if __name__ == "__main__":
    cli.launch(main, TransferConfig)
