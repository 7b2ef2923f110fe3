"""How far a training goes, and which of its steps are taken in one call of the compiled loop."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lottery.data import Chunk


@dataclass(frozen=True)
class Length:
    """How far to train: to ``last_step``, in epochs of ``steps_per_epoch`` steps.

    After the steps ``changes``, in order, the mask changes; ``measures`` says that the step before
    each change measures the gradient for it. ``stops`` are further steps, in order, after which a
    call ends, and so is every multiple of ``validation_steps``.
    """

    last_step: int
    steps_per_epoch: int
    steps_per_call: int = 1
    changes: Sequence[int] = ()
    measures: bool = False
    stops: Sequence[int] = ()
    validation_steps: int | None = None

    def validates(self, step: int) -> bool:
        """Whether validation is measured after this step, besides the end of an epoch."""
        return self.validation_steps is not None and step % self.validation_steps == 0

    def chunks(self, first_step: int) -> Iterator[Chunk]:
        """The calls of the compiled loop from a step on.

        None straddles an epoch, a change or a stop, and a step that measures is one by itself.
        """
        step = first_step
        while step < self.last_step:
            epoch_end = (step // self.steps_per_epoch + 1) * self.steps_per_epoch
            rest = min(epoch_end, self.last_step, self._end(step)) - step
            steps = min(self.steps_per_call, rest)
            ends_within = self.changes or self.stops or self.validation_steps
            if ends_within and rest < self.steps_per_call:
                steps = 2 ** (rest.bit_length() - 1)  # each length is compiled: let them be few
            yield Chunk(step, steps)
            step += steps

    def _end(self, step: int) -> int:
        """Where the steps end that can be taken together from this one on."""
        ends = [self._change(step), *self.stops[bisect_right(self.stops, step) :][:1]]
        if self.validation_steps is not None:
            ends.append((step // self.validation_steps + 1) * self.validation_steps)
        return min(ends)

    def _change(self, step: int) -> int:
        following = bisect_right(self.changes, step)
        if following == len(self.changes):
            return self.last_step
        change = self.changes[following]
        return change - 1 if self.measures and change - 1 > step else change
