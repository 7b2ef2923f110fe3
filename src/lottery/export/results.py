"""What export.py leaves as ``benchmark.json``. Imports no TensorFlow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lottery import fields
from lottery.results import Record


@dataclass(frozen=True)
class Benchmark(Record):
    """A ticket against its dense twin: see :func:`lottery.export.benchmark.measure`.

    ``ticket`` is its summary. ``models`` has the counts of both by ``dense`` and ``ticket``;
    ``latency`` a :class:`lottery.export.latency.Comparison` an entry, in milliseconds a call;
    ``memory`` the peaks of both by file, in bytes. ``browser`` says why none was measured
    (``missing``), or by how much its outputs differ.
    """

    what: ClassVar[str] = "a benchmark of export.py"
    version: ClassVar[int] = 1

    ticket: Mapping[str, Any]
    machine: Mapping[str, Any]
    models: Mapping[str, Any]
    latency: Sequence[Mapping[str, Any]]
    browser: Mapping[str, Any]
    memory: Mapping[str, Any]

    def check(self) -> None:
        """All that latencies are compared by is there, and no time is zero."""
        fields.text(self.ticket, "key")
        fields.number(self.ticket, "density")
        fields.text(self.machine, "cpu")
        fields.number(self.machine, "cores")
        fields.positive(fields.mapping(self.models, "dense"), "multiply_adds")
        fields.positive(fields.mapping(self.models, "ticket"), "surviving_multiply_adds")
        for entry in self.latency:
            fields.text(entry, "runtime")
            fields.text(entry, "precision")
            for name in ("batch", "threads", "speedup"):
                fields.positive(entry, name)
            for kind in ("dense", "ticket"):
                for name in ("median_ms", "low_ms", "high_ms"):
                    fields.positive(fields.mapping(entry, kind), name)
