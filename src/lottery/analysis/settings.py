"""What to say of the devices that the cells of a study were trained on."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lottery.training.setting import Setting, mixture

if TYPE_CHECKING:
    from lottery.analysis.collect import Cell


def notes(cells: Sequence["Cell"]) -> Iterator[str]:
    """Sentences about results that differ by more than what the study varies."""
    runs = [run for cell in cells for run in (cell.dense, cell.ticket) if run]
    if text := mixture(s for s in map(Setting.of, runs) if s is not None):
        yield f"networks of this study were {text}"
    resumed = {str(run["key"]) for run in runs if "mixed" in run}
    if resumed and not text:
        yield f"networks whose own training went on with another number of devices: {len(resumed)}"
    reasons = {cell.name: str((cell.ticket or {}).get("replayed", "exactly")) for cell in cells}
    names = [name for name, reason in reasons.items() if reason != "exactly"]
    if names:
        yield (
            f"{len(names)} tickets come from a state that is not exactly one of their dense "
            f"network ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''}): it was not "
            f"kept, and {reasons[names[0]]}"
        )
