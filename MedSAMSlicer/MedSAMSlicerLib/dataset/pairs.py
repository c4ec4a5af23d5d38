"""Images and labels in folders of a site's own, matched by the names of their files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from MedSAMSlicerLib.dataset.case import Case
from MedSAMSlicerLib.dataset.masks import read_masks
from MedSAMSlicerLib.dataset.site import AlreadyAdded, SiteDataset
from MedSAMSlicerLib.volume.files import FileError, Volume, read_volume

IMAGES = "{case}_image.*"
LABELS = "{case}_label.*"

_SOURCES = {
    ".nii": "NIfTI",
    ".nii.gz": "NIfTI",
    ".nrrd": "NRRD",
    ".nhdr": "NRRD",
    ".mha": "MetaImage",
    ".mhd": "MetaImage",
}


@dataclass(frozen=True)
class Pair:
    """An image and the files of its labels.

    :param labels: pairs of a label's name ("" where the pattern has none) and its file.
    :param patient: what stands at ``{patient}`` in the pattern, None if it has none.
    """

    image: Path
    labels: tuple[tuple[str, Path], ...]
    patient: str | None


@dataclass(frozen=True)
class Pairs:
    """What was found: pairs, images that have no label, and labels that have no image."""

    pairs: tuple[Pair, ...]
    images_alone: tuple[Path, ...]
    labels_alone: tuple[Path, ...]


@dataclass(frozen=True)
class Addition:
    """Tell what became of a pair.

    :param case: None if it was refused.
    :param text: why it was refused, or what was left out of it; "" if nothing. It does not tell which case it became.
    :param same: the case that has the same image already.
    """

    pair: Pair
    case: Case | None
    text: str
    same: Case | None = None


def find_pairs(folder: Path, images: str = IMAGES, labels: str = LABELS, label_folder: Path | None = None) -> Pairs:
    """Find images and their labels by patterns of their paths.

    In a pattern ``{case}`` stands for the part by which an image and its labels are matched, ``{patient}`` for that
    which cases of one patient share, ``{label}`` for the name of a label that has a file of its own, and ``*`` for any
    text. All of them end at a slash. A file that matches both patterns is a label. Usage example::

        find_pairs(folder, "{patient}/{case}/ct", "{patient}/{case}/labels/{label}.nii.gz")  # ct is a DICOM folder

    :param label_folder: where the labels' pattern begins, if it is not the folder of the images.
    :raises ValueError: if there is no such folder, a pattern can't be used, or two files claim the same place.
    """
    common = {"case", "patient"} & set(_fields(images)) & set(_fields(labels))
    if not common:
        raise ValueError(
            f"The patterns {images!r} and {labels!r} have no {{case}} or {{patient}} in common by which an image is "
            "matched with its labels."
        )
    drawn: dict[tuple[str, ...], dict[str, Path]] = {}
    label_files = set()
    for path, parts in _matching(label_folder or folder, labels):
        label_files.add(path)
        files = drawn.setdefault(tuple(parts[name] for name in sorted(common)), {})
        other = files.setdefault(parts.get("label", ""), path)
        if other != path:
            raise ValueError(f"{path} and {other} are both labels of the same case: narrow the pattern.")
    found: dict[tuple[str, ...], tuple[Path, str | None]] = {}
    for path, parts in _matching(folder, images):
        # "{case}.nii.gz" matches "x_label.nii.gz" as well.
        if path in label_files:
            continue
        key = tuple(parts[name] for name in sorted(common))
        if key in found:
            raise ValueError(f"{path} and {found[key][0]} are both the image of {'/'.join(key)}: narrow the pattern.")
        found[key] = path, parts.get("patient")
    return Pairs(
        tuple(Pair(path, tuple(drawn[key].items()), patient) for key, (path, patient) in found.items() if key in drawn),
        tuple(path for key, (path, _) in found.items() if key not in drawn),
        tuple(path for key, files in drawn.items() if key not in found for path in files.values()),
    )


def add_pairs(
    dataset: SiteDataset, pairs: Sequence[Pair], *, window: str = "auto", names: Mapping[int, str] | None = None
) -> Iterator[Addition]:
    """Add pairs to a dataset, one by one; one that is refused does not keep the others out.

    :param window: of all images, see `volume.intensity.resolve_window`.
    :param names: label -> name, for label maps, which have none.
    """
    for pair in pairs:
        try:
            volume = read_volume(pair.image)
            masks, empty = _read_labels(pair, volume, names)
            case = dataset.add(volume, masks, patient=pair.patient, window=window, source=_source(pair.image))
        except AlreadyAdded as error:
            yield Addition(pair, None, "The same image is in the dataset already.", error.case)
        except ValueError as error:
            yield Addition(pair, None, str(error))
        else:
            yield Addition(pair, case, f"left out, as nothing is drawn in it: {', '.join(empty)}" if empty else "")


def _read_labels(
    pair: Pair, volume: Volume, names: Mapping[int, str] | None
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Read all labels of a pair, and name those that are empty."""
    masks: dict[str, np.ndarray] = {}
    empty: list[str] = []
    for name, path in pair.labels:
        found, without = read_masks(path, volume, names)
        if name and len(found) + len(without) <= 1:
            # The file is that of one structure, which its name tells.
            found, without = dict.fromkeys([name] if found else [], *found.values()), [] if found else [name]
        twice = sorted(masks.keys() & found.keys())
        if twice:
            raise FileError(f"{path}: another file has the label {twice[0]!r}, too.")
        masks |= found
        empty += without
    if not masks:
        raise FileError(f"{pair.labels[0][1]} has no label: nothing is drawn in it.")
    return masks, empty


def _matching(folder: Path, pattern: str) -> Iterator[tuple[Path, dict[str, str]]]:
    """List the paths below a folder that match a pattern, with the parts that its fields stand for."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: give the one that holds images and labels.")
    expression = _expression(pattern)
    for path in sorted(folder.rglob("*")):
        try:
            str(path).encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{str(path)!a} is no valid UTF-8: rename the file.") from error
        match = expression.fullmatch(path.relative_to(folder).as_posix())
        if match:
            yield path, match.groupdict()


def _expression(pattern: str) -> re.Pattern[str]:
    parts, seen = [], set()
    for text, field in re.findall(r"([^{]*)(?:\{(\w+)\})?", pattern):
        parts.append("[^/]*".join(map(re.escape, text.split("*"))))
        if field:
            parts.append(f"(?P={field})" if field in seen else f"(?P<{field}>[^/]+?)")
            seen.add(field)
    return re.compile("".join(parts))


def _fields(pattern: str) -> list[str]:
    """List the fields of a pattern.

    :raises ValueError: if it has others than those that are known.
    """
    fields = re.findall(r"\{(.*?)\}", pattern)
    unknown = [field for field in fields if field not in ("case", "patient", "label")]
    if unknown or pattern.count("{") != len(fields):
        raise ValueError(f"The pattern {pattern!r} can't be used: its fields are {{case}}, {{patient}} and {{label}}.")
    return fields


def _source(path: Path) -> str:
    """Name the kind of an image file."""
    name = path.name.lower()
    known = next((source for ending, source in _SOURCES.items() if name.endswith(ending)), None)
    return known or ("DICOM" if path.is_dir() or path.suffix.lower() in ("", ".dcm", ".ima") else "image")
