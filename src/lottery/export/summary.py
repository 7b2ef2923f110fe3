"""What export.py says in the terminal."""

from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from lottery.analysis.latencies import RUNTIMES
from lottery.analysis.table import show_whole, shows_top5, terminal


def show_export(about: Mapping[str, Any], path: Path, console: Console | None = None) -> None:
    """Print the files with their sizes and accuracies, and what compaction did."""
    console = console or terminal()
    shown = ("test top-1", "top-5")[: 2 if shows_top5(about["ticket"]["classes"]) else 1]
    table = _table(_ticket(about["ticket"]), "", "size", "gzip", *shown)
    reference = _accuracy(about["ticket_accuracy"])[: len(shown)]
    table.add_row("the ticket in Keras", "", "", *reference, end_section=True)
    for file in about["files"].values():
        sizes = _bytes(file["bytes"]), _bytes(file["gzip"])
        accuracy = _accuracy(file["accuracy"])[: len(shown)]
        table.add_row(Path(file["path"]).name, *sizes, *accuracy)
    show_whole(table, console)
    console.print(_compaction(about))
    console.print(f"result: {path}")


def integers(about: Mapping[str, Any]) -> Iterator[str]:
    """Which files take or give integers, in words: who reads them as numbers would be wrong."""
    for file in about["files"].values():
        takes, gives = file.get("takes"), file.get("gives")
        if takes is None or "scale" not in gives:
            continue
        yield (
            f"{file['path']} takes {takes['type']} and gives {gives['type']}, not float32: a logit "
            f"is {gives['scale']:.4g} x (value - {gives['zero_point']}), and an input value q "
            f"stands for {takes['scale']:.4g} x (q - {takes['zero_point']})"
        )


def show_benchmark(measured: Mapping[str, Any], path: Path, console: Console | None = None) -> None:
    """Print dense against ticket, and the theoretical and the measured speed-ups in words."""
    console = console or terminal()
    dense, ticket = (measured["models"][name] for name in ("dense", "ticket"))
    about = measured["ticket"]
    table = _table(f"dense against {_ticket(about)}", "", "dense", "ticket", "")
    counts = {
        "parameters": "parameters",
        "nonzero_parameters": "parameters that are not zero",
        "multiply_adds": "multiply-adds, zeros too",
        "surviving_multiply_adds": "multiply-adds without zeros",
    }
    for key, title in counts.items():
        _row(table, title, dense[key], ticket[key], text="{:,}", last=key.startswith("surviving"))
    for name, file in ticket["files"].items():
        other = dense["files"][name]
        for kind, suffix in (("bytes", ""), ("gzip", ", gzip")):
            title = f"file {_named(name)}{suffix}"
            last = kind == "gzip" and name == list(ticket["files"])[-1]
            table.add_row(
                title, _bytes(other[kind]), _bytes(file[kind]),
                _ratio(other[kind], file[kind]), end_section=last,
            )  # fmt: skip
    for name, accuracy in ticket["accuracy"].items():
        other = dense["accuracy"].get(name)
        table.add_row(
            f"test top-1 {_named(name)}", _percent(other), _percent(accuracy), "",
            end_section=name == list(ticket["accuracy"])[-1],
        )  # fmt: skip
    for _, entries in groupby(measured["latency"], key=lambda entry: entry["runtime"]):
        own = list(entries)
        for entry in own:
            table.add_row(
                _condition(entry), _milliseconds(entry["dense"]), _milliseconds(entry["ticket"]),
                f"{entry['speedup']:.2f}x", end_section=entry is own[-1],
            )  # fmt: skip
    for name, peaks in measured["memory"].items():
        if all(peaks.values()):
            both = peaks["dense"] / 1e6, peaks["ticket"] / 1e6
            _row(table, f"peak memory {_named(name)}, MB", *both, text="{:.1f}")
    show_whole(table, console)
    console.print("latency in ms, median and quartiles; dense and ticket took turns in one run")
    for sentence in conclusion(measured):
        console.print(sentence)
    console.print(f"result: {path}")


def conclusion(measured: Mapping[str, Any]) -> list[str]:
    """The theoretical and the measured speed-ups in plain words."""
    dense, ticket = (measured["models"][name] for name in ("dense", "ticket"))
    theory = dense["multiply_adds"] / max(1, ticket["surviving_multiply_adds"])
    smaller = dense["multiply_adds"] / ticket["multiply_adds"]
    sentences = [
        f"In theory: {theory:.1f}x, if no zero were multiplied. "
        f"Channels that are gone make the network {smaller:.2f}x smaller in multiply-adds."
    ]
    told = [
        f"{e['speedup']:.2f}x in {_where(e)}" for e in measured["latency"]
        if e["batch"] == 1 and e["threads"] == 1
    ]  # fmt: skip
    if told:
        sentences.append(f"Measured, one image on one thread: {', '.join(told)}.")
    found = measured["browser"]
    if "missing" in found:
        sentences.append(f"No browser was measured: {found['missing']}.")
    else:
        largest = found["largest_difference"]
        told = [f"{value:.1g} ({name})" for name, value in largest.items()]
        sentences.append(f"The browser's outputs differ from Keras's by at most {', '.join(told)}.")
    return sentences


def _where(entry: Mapping[str, Any]) -> str:
    place = {
        "litert": "LiteRT on this CPU", "keras": "Keras on this CPU", "browser": "WebAssembly",
    }[entry["runtime"]]  # fmt: skip
    return place if entry["precision"] == "float32" else f"{place} ({entry['precision']})"


def _condition(entry: Mapping[str, Any]) -> str:
    threads = f"{entry['threads']} thread{'s' * (entry['threads'] > 1)}"
    kind = RUNTIMES[entry["runtime"]]
    return f"{kind} {entry['precision']} batch {entry['batch']}, {threads}"


def _milliseconds(found: Mapping[str, float]) -> str:
    digits = next(
        d for d, below in ((3, 1), (2, 10), (1, 100), (0, np.inf)) if found["median_ms"] < below
    )
    middle, low, high = (f"{found[k]:.{digits}f}" for k in ("median_ms", "low_ms", "high_ms"))
    return f"{middle} ({low}-{high})"


def _ticket(about: Mapping[str, Any]) -> str:
    return f"{about['network']} with {100 * about['density']:.3g} % of its weights"


def _compaction(about: Mapping[str, Any]) -> str:
    before, after = (sum(c[i] for c in about["channels"].values()) for i in (0, 1))
    share = 100 * (before - after) / before
    removed = f"{share:.0f} % of the channels are gone" if before > after else "no channel is gone"
    return (
        f"{removed}; outputs differ by at most {about['largest_difference']:.1g} from the ticket's"
    )


def _named(name: str) -> str:
    return name.replace("litert-", "LiteRT ").replace("savedmodel", "SavedModel")


def _row(
    table: Table, title: str, dense: float, ticket: float, *, text: str, last: bool = False
) -> None:
    cells = text.format(dense), text.format(ticket), _ratio(dense, ticket)
    table.add_row(title, *cells, end_section=last)


def _ratio(dense: float, ticket: float) -> str:
    return f"{dense / ticket:.2f}x" if ticket else ""


def _accuracy(found: Mapping[str, float] | None) -> tuple[str, str]:
    if found is None:
        return "", ""
    return f"{100 * found['test_top1']:.2f} %", f"{100 * found['test_top5']:.2f} %"


def _percent(found: Mapping[str, float] | None) -> str:
    return _accuracy(found)[0]


def _bytes(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def _table(title: str, *columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=0, title=title)
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    return table
