"""Where images come from: one module per choice of ``data.source``.

The class of a choice has the options of :class:`lottery.config.Data`, on top of which it may have
its own, and a method ``open() -> Source``. Opening checks that the data are present and whole, from
metadata only; it neither reads images nor imports TensorFlow.
"""

from collections.abc import Mapping
from typing import Any, Literal, Protocol, runtime_checkable

from lottery.data.interface import Images, Labels, Rows, Shape, Split
from lottery.data.splits import Keys

Part = Literal["train", "validation", "test"]


class Source(Protocol):
    """A labelled image set on this machine, in the parts it was published in."""

    @property
    def name(self) -> str:
        """How to call it in messages and reports."""
        ...

    @property
    def image_shape(self) -> Shape:
        """(S, S, C) of every image, after resizing to ``data.stored_size``.

        Of examples that are no square images, their shape.
        """
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names by label."""
        ...

    @property
    def sizes(self) -> Mapping[Part, int]:
        """Examples per part; without ``test`` or ``validation`` if it has no such part."""
        ...

    @property
    def fingerprint(self) -> dict[str, Any]:
        """JSON values that identify the content: all that keys know of where it came from.

        So whatever ``data.root`` and ``data.dir`` lead to must be told apart by it, and so must the
        same images in another order.
        """
        ...

    def labels(self, part: Part) -> Labels:
        """The label of every example of a part, in the source's own fixed order."""
        ...

    def keys(self, part: Part) -> Keys:
        """A number of its own for every example of a part, which says what split it belongs to.

        It stays the same when others come or go: that of its name where it has one, else its
        position in the published order.
        """
        ...

    def images(self, part: Part, rows: Rows) -> Images:
        """Decoded images at increasing positions ``rows`` of a part.

        Raises :class:`~lottery.errors.DataError` naming and counting undecodable images.
        """
        ...

    def stream(self, part: Part, rows: Rows, labels: Labels) -> Split:
        """The examples at ``rows`` with these (possibly renumbered) labels, decoded when used."""
        ...


@runtime_checkable
class KnowsOriginals(Protocol):
    """What a source may have besides: it knows how large images were before they were resized."""

    def original_side(self) -> int | None:
        """Short side in pixels, the median over images of train; None if nobody noted it.

        A sample will do: it is for people to read, and determines nothing.
        """
        ...
