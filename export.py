"""Export a ticket so that its sparsity pays: `python export.py --help`."""

import hydra
from omegaconf import DictConfig

from lottery import cli
from lottery.export import job


@hydra.main(version_base="1.3", config_path="conf", config_name="export")
def main(config: DictConfig) -> None:
    """Fold -> remove dead channels -> write files -> measure them, against dense if asked."""
    cli.tool(job.main, config)


if __name__ == "__main__":
    job.register_schema()
    cli.launch(main, job.Options, lists=("format", "precision"))
