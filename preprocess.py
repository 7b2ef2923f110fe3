"""Turn images into uniform arrays or records, once: `python preprocess.py --help`."""

import hydra
from omegaconf import DictConfig

from lottery import cli
from lottery.preprocess import job


@hydra.main(version_base="1.3", config_path="conf", config_name="preprocess")
def main(config: DictConfig) -> None:
    """Find the images -> decode and resize them in shards -> arrays or TFRecords, a manifest."""
    cli.tool(job.main, config)


if __name__ == "__main__":
    job.register_schema()
    cli.launch(main, job.Options)
