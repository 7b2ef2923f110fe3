"""What store.py prints."""

import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from lottery.analysis.table import show_whole, terminal
from lottery.store import Store
from lottery.upkeep.collection import Collected, grouped
from lottery.upkeep.inventory import Entry, Inventory, size
from lottery.upkeep.listing import Details, Row
from lottery.upkeep.removal import Removal
from lottery.upkeep.transport import Moved
from lottery.upkeep.users import users
from lottery.upkeep.verification import Checked

_SHORT = 8  # digits of a key in a table
_FEW = 6  # lines of a kind that are printed before the rest is counted


def show_rows(rows: Sequence[Row], console: Console | None = None) -> None:
    """A line a training.

    On a terminal, what all commands have in common is told once, and the rest cut to what is left
    of the line.
    """
    console = console or terminal()
    cells = [_cells(row) for row in rows]
    commands, common = [row.command for row in rows], ""
    if console.is_terminal:
        commands, common = _shortened(commands)
    commands = [command.removeprefix(_PYTHON) for command in commands]
    if console.is_terminal:
        taken = [max(map(len, column)) for column in zip(_COLUMNS, *cells, strict=True)]
        width = max(console.width - sum(taken) - _GAP * (len(taken) + 1), _SHORTEST)
        commands = [c if len(c) <= width else f"{c[: width - 1]}…" for c in commands]
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in _COLUMNS:
        numeric = name in ("pruned", "rewound", "seed", "val top-1", "size", "asked")
        table.add_column(name, justify="right" if numeric else "left", no_wrap=True)
    table.add_column("command", no_wrap=True)
    for row, command in zip(cells, commands, strict=True):
        table.add_row(*row, command)
    show_whole(table, console)
    if common:
        console.print(f"… stands for {common}", style="dim")


_COLUMNS = (
    "key", "what", "network", "data", "pruned", "rewound", "seed", "val top-1", "size", "asked",
    "when",
)  # fmt: skip
_PYTHON = "python "  # what a command for the shell begins with, and a call from Python does not
_GAP = 3  # characters between columns
_SHORTEST = 24  # that a command is cut to


def _cells(row: Row) -> list[str]:
    return [
        row.entry.key[:_SHORT],
        row.what,
        row.network,
        row.data,
        "" if row.pruned is None else f"{row.pruned:.4g} %",
        row.rewound,
        "" if row.seed is None else str(row.seed),
        "" if row.accuracy is None else f"{100 * row.accuracy:.2f}",
        sized(row.bytes),
        str(len({(request.host, request.output) for request in row.asked}) or ""),
        _local(row.finished),
    ]


def _shortened(commands: Sequence[str]) -> tuple[list[str], str]:
    """Commands with … for the words that all have in common, and those words.

    Calls from Python, which are no words of a shell, stay as they are.
    """
    words = [shlex.split(command) for command in commands if command.startswith(_PYTHON)]
    if len(words) < 2:
        return list(commands), ""
    shared = [word for word in words[0][2:] if all(word in others for others in words)]
    if not shared:
        return list(commands), ""
    found = []
    for command in commands:
        if not command.startswith(_PYTHON):
            found.append(command)
            continue
        python, script, *own = shlex.split(command)
        rest = [word for word in own if word not in shared]
        found.append(shlex.join([python, script, *rest]) + " …")
    return found, shlex.join(shared)


def show_totals(store: Store, rows: Sequence[Row], console: Console | None = None) -> None:
    """How much that is, of how much, and who is at work."""
    console = console or terminal()
    own = size(*(row.entry.path for row in rows))
    runs = f"{len(rows)} run{'s' * (len(rows) != 1)}"
    console.print(f"{runs}, {sized(own)}; the whole store: {sized(size(store.root))}")
    if works := list((store.root / "work").glob("*")):
        begun = f"{len(works)} node{'s' * (len(works) != 1)}"
        console.print(f"{begun} begun and not finished: {sized(size(*works))}")
    for user in users(store):
        if user.command:
            console.print(f"at work: {user}")


def show_details(store: Store, found: Details, console: Console | None = None) -> None:
    """All that is known of a node."""
    console = console or terminal()
    entry, row = found.entry, found.row
    console.print(f"{entry.name}  {entry.path}", style="bold")
    if row is not None:
        said = [row.network, row.data]
        said += [f"{row.pruned:.4g} % pruned"] if row.pruned is not None else []
        said += [f"rewound to {row.rewound}"] if row.rewound else []
        said += [f"seed {row.seed}"] if row.seed is not None else []
        said += [f"validation top-1 {100 * row.accuracy:.2f}"] if row.accuracy is not None else []
        console.print(f"  {row.what}: {', '.join(said)}")
    console.print(f"  finished {_local(entry.finished)}")
    for request in found.asked:
        imported = f", on {request.host}, before it was imported" if request.imported else ""
        gone = "" if imported or Path(request.output).exists() else " (no longer there)"
        console.print(f"  asked for by {request.user}, {_local(request.time)}{imported}:")
        console.print(f"    {request.command}")
        console.print(f"    {request.output}{gone}")
    if not found.asked:
        console.print("  asked for by no command, or before that was recorded")
    _names("comes from", [*found.parents, *(f"{key} (not here)" for key in found.gone)], console)
    _names("what comes from it", [child.name for child in found.children], console)
    at_work = users(store)
    inventory = Inventory.of(store)
    for user in at_work:
        if entry.key in inventory.ancestors(user.needs):
            console.print(f"  needed now by {user}")
    console.print(f"  {sized(sum(found.parts.values()))} in all")
    for part, count in found.parts.items():
        console.print(f"    {sized(count):>9}  {part}")


def show_removal(found: Removal, done: bool, console: Console | None = None) -> None:
    """What goes, and what depends on it."""
    console = console or terminal()
    verb = "removed" if done else "would remove"
    for entry in found.named:
        console.print(f"{verb} {_named(entry, done)}")
    if depending := [entry for entry in found.entries if entry not in found.named]:
        names = [_named(entry, done) for entry in reversed(depending)]
        them = "them" if found.named[1:] else "it"
        console.print(f"and {len(names)} that depend{'s' * (len(names) == 1)} on {them}:")
        for name in names:
            console.print(f"  {name}")
    if found.staying:
        console.print("these come from it and stay, for they hold all that they need:")
        for entry in found.staying:
            console.print(f"  {entry.name}")
    outputs = [r.output for r in found.asked if Path(r.output).exists()]
    if outputs:
        console.print("output folders that tell of them stay as they are:")
        _few([f"  {output}" for output in outputs], console)
    if found.open and not done:
        console.print("commands that have not finished will have to compute them again:")
        _few([f"  {request.command}" for request in found.open], console)
    if done:
        console.print(f"{sized(found.bytes)} are free again")
    else:
        console.print(f"{sized(found.bytes)} in all. Nothing was removed: add yes=true")


def show_collected(found: Collected, done: bool, console: Console | None = None) -> None:
    """What can go or is gone, by what it belongs to, and the sizes before and after."""
    console = console or terminal()
    kind_before = ""
    for (kind, of), items in grouped(found.items).items():
        if kind != kind_before:
            total = sum(item.bytes for item in found.items if item.kind == kind)
            console.print(f"{kind}, {sized(total)}", style="bold")
            kind_before = kind
        reasons = list(dict.fromkeys(item.why for item in items))
        more = f" and {len(reasons) - _FEW} more" if len(reasons) > _FEW else ""
        why = "; ".join(reasons[:_FEW]) + more
        console.print(f"  {sized(sum(i.bytes for i in items)):>9}  {of}: {why}")
    if found.unreadable:
        console.print(
            f"no states were looked at, for what {' and '.join(found.unreadable)} came from cannot "
            "be read: store.py verify"
        )
    before, after = sized(found.before), sized(found.after)
    if not found.items:
        console.print(f"there is nothing to remove; the store has {before}")
    elif done:
        console.print(f"the store had {before}, and has {after}")
    else:
        console.print(
            f"the store has {before}, and would have {after}. Nothing was removed: add yes=true"
        )


def show_checked(found: Sequence[Checked], console: Console | None = None) -> None:
    """What was checked, what is damaged, and what could not be checked."""
    console = console or terminal()
    for node in found:
        for line in node.damage:
            console.print(f"{node.name}: {line}", style="bold")
    count, total = sum(node.files for node in found), sum(node.bytes for node in found)
    console.print(f"checked {len(found):,} nodes: {count:,} files, {sized(total)}")
    if given_up := sum(node.given_up for node in found):
        console.print(f"without {given_up:,} states that were collected since")
    if older := [node for node in found if node.unchecked]:
        left = sum(len(node.unchecked) for node in older)
        console.print(
            f"{left:,} files of {len(older):,} nodes have no checksum: those nodes were written "
            "before that was recorded"
        )
    if not any(node.damage for node in found):
        console.print("nothing is damaged")


def show_moved(found: Moved, to: str, console: Console | None = None) -> None:
    """What was added, and what was not."""
    console = console or terminal()
    console.print(f"{len(found.added)} nodes, {sized(found.bytes)}, added to {to}")
    if found.there:
        console.print(f"{len(found.there)} were there already")
    if found.busy:
        console.print("left out, because a process computes them at the moment:")
        _few([f"  {name}" for name in found.busy], console)


def sized(count: int) -> str:
    """Bytes for people."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count} bytes"


def _named(entry: Entry, done: bool) -> str:
    return entry.name if done else f"{entry.name}, {sized(entry.bytes)}"


def _names(title: str, names: Sequence[str], console: Console) -> None:
    if names:
        console.print(f"  {title}:")
        for name in names:
            console.print(f"    {name}")


def _few(lines: Sequence[str], console: Console) -> None:
    for line in lines[:_FEW]:
        console.print(line)
    if len(lines) > _FEW:
        console.print(f"  and {len(lines) - _FEW} more")


def _local(stamp: str) -> str:
    """A time in UTC as the clock on the wall shows it."""
    try:
        return datetime.fromisoformat(stamp).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return stamp
