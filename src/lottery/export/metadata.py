"""What a LiteRT file says of itself: class names, and what happens to an image before it.

In the form that LiteRT's own libraries read: a buffer ``TFLITE_METADATA`` by the schema of
https://ai.google.dev/edge/litert/models/metadata, and files in a ZIP archive behind the network,
``labels.txt`` and ``lottery.json``. Interpreters skip both; ``unzip -p model.tflite labels.txt``
shows them. No library that writes this is to be had for the versions of Python here, so the few
tables that are needed are laid out by hand.
"""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lottery.errors import ExportError
from lottery.export.sparsity import serialised
from lottery.quiet import quiet_stderr

LABELS, DETAILS = "labels.txt", "lottery.json"

_AXIS_LABELS = 2  # of AssociatedFileType
_FEATURES, _IMAGE, _NORMALIZATION = 1, 2, 1  # of the unions ContentProperties, ProcessUnitOptions
_COLOURS = {3: 1, 1: 2}  # ColorSpaceType by channels: RGB, grey


@dataclass(frozen=True)
class About:
    """What there is to say of an exported network."""

    name: str
    """What it is, in a line."""
    classes: tuple[str, ...]
    """Names by output."""
    side: int | None
    """In pixels, of the square images that it takes; None if it takes no such."""
    channels: int
    before: str
    """What must happen to an image before it is put in, in words."""
    mean: Sequence[float]
    std: Sequence[float]
    """Inputs are ``(pixels - mean) / std``, of pixels from 0 to 255; a value for each channel."""
    details: Mapping[str, Any]
    """All of it as JSON values, for programs."""


def attach(content: bytes, about: About) -> bytes:
    """The LiteRT file ``content`` with its metadata."""
    with quiet_stderr():
        from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    model.description = about.name
    model.buffers.append(schema.BufferT(data=np.frombuffer(_flatbuffer(about), np.uint8)))
    entry = schema.MetadataT(name="TFLITE_METADATA", buffer=len(model.buffers) - 1)
    model.metadata = [*(model.metadata or []), entry]
    whole = io.BytesIO(serialised(model))
    files = {LABELS: _lines(about.classes), DETAILS: json.dumps(about.details, indent=2)}
    with zipfile.ZipFile(whole, "a") as archive:
        for name, text in files.items():
            # With a date of its own the same network would give another file each time.
            archive.writestr(zipfile.ZipInfo(name), text)
    return whole.getvalue()


def read(file: Path) -> dict[str, Any]:
    """What :attr:`About.details` of an exported LiteRT file are.

    Raises :class:`ExportError` for a file without, and :class:`FileNotFoundError`.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            details: dict[str, Any] = json.loads(archive.read(DETAILS))
    except (zipfile.BadZipFile, KeyError, ValueError):
        raise ExportError(f"{file} does not say what it is: it has no {DETAILS}") from None
    return details


def _lines(classes: Sequence[str]) -> str:
    return "".join(" ".join(name.splitlines()) + "\n" for name in classes)


def _flatbuffer(about: About) -> bytes:
    """A ``ModelMetadata`` of the schema."""
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    text = builder.CreateString

    def table(*slots: tuple[str, int] | int | None) -> int:
        """Fields in the schema's order: an offset, a number with its type, or none."""
        builder.StartObject(len(slots))
        for slot, value in enumerate(slots):
            if isinstance(value, tuple):
                kind, number = value
                getattr(builder, f"Prepend{kind}Slot")(slot, number, 0)
            elif value is not None:
                builder.PrependUOffsetTRelativeSlot(slot, value, 0)
        return int(builder.EndObject())

    def vector(*offsets: int) -> int:
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return int(builder.EndVector())

    def floats(values: Sequence[float]) -> int:
        return int(builder.CreateNumpyVector(np.array(values, np.float32)))

    if about.side is None:
        content = table(("Uint8", _FEATURES), table())
    else:
        size = table(("Uint32", about.side), ("Uint32", about.side))
        image = table(("Uint8", _COLOURS.get(about.channels, 0)), size)
        content = table(("Uint8", _IMAGE), image)
    normalisation = table(floats(about.mean), floats(about.std))
    process = table(("Uint8", _NORMALIZATION), normalisation)
    taken = table(text("image"), text(about.before), None, content, vector(process))
    labels = table(text(LABELS), text("class names by output"), ("Uint8", _AXIS_LABELS))
    given = table(
        text("logits"), text("a logit for each class; softmax makes them probabilities"),
        None, None, None, None, vector(labels),
    )  # fmt: skip
    graph = table(text(about.name), None, vector(taken), vector(given))
    details = table(text(DETAILS), text("the same for programs"), ("Uint8", 0))
    builder.Finish(
        table(
            text(about.name), text(about.before), None, vector(graph),
            None, None, vector(details), text("1.0.0"),
        ),
        b"M001",
    )  # fmt: skip
    return bytes(builder.Output())
