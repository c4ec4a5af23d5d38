"""DICOM series and segmentations, written as other programs write them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    SegmentationStorage,
    generate_uid,
)

PATIENT = "Doe^John"


def write_series(
    folder: Path,
    voxels: np.ndarray,
    ijk_to_ras: np.ndarray,
    *,
    change: Callable[[Dataset, int], object] = lambda dataset, k: None,
) -> list[Path]:
    """Write a volume, int16 (K, J, I), as a series of single slices, and list its files by place.

    :param change: called with each slice's dataset and its index before it is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    series, study = generate_uid(), generate_uid()
    paths = []
    for k, plane in enumerate(voxels):
        image = _dataset(CTImageStorage, "CT", plane.shape)
        image.StudyInstanceUID, image.SeriesInstanceUID, image.InstanceNumber = study, series, k + 1
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 1
        for group in _plane_groups(ijk_to_ras, k).values():
            image.update(group)
        image.PixelData = plane.astype("<i2").tobytes()
        change(image, k)
        paths.append(folder / f"{generate_uid()}.dcm")
        image.save_as(paths[-1], enforce_file_format=True)
    return paths


def write_enhanced(
    path: Path,
    voxels: np.ndarray,
    ijk_to_ras: np.ndarray,
    *,
    places: Sequence[float] | None = None,
    shared: tuple[str, ...] = ("PixelMeasuresSequence", "PlaneOrientationSequence"),
    change: Callable[[Dataset], object] = lambda dataset: None,
    syntax: str = ExplicitVRLittleEndian,
) -> Path:
    """Write a volume, int16 (K, J, I), as one file of the enhanced kind, a frame for each slice.

    :param places: index of each frame's place along K, by default in order.
    :param shared: the functional groups that are told once for all frames.
    :param change: called with the dataset before it is written.
    """
    places = range(len(voxels)) if places is None else places
    file = _dataset(EnhancedCTImageStorage, "CT", voxels.shape[1:])
    file.file_meta.TransferSyntaxUID = syntax
    file.StudyInstanceUID, file.SeriesInstanceUID = generate_uid(), generate_uid()
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 1
    file.NumberOfFrames = len(voxels)
    groups = [_plane_groups(ijk_to_ras, k) for k in places]
    rescale = _item(RescaleSlope="1", RescaleIntercept="0", RescaleType="HU")
    file.SharedFunctionalGroupsSequence = [
        _item(
            PixelValueTransformationSequence=[rescale],
            **{name: [group] for name, group in groups[0].items() if name in shared},
        )
    ]
    file.PerFrameFunctionalGroupsSequence = [
        _item(**{name: [group] for name, group in each.items() if name not in shared}) for each in groups
    ]
    file.PixelData = voxels.astype("<i2").tobytes()
    change(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save_as(path, enforce_file_format=True)
    return path


def write_segmentation(
    path: Path,
    masks: Mapping[str, np.ndarray],
    ijk_to_ras: np.ndarray,
    *,
    maximum: int = 0,
    shared: tuple[str, ...] = ("PixelMeasuresSequence", "PlaneOrientationSequence"),
    change: Callable[[Dataset], object] = lambda dataset: None,
) -> Path:
    """Write segments as a DICOM segmentation: frames along K, in no order, and none for empty slices.

    :param masks: name -> bool, or fractions of ``maximum``, (K, J, I).
    :param maximum: of a fractional segmentation; 0 for a binary one.
    :param shared: the functional groups that are told once for all frames.
    :param change: called with the dataset before it is written.
    """
    shape = next(iter(masks.values())).shape
    file = _dataset(SegmentationStorage, "SEG", shape[1:])
    file.StudyInstanceUID, file.SeriesInstanceUID = generate_uid(), generate_uid()
    file.SegmentationType = "FRACTIONAL" if maximum else "BINARY"
    bits = 8 if maximum else 1
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = bits, bits, bits - 1, 0
    if maximum:
        file.SegmentationFractionalType, file.MaximumFractionalValue = "PROBABILITY", maximum
    file.SegmentSequence = [_item(SegmentNumber=n, SegmentLabel=name) for n, name in enumerate(masks, start=1)]
    frames = [(n, k) for n, mask in enumerate(masks.values(), start=1) for k in range(shape[0]) if mask[k].any()]
    np.random.default_rng(3).shuffle(frames)
    file.NumberOfFrames = len(frames)
    file.SharedFunctionalGroupsSequence = [
        _item(**{name: [group] for name, group in _plane_groups(ijk_to_ras, 0).items() if name in shared})
    ]
    file.PerFrameFunctionalGroupsSequence = [
        _item(
            SegmentIdentificationSequence=[_item(ReferencedSegmentNumber=n)],
            **{name: [group] for name, group in _plane_groups(ijk_to_ras, k).items() if name not in shared},
        )
        for n, k in frames
    ]
    drawn = np.stack([list(masks.values())[n - 1][k] for n, k in frames])
    # One bit per pixel, the next frame begins in the midst of a byte.
    content = drawn.astype(np.uint8).tobytes() if maximum else np.packbits(drawn, bitorder="little").tobytes()
    file.PixelData = content + b"\0" * (len(content) % 2)
    change(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save_as(path, enforce_file_format=True)
    return path


def _dataset(kind: str, modality: str, shape: tuple[int, ...]) -> Dataset:
    dataset = _item(SOPClassUID=kind, SOPInstanceUID=generate_uid(), Modality=modality, PatientName=PATIENT)
    dataset.PatientID, dataset.PatientBirthDate = "hospital number 4711", "19500101"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.Rows, dataset.Columns = shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    return dataset


def _plane_groups(ijk_to_ras: np.ndarray, k: float) -> dict[str, Dataset]:
    """Tell where slice ``k`` lies, in the functional groups of DICOM, which hold what single slices tell at once."""
    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ ijk_to_ras
    spacing = np.linalg.norm(to_lps[:3, :3], axis=0)
    directions = (to_lps[:3, :2] / spacing[:2]).T
    numbers = {
        "PixelSpacing": spacing[[1, 0]],
        "ImageOrientationPatient": directions.ravel(),
        "ImagePositionPatient": (to_lps @ [0, 0, k, 1])[:3],
    }
    # As decimal strings, of which DICOM allows 16 characters.
    texts = {name: [f"{value:.9f}"[:16] for value in values] for name, values in numbers.items()}
    return {
        "PixelMeasuresSequence": _item(PixelSpacing=texts["PixelSpacing"], SliceThickness=f"{spacing[2]:.6f}"),
        "PlaneOrientationSequence": _item(ImageOrientationPatient=texts["ImageOrientationPatient"]),
        "PlanePositionSequence": _item(ImagePositionPatient=texts["ImagePositionPatient"]),
    }


def _item(**values: object) -> Dataset:
    dataset = Dataset()
    for name, value in values.items():
        setattr(dataset, name, value)
    return dataset
