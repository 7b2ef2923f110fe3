"""What an exported network needs to be told with it: classes, and what comes before an image."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict

from lottery.config import Data
from lottery.data import is_square_image
from lottery.export.images import Images
from lottery.export.metadata import About
from lottery.tickets import Ticket


def of_ticket(ticket: Ticket, data: Data | None, found: Images | None, pixels: bool) -> About:
    """What files of a ticket say of themselves.

    ``data`` are the options of its data set, and ``found`` its images, both None if unknown.
    ``pixels`` is whether files take pixels from 0 to 255, or normalised images.
    """
    shape = ticket.network.input_shape
    side, channels = shape[0] if is_square_image(shape) else None, shape[-1]
    mean, std = ticket.statistics
    sides = None if side is None else _sides(ticket, data, found)
    before = "give the array as it is" if sides is None else "; ".join(_steps(sides))
    details = {
        "version": 1,
        "ticket": ticket.key,
        "network": ticket.network.name,
        "data": ticket.data,
        "input": {
            "shape": list(ticket.network.input_shape),
            "values": "pixels from 0 to 255" if pixels else "(pixels / 255 - mean) / std",
            "mean": mean,
            "std": std,
            "before": before,
            "sides": sides,
        },
        "output": {"values": "logits", "classes": list(ticket.classes)},
    }
    return About(
        name=f"{ticket.network.name} for {ticket.data}, {100 * ticket.density:.3g} % of it left",
        classes=ticket.classes,
        side=side,
        channels=channels,
        before=before,
        mean=[0.0] * channels if pixels else [255 * m for m in mean],
        std=[1.0] * channels if pixels else [255 * s for s in std],
        details=details,
    )


def _sides(ticket: Ticket, data: Data | None, found: Images | None) -> dict[str, int | None]:
    """Those of :class:`lottery.data.summary.Sides`; None where nobody knows."""
    if found is not None and found.splits.summary.sides is not None:
        return asdict(found.splits.summary.sides)
    stored = None if data is None else data.stored_size
    cropped = None if data is None else data.image_size or stored
    network = ticket.network.input_shape[0]
    return {"original": None, "stored": stored, "cropped": cropped, "network": network}


def _steps(sides: Mapping[str, int | None]) -> Iterator[str]:
    """What happens to an image, in order and in words."""
    stored, cropped, network = sides["stored"], sides["cropped"], sides["network"]
    if stored is None:
        yield "take the centre square of the image"
    elif stored == sides["original"]:
        yield f"take an image of {stored}x{stored} pixels"
    else:
        yield (
            f"resize the centre square of the image to {stored}x{stored} pixels, averaging over "
            "areas where it shrinks"
        )
    if cropped is not None and cropped != stored:
        yield f"cut out the centre of {cropped}x{cropped}"
    if network != cropped:
        yield f"resize that to {network}x{network}"
