"""The labels of ILSVRC 2012's flat validation folder, from the files that come with it.

Kaggle's ``LOC_val_solution.csv`` names the class (synset) of each image. The development kit's
``ILSVRC2012_validation_ground_truth.txt`` has a number on line n for image n, which is *not* the
rank of the synset's name: number k is ``ILSVRC2012_ID`` k of the kit's ``meta.mat``, or line k of a
file ``synsets.txt`` where somebody has written the order down.
"""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from lottery.errors import DataError

SOLUTION = "LOC_val_solution.csv"
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
MAPPING = "LOC_synset_mapping.txt"
_ORDERS = ("meta.mat", "synsets.txt")
# Where they may lie, below the root, its parents or the folder of the images.
_FOLDERS = (".", "data", "devkit/data", "ILSVRC2012_devkit_t12/data", "ILSVRC2012_devkit_t12")


def find(name: str, folders: tuple[Path, ...]) -> Path | None:
    """The first file of that name in or just below ``folders``."""
    candidates = (folder / below / name for folder in folders for below in _FOLDERS)
    return next((path for path in candidates if path.is_file()), None)


def validation_synsets(folders: tuple[Path, ...], stems: list[str]) -> list[str]:
    """The synset of each image, by its file name without ending.

    Raises :class:`DataError` if there is no label file, or an image it says nothing of.
    """
    if solution := find(SOLUTION, folders):
        path, synsets = solution, _from_solution(solution)
    elif truth := find(GROUND_TRUTH, folders):
        path, synsets = truth, _from_ground_truth(truth, folders)
    else:
        raise DataError(
            f"the validation images of {folders[0]} lie in one folder, and there is no label file: "
            f"put {SOLUTION} or {GROUND_TRUTH} (with meta.mat or synsets.txt) there"
        )
    missing = [stem for stem in stems if _image_key(stem) not in synsets]
    if missing:
        raise DataError(
            f"{path} has no label for {len(missing)} of {len(stems)} validation images: "
            f"{', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}"
        )
    return [synsets[_image_key(stem)] for stem in stems]


def names(folders: tuple[Path, ...]) -> dict[str, str]:
    """What synsets are called, from ``LOC_synset_mapping.txt``; empty without it.

    A name that two synsets have (ImageNet has two cranes) is followed by its synset.
    """
    path = find(MAPPING, folders)
    lines = _text(path).splitlines() if path else []
    pairs = [line.split(maxsplit=1) for line in lines if line.strip()]
    called = {pair[0]: pair[-1].strip() for pair in pairs}
    all_names = list(called.values())
    return {
        synset: name if all_names.count(name) == 1 else f"{name} ({synset})"
        for synset, name in called.items()
    }


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8") from None


def _image_key(stem: str) -> str:
    """The number of an image without leading zeros, or its whole name if it has none."""
    number = re.search(r"_val_0*(\d+)$", stem)
    return number[1] if number else stem


def _from_solution(path: Path) -> dict[str, str]:
    rows = [row for row in csv.reader(_text(path).splitlines(keepends=True)) if row]
    if not rows or rows[0][:2] != ["ImageId", "PredictionString"]:
        raise DataError(f"{path} does not begin with ImageId,PredictionString")
    wrong = next((i for i, row in enumerate(rows, 1) if len(row) < 2 or not row[1].split()), None)
    if wrong:
        raise DataError(f"row {wrong} of {path} has no class")
    return {_image_key(row[0]): row[1].split()[0] for row in rows[1:]}


def _from_ground_truth(path: Path, folders: tuple[Path, ...]) -> dict[str, str]:
    order = _order(path, (path.parent, *folders))
    synsets = {}
    for number, line in enumerate(_text(path).split(), 1):
        if not line.isdigit() or not 1 <= int(line) <= len(order):
            raise DataError(f"line {number} of {path} is no class from 1 to {len(order)}: {line}")
        synsets[str(number)] = order[int(line) - 1]
    return synsets


def _order(truth: Path, folders: tuple[Path, ...]) -> list[str]:
    found = next((path for name in _ORDERS if (path := find(name, folders))), None)
    if found is None:
        raise DataError(
            f"{truth} has numbers, and nothing says which synsets they mean: put the development "
            "kit's meta.mat beside it, or a file synsets.txt with one synset a line, in the kit's "
            "order (which is not alphabetical)"
        )
    return list(_from_meta(found)) if found.suffix == ".mat" else _text(found).split()


def _from_meta(path: Path) -> Iterator[str]:
    from scipy.io import loadmat

    try:
        synsets = loadmat(path, squeeze_me=True)["synsets"]
        by_id = {int(s["ILSVRC2012_ID"]): str(s["WNID"]) for s in synsets}
    except Exception as error:  # a foreign binary file: anything may be wrong with it
        raise DataError(f"{path} is not the development kit's meta.mat: {error}") from error
    # Numbers beyond the leaves are inner nodes of WordNet; ground truth never names them.
    for number in range(1, len(by_id) + 1):
        if number not in by_id:
            raise DataError(f"{path} has no ILSVRC2012_ID {number}")
        yield by_id[number]
