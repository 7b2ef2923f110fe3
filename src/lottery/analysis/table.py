"""The tables at the end of a job, and how one that is wider than the terminal is shown."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from lottery.analysis import layers, price
from lottery.quiet import discard_output
from lottery.verdict.single import at_chance

_UNLIMITED = 100_000  # columns


class _Terminal(Console):
    """One whose reader may leave before the end; Rich would exit."""

    def on_broken_pipe(self) -> None:
        discard_output()


def terminal(**options: Any) -> Console:
    """The console for what people read: brackets and colons in names and paths are only that."""
    return _Terminal(soft_wrap=True, highlight=False, markup=False, emoji=False, **options)


def show(result: Mapping[str, Any], path: Path, console: Console | None = None) -> None:
    """Print what a job found, and where ``result.json`` is.

    That is dense against ticket with the verdict, or dense alone.
    """
    console = console or terminal()
    console.print(_table(result))
    if of_kernels := _of_kernels(result.get("mask")):
        console.print(of_kernels, style="dim")
    if by_layer := layers.sentence(result.get("mask")):
        console.print(by_layer, style="dim")
    if "ticket" in result and (priced := price.sentence(result["dense"], result["ticket"])):
        console.print(priced, style="dim")
    for line in _trained_on(result):
        console.print(line)
    if "ticket" in result:
        console.print(_verdict(result))
    console.print(f"result: {path}")


def show_transfer(result: Mapping[str, Any], path: Path, console: Console | None = None) -> None:
    """Print a transfer with its controls, and where ``result.json`` is."""
    console = console or terminal()
    show_whole(_transfer(result), console)
    for line in seen(result):
        console.print(line, markup=False)
    for run in (r for r in result["runs"] if "missing" in r):
        console.print(f"{run['title']}: {run['missing']}")
    console.print(f"result: {path}")


def show_whole(table: Table, console: Console) -> None:
    """Print a table as wide as it needs to be; Rich would empty columns that do not fit."""
    needed = Measurement.get(console, console.options.update(width=_UNLIMITED), table).maximum
    before = console.width
    console.width = max(before, needed)
    console.print(table)
    console.width = before


STAGES = {
    "read": "encoded images, one thread",
    "decode": "the same to uint8 pixels, one thread",
    "pipeline": "up to a batch in memory, as in training",
    "copy": "a batch to the device",
    "augment": "crop, flip, normalise, on the device",
    "step": "the compiled step, augmentation included",
}


def show_profile(profile: Mapping[str, Any], path: Path, console: Console | None = None) -> None:
    """Print what :func:`lottery.training.profile.measure` found, and where it is written."""
    console = console or terminal()
    title = f"{profile['model']} on {profile['data']}, batches of {profile['batch_size']}"
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=title)
    table.add_column("", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("ms a step", justify="right", no_wrap=True)
    table.add_column("images/s", justify="right", no_wrap=True)
    table.add_row("training", "on one cached batch", *_rates(profile["cached"]))
    table.add_row("", "on its real input", *_rates(profile["real"]), end_section=True)
    for name, rates in profile["stages"].items():
        table.add_row(name, STAGES[name], *_rates(rates))
    console.print(table)
    console.print(profile["verdict"], style="bold")
    console.print(f"trace: tensorboard --logdir {profile['trace']}")
    console.print(f"result: {path}")


def _rates(rates: Mapping[str, float]) -> tuple[str, str]:
    return f"{1000 * rates['seconds']:.2f}", f"{rates['images_per_second']:,.0f}"


def _table(result: Mapping[str, Any]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=accuracies(_classes(result)))
    table.add_column("", no_wrap=True)
    for title in ("validation", "test", "weights", "density", "time"):
        table.add_column(title, justify="right", no_wrap=True)
    mask = result.get("mask")
    kept = {"dense": "all"}
    density = {"dense": 1.0}
    if mask:
        kept = {"dense": f"{mask['prunable']:,}", "ticket": f"{mask['kept']:,}"}
        density["ticket"] = mask["density"]
    for name in ("dense", "ticket"):
        if name in result:
            run = result[name]
            table.add_row(
                name,
                _accuracy(run, "val", _classes(result)),
                _accuracy(run, "test", _classes(result)),
                kept[name],
                f"{100 * density[name]:.2f} %",
                clock(run["seconds"]),
            )
    return table


def _transfer(result: Mapping[str, Any]) -> Table:
    """The moved ticket, and below a rule the controls."""
    about = result["ticket"]
    classes = len(result["data"]["classes"])
    title = (
        f"{about['network']} from {about['data']} to {_named(result['data'])}\n"
        f"{accuracies(classes)}"
    )
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=0, title=title)
    table.add_column("", no_wrap=True)
    for name in ("validation", "test", "density", "epochs", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    for run in result["runs"]:
        first = run["name"] == "ticket"
        if "missing" in run:
            table.add_row(run["title"], "not run", *[""] * 4)
            continue
        table.add_row(
            run["title"],
            _accuracy(run, "val", classes),
            _accuracy(run, "test", classes),
            f"{100 * run['density']:.1f} %",
            str(run["epochs"]),
            clock(run["seconds"]),
            end_section=first and len(result["runs"]) > 1,
        )
    return table


def seen(result: Mapping[str, Any]) -> Iterator[str]:
    """What a transfer's accuracies are worth: held-out images that the ticket has seen before."""
    for entry in result.get("seen", ()):
        if "unknown" in entry:
            yield f"not known: whether images were seen with {entry['data']} ({entry['unknown']})"
        elif entry["told"]:
            yield f"seen by the ticket before, with {entry['data']}: {entry['told']}"


def _trained_on(result: Mapping[str, Any]) -> Iterator[str]:
    """What there is to say of the devices, where their number or an inexact replay changes more
    than rounding: a stored result may come from elsewhere."""
    runs = {name: result[name] for name in ("dense", "ticket") if name in result}
    for name, run in runs.items():
        if "mixed" in run:
            yield f"{name}: {run['mixed']}"
        elif run.get("replicas", 1) > 1 and run.get("per_replica"):
            yield (
                f"{name}: trained on {run['replicas']} devices, and {run['per_replica']} depends "
                "on their number"
            )
        if run.get("replayed", "exactly") != "exactly":
            yield (
                f"{name}: comes from a state that is not exactly one of the dense run: "
                f"{run['replayed']}"
            )


def _named(data: Mapping[str, Any]) -> str:
    classes = data["classes"]
    listed = " ".join(classes)
    few = len(listed) <= 20
    return f"{data['name']}, classes {listed}" if few else f"{data['name']}, {len(classes)} classes"


def accuracies(classes: int | None) -> str:
    """What a table says of its accuracies. Top-5 of five classes is always 100 %: not shown."""
    return "top-1 / top-5 in percent" if shows_top5(classes) else "top-1 in percent"


def shows_top5(classes: int | None) -> bool:
    """Whether top-5 says anything about a network of so many classes; None: not known."""
    return classes is None or classes > 5


def _classes(result: Mapping[str, Any]) -> int | None:
    classes: int | None = result["dense"].get("classes")
    return classes


def _accuracy(run: Mapping[str, Any], split: str, classes: int | None) -> str:
    first, fifth = (f"{100 * run[f'{split}_{name}']:.2f}" for name in ("top1", "top5"))
    return f"{first} / {fifth}" if shows_top5(classes) else first


def _of_kernels(mask: Mapping[str, Any] | None) -> str | None:
    """What the density comes to where not every kernel could be pruned."""
    share = (mask or {}).get("density_of_kernels")
    if mask is None or share is None or share == mask["density"]:
        return None
    return (
        f"{100 * mask['density']:.2f} % of the weights that could be pruned are left; of those of "
        f"all kernels {100 * share:.2f} %"
    )


def _verdict(result: Mapping[str, Any]) -> Text:
    loss = 100 * (result["dense"]["val_top1"] - result["ticket"]["val_top1"])
    change = f"{abs(loss):.2f} points {'below' if loss > 0 else 'above'}" if loss else "level with"
    if at_chance(result["dense"]):
        return Text.assemble(("not matched", "bold yellow"), f": {result['doubt']}")
    certain = result["matched"] and not result.get("doubt")
    word = "matched" if result["matched"] else "not matched"
    doubt = f", but {result['doubt']}" if result.get("doubt") else ""
    return Text.assemble(
        (word + doubt, "bold green" if certain else "bold yellow"),
        f": validation top-1 is {change} dense (tolerance {result['tolerance']:g}).{_sure(result)}",
    )


def _sure(result: Mapping[str, Any]) -> str:
    """What one seed and these validation images can tell."""
    low, high = result["interval"]
    sure = f"{100 * (1 - 2 * (result['level'] or 0.05)):g} %"
    text = f" One seed: its true difference lies between {low:+.2f} and {high:+.2f} points ({sure})"
    if result["shown"] is None:
        return text
    if high < -result["tolerance"]:
        return f"{text}, so it loses more"
    ruled = "ruled out" if result["shown"] else "not ruled out"
    return f"{text}, so a larger loss is {ruled}"


def clock(seconds: float) -> str:
    """``1:30`` or ``2:01:30``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
