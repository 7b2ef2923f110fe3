"""Report on a sweep, finished or not: `python report.py --help`."""

import hydra
from omegaconf import DictConfig

from lottery import cli
from lottery.analysis import report, report_options


@hydra.main(version_base="1.3", config_path="conf", config_name="report")
def main(config: DictConfig) -> None:
    """Collect -> judge on validation -> tables, pictures, page, winning_ticket.json."""
    cli.tool(report.main, config)


if __name__ == "__main__":
    report_options.register_schema()
    cli.launch(main, report_options.Options, lists=("table", "table.columns"))
