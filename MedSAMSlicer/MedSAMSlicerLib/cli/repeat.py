"""Segments made again from what a ``.seg.nrrd`` tells of them (see `volume.provenance`), and compared with it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedSAMSlicerLib import __version__

if TYPE_CHECKING:
    import numpy as np

    from MedSAMSlicerLib.mrml.structure import Structure
    from MedSAMSlicerLib.volume.files import Volume

# What the file says of these, options must not say again.
_SAID = ("limit", "window", "axis", "propagation")


@dataclass(frozen=True)
class ToldSegment:
    """A segment of a file: its name, what it tells of its run, and its label there."""

    name: str
    fields: dict[str, str]
    label: int


class Repetition:
    """The segments of a file that are to be made again; all that speaks against it is said before any computing.

    (Read without Slicer's own reader, which dies of some files.)

    :param path: the ``.seg.nrrd``.
    :param names: only the segments of these names; all that tell of their run where there are none.
    :raises ValueError: if a segment can't be made again from what it tells, or they are of several models.
    """

    def __init__(self, path: Path, names: list[str]) -> None:
        from MedSAMSlicerLib.volume.labels import read_labels
        from MedSAMSlicerLib.volume.provenance import fields_in

        self.path = path
        self._labels = read_labels(path)
        all_of_it = [
            ToldSegment(name, fields_in(self._labels.tags[label]), label) for label, name in self._labels.names.items()
        ]
        if missing := set(names) - {each.name for each in all_of_it}:
            held = _listed(each.name for each in all_of_it) or "none"
            raise ValueError(f"{path} has no segment {min(missing)!r}, only {held}.")
        chosen = [each for each in all_of_it if each.name in names or not names]
        self.segments = [each for each in chosen if each.fields]
        if not self.segments or (names and len(self.segments) < len(chosen)):
            silent = next((f"The segment {each.name!r}" for each in chosen if not each.fields), "What is in it")
            raise ValueError(
                f"{path} can't be repeated. {silent} does not tell how it was made: by hand, by another program "
                "or by an earlier version."
            )
        for each in chosen:
            if not each.fields:
                print(f"{each.name}: does not tell how it was made; left out.", file=sys.stderr)
        for each in self.segments:
            self._check(each)
        if len({each.fields["ModelSHA256"] for each in self.segments}) > 1:
            raise ValueError(f"The segments of {path} are of several models: repeat those of one, by --name.")

    @property
    def model(self) -> str:
        """Return the name of the model that all of the segments are of."""
        return self.segments[0].fields["Model"]

    def check_volume(self, path: Path, volume: str) -> None:
        """Refuse another volume than the one that was segmented.

        :param volume: what tells the one that is given, see `volume.provenance.volume_text`.
        """
        from MedSAMSlicerLib.volume.provenance import same_volume

        for each in self.segments:
            if not same_volume(each.fields["Volume"], volume):
                raise ValueError(
                    f"{path} is not the volume of the segment {each.name!r}, or its voxels are in another order: it "
                    f"has {volume}, but that one had {each.fields['Volume']}. Give the file that was segmented."
                )

    def check_model(self, model: str, source: dict[str, str]) -> None:
        """Refuse another model than the one that the segments were made with.

        :param model: as it was given.
        :param source: of the predictor, see `loading.load_model`.
        """
        for each in self.segments:
            for name in ("ModelSHA256", "BaseSHA256"):
                if each.fields.get(name) != source.get(name):
                    raise ValueError(
                        f"The segment {each.name!r} was made with {each.fields['Model']} ({name} "
                        f"{each.fields.get(name)}), but the model {model} has {source.get(name)}: give that file "
                        "by --model."
                    )

    def runs(self) -> list[tuple[list[Structure], dict[str, Any]]]:
        """Return what `SegmentationSession.begin` takes: of each segment its structure, and its options."""
        from MedSAMSlicerLib.mrml.structure import Structure
        from MedSAMSlicerLib.volume.geometry import AXES
        from MedSAMSlicerLib.volume.provenance import Prompts

        runs: list[tuple[list[Structure], dict[str, Any]]] = []
        for each in self.segments:
            told = Prompts.from_text(each.fields["Prompts"])
            structure = Structure(
                each.name, told.corners, told.start, told.boxes, told.axis, tuple(told.key_slices), None
            )
            options = {
                "axis": told.axis,
                "window": each.fields["Window"].rpartition(" (")[0],
                "propagation": each.fields["Propagation"],
                "limit": told.limit,
                "first": None if told.first is None else (AXES[told.axis], told.first),
            }
            runs.append(([structure], options))
        return runs

    def differences(self, masks: list[Any], volume: Volume) -> list[int]:
        """Say how the new segments differ from the file's, and return in how many voxels each does.

        :param masks: of the new segments, with the voxel that each begins at, as `segment_part` returns them.
        """
        import numpy as np

        counts = []
        for each, (mask, (i, j, k)) in zip(self.segments, masks, strict=True):
            before, now = (np.zeros(volume.voxels.shape[:3], dtype=bool) for _ in range(2))
            now[k : k + mask.shape[0], j : j + mask.shape[1], i : i + mask.shape[2]] = mask
            held = self._labels.indices(each.label, volume.ijk_to_ras)
            inside = held[((held >= 0) & (held < volume.dimensions)).all(axis=1)]
            before[inside[:, 2], inside[:, 1], inside[:, 0]] = True
            counts.append(int((before != now).sum()))
            print(f"{each.name}: {self._comparison(each, before, now)}", file=sys.stderr)
        return counts

    def _comparison(self, segment: ToldSegment, before: np.ndarray, now: np.ndarray) -> str:
        count = int((before != now).sum())
        if not count:
            return "the same in every voxel."
        dice = 2 * int((before & now).sum()) / max(int(before.sum()) + int(now.sum()), 1)
        made = segment.fields.get("Version")
        why = "edited since, or made by another build or device" if made == __version__ else f"made by version {made}"
        return f"differs from {self.path} in {count} voxels (Dice {dice:.4f}): {why}."

    def _check(self, segment: ToldSegment) -> None:
        """Refuse a segment that its run alone does not make."""
        from MedSAMSlicerLib.volume.propagation import check_propagation
        from MedSAMSlicerLib.volume.provenance import Prompts

        fields = segment.fields
        if "Reservation" in fields:
            raise ValueError(
                f"The segment {segment.name!r} of {self.path} can't be made again from its prompts alone. "
                f"{fields['Reservation']} Leave it out, by --name."
            )
        missing = [name for name in ("ModelSHA256", "Volume", "Prompts", "Window", "Propagation") if name not in fields]
        if missing:
            raise ValueError(
                f"The segment {segment.name!r} of {self.path} does not tell {_listed(missing)}: it can't be made again."
            )
        try:
            Prompts.from_text(fields["Prompts"])
            check_propagation(fields["Propagation"], follows=False)
            if " (" not in fields["Window"]:
                raise ValueError(f"The window {fields['Window']!r} is none.")
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"The segment {segment.name!r} of {self.path} can't be made again, as what it tells of its run was "
                f"changed: {error}"
            ) from error


def check_options(args: argparse.Namespace, defaults: Callable[[str], Any]) -> None:
    """Refuse options that the file answers.

    :param defaults: returns the value that an option has when it is not given.
    """
    for name in _SAID:
        if getattr(args, name) != defaults(name):
            args.wrong_usage(f"--{name}: the file of --repeat says that")


def find_model(told: str) -> str:
    """Return the model that segments tell of: the known one of this name, or the file of this name in the store.

    :raises ValueError: if there is none.
    """
    from MedSAMSlicerLib.store.catalog import WEIGHTS
    from MedSAMSlicerLib.store.folder import store_folder

    if any(weights.name == told for weights in WEIGHTS):
        return told
    own = store_folder() / "models" / Path(told).name
    if own.is_file():
        return str(own)
    raise ValueError(f"The segments were made with the model {told!r}, which isn't here: give its file by --model.")


def volume_told(volume: Volume, node: Any) -> str:
    """Tell a volume as the segments do."""
    from MedSAMSlicerLib.mrml.volumes import voxels
    from MedSAMSlicerLib.volume.provenance import volume_text, voxels_sha256

    return volume_text(volume.dimensions, node.GetSpacing(), voxels_sha256(voxels(node)))


def _listed(names: Any) -> str:
    return ", ".join(map(repr, names))
