"""Segmentations written to files."""

from __future__ import annotations

from pathlib import Path

import slicer

from MedSAMSlicerLib.volume.files import FileError, atomic_output, read_image


def save_segmentation(segmentation: slicer.vtkMRMLSegmentationNode, path: Path) -> None:
    """Write a segmentation as Slicer does, ``.seg.nrrd`` with names, colors and geometry; either whole or not at all.

    :raises FileError: if Slicer can't write it.
    """
    storage = slicer.vtkMRMLSegmentationStorageNode()
    segmentation.GetScene().AddNode(storage)
    try:
        with atomic_output(path) as temporary:
            storage.SetFileName(str(temporary))
            # Else Slicer makes three label maps of the volume's size to write one.
            storage.SetCropToMinimumExtent(True)
            if not storage.WriteData(segmentation):
                raise FileError(f"Slicer can't write {path}: is the disk full?")
            # Slicer does not notice when only the last few kilobytes find no room.
            try:
                read_image(temporary)
            except FileError as error:
                raise FileError(f"{path} could not be written: is the disk full?") from error
    finally:
        segmentation.GetScene().RemoveNode(storage)
