"""Move a ticket to another data set: `python transfer.py --help`."""

import hydra
from omegaconf import DictConfig

from lottery import cli, studies

STUDY = studies.find("transfer")


@hydra.main(version_base="1.3", config_path="conf", config_name="transfer")
@STUDY.told_by
def main(config: DictConfig) -> float | tuple[float, ...]:
    """Ticket -> new head -> fine-tuned at a low rate; and the controls that a claim needs."""
    return cli.job(config, STUDY)


if __name__ == "__main__":
    cli.launch(main, STUDY.schema)
