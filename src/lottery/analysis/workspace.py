"""A W&B workspace for a study's runs, built in code: no clicking, the same for everybody."""

import json
from pathlib import Path
from typing import Any

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from wandb_workspaces import expr

from lottery import files
from lottery.analysis.collect import Study
from lottery.errors import LotteryError


def write(study: Study, folder: Path, project: str, entity: str | None) -> Path:
    """Write the workspace as W&B takes it to ``wandb_workspace.json``; returns the path."""
    built = build(study, project, entity or "")
    # The library has no public way to its JSON; this is what its save() sends.
    spec = json.loads(built._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))
    path = folder / "wandb_workspace.json"
    files.write_json(path, spec)
    return path


def send(study: Study, project: str, entity: str | None) -> str:
    """Create the workspace in W&B; returns its address.

    Without an ``entity`` it is the account's own. Raises :class:`LotteryError` if there is no
    account, no network, or W&B refuses.
    """
    import wandb

    try:
        entity = entity or wandb.Api().default_entity
        return str(build(study, project, entity or "").save().url)
    except Exception as error:  # W&B has a class for each, not all public
        reason = str(error).splitlines()[0] if str(error) else repr(error)
        raise LotteryError(
            f"the report is written, but W&B did not take the workspace: {reason}"
        ) from error


def build(study: Study, project: str, entity: str) -> ws.Workspace:
    """Accuracy against density, learning curves, GPU utilisation, throughput and input wait."""
    top1, density = wr.SummaryMetric("val_top1"), wr.SummaryMetric("mask_density")
    outcome = [
        wr.ScatterPlot(title="Validation top-1 against density", x=density, y=top1, log_x=True),
        _over_epochs("Validation top-1", "val_top1"),
        _over_epochs("Training loss", "loss"),
    ]
    machine = [
        _over_epochs("GPU utilisation", "gpu_utilisation"),
        _over_epochs("GPU memory, GiB", "gpu_memory_gib"),
        _over_epochs("Throughput, images per second", "images_per_second"),
        _over_epochs("Share of time waiting for input", "input_wait"),
    ]
    keys = {r["key"] for c in study.cells for r in (c.dense, c.ticket) if r and "key" in r}
    # Runs are found by their keys: what an earlier sweep computed is in that sweep's group.
    mine = [expr.Metric("ID").isin(sorted(keys))] if keys else []
    return ws.Workspace(
        entity=entity,
        project=project,
        name=f"lottery {study.name}",
        sections=[
            ws.Section(name="Tickets", panels=outcome, is_open=True),
            ws.Section(name="Machines", panels=machine, is_open=True),
        ],
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=100),
        runset_settings=ws.RunsetSettings(
            filters=mine,
            pinned_columns=["summary:val_top1", "summary:mask_density", "config:rewind.epoch"],
        ),
    )


def _over_epochs(title: str, metric: str) -> Any:
    return wr.LinePlot(title=title, x="epoch", y=[metric], max_runs_to_show=100)
