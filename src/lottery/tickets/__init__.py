"""Tickets that travel: what a sparse network is, apart from the store that it was found in.

>>> ticket = load_ticket("outputs/prune/2026-01-01_12-00-00-000000/ticket.safetensors")
>>> network = ticket.model()
"""

from lottery.tickets.file import read, write
from lottery.tickets.locate import FILE, asked_for, load_ticket
from lottery.tickets.ticket import Network, Ticket, check_fit, of_run

__all__ = [
    "FILE",
    "Network",
    "Ticket",
    "asked_for",
    "check_fit",
    "load_ticket",
    "of_run",
    "read",
    "write",
]
