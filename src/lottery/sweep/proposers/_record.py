"""What a search leaves behind, as plain JSON: its winner, and the cells that show it."""

from typing import Any

from lottery.sweep.proposers._evidence import Look, State
from lottery.sweep.proposers._rows import Network, Place
from lottery.sweep.proposers._search import Confirmation, Outcome


def of_network(network: Network, outcome: Outcome) -> dict[str, Any]:
    """The record of one network."""
    looks = outcome.standing.looks
    places = [(row.name, rung) for row in network.rows for rung in row.cells]
    looked = [place for place in places if place in looks]
    unknown = [place for place in looked if looks[place].state is State.UNKNOWN]
    return {
        "network": network.name,
        "rows": [row.name for row in network.rows],
        "percentiles": list(network.percentiles),
        "tolerance": network.tolerance,
        "level": network.level,
        "certified": outcome.certified,
        "winner": outcome.winner and _cell(network, outcome.winner, looks[outcome.winner]),
        "confirmation": outcome.confirmation and _confirmed(network, outcome.confirmation),
        "refuted": [_confirmed(network, refuted) for refuted in outcome.refuted],
        "certificate": [_cell(network, place, looks[place]) for place in _certificate(outcome)],
        "looked": [_cell(network, place, looks[place]) for place in looked],
        "never_needed": [_place(network, place) for place in places if place not in looks],
        "errors": [_place(network, place) for place in unknown],
        "fewer_seeds": [{"row": row, "percentile": p} for row, p in network.short],
        "controls": [list(control.overrides) for control in outcome.controls],
        "text": _text(network, outcome, len(unknown)),
    }


def _certificate(outcome: Outcome) -> list[Place]:
    """The winner, and of each row the failures at which it ends; none before the search has."""
    if not outcome.certified:
        return []
    found = [outcome.winner] if outcome.winner else []
    for row in outcome.standing.network.rows:
        known, reached = outcome.standing.known(row), outcome.standing.reached(row)
        failed = sorted(rung for rung, passed in known.items() if rung > reached and not passed)
        found += [(row.name, rung) for rung in failed[:2]]
    return found


def _text(network: Network, outcome: Outcome, unknown: int) -> str:
    """The record in words."""
    said = []
    for refuted in outcome.refuted:
        said.append(
            f"{_name(network, refuted.place)} passed, but fresh seeds do not confirm it "
            f"({_points(refuted.difference)})."
        )
    hidden = len(outcome.standing.hidden)
    if not outcome.certified and not hidden:
        said.append("The search has not ended.")
    elif not outcome.certified:
        found = "No cell passes" if outcome.winner is None else (
            f"{_name(network, outcome.winner)} passes")  # fmt: skip
        sparser = "1 cell that ended with an error" if hidden == 1 else (
            f"{hidden} cells that ended with errors")  # fmt: skip
        said.append(f"{found}, but {sparser} might be sparser tickets: no certificate.")
        said.append(_said(outcome) if outcome.winner else "")
    elif outcome.winner is None:
        said.append("No cell passes: in every row the densest fail.")
    else:
        said.append(
            f"{_name(network, outcome.winner)} is the sparsest that passes: in every row the next "
            "sparser cells fail, or the row has ended before, or there are none."
        )
        said.append(_said(outcome))
    if unknown:
        cells = "1 cell" if unknown == 1 else f"{unknown} cells"
        said.append(f"{cells} ended with errors: nothing is claimed of them, a rerun tries again.")
    if network.short:
        cells = "1 cell" if len(network.short) == 1 else f"{len(network.short)} cells"
        said.append(f"{cells} with fewer than {network.seeds} seeds cannot win.")
    return " ".join(filter(None, said))


def _said(outcome: Outcome) -> str:
    """Of the winner's confirmation."""
    if (found := outcome.confirmation) is None:
        return "No fresh seeds confirm it." if outcome.refuted else ""
    if found.passed is None:
        return "The seeds that would confirm it are missing."
    seeds = "1 fresh seed confirms" if len(found.seeds) == 1 else (
        f"{len(found.seeds)} fresh seeds confirm")  # fmt: skip
    return f"{seeds} it ({_points(found.difference)})."


def _points(difference: float | None) -> str:
    return f"{difference or 0.0:+.2f} points against dense"


def _name(network: Network, place: Place) -> str:
    return f"mask.percentile={network.percentiles[place[1]]:g} {place[0]}".strip()


def _place(network: Network, place: Place) -> dict[str, Any]:
    return {"row": place[0], "percentile": network.percentiles[place[1]]}


def _cell(network: Network, place: Place, look: Look) -> dict[str, Any]:
    return {
        **_place(network, place),
        "seeds": list(look.seeds),
        "state": str(look.state),
        "difference": look.difference,
    }


def _confirmed(network: Network, confirmation: Confirmation) -> dict[str, Any]:
    return {
        **_place(network, confirmation.place),
        "seeds": [cell.seed for cell in confirmation.cells],
        "finished": list(confirmation.seeds),
        "difference": confirmation.difference,
        "passed": confirmation.passed,
        "cells": [list(cell.overrides) for cell in confirmation.cells],
    }
