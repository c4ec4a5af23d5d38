"""Volumes and label maps in files, read and written by SimpleITK: NRRD, NIfTI, MetaImage and DICOM series."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from MedSAMSlicerLib.volume.dicom_series import read_dicom
from MedSAMSlicerLib.volume.image_file import FileError, is_dicom, quiet, read_image, reason

# Their place for all who read files of volumes.
__all__ = ["FileError", "Volume", "atomic_output", "check_holds", "is_dicom", "read_image", "read_volume", "stem"]
__all__ += ["write_labelmap"]

# ITK works in LPS, Slicer in RAS: the first two coordinates change sign.
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Volume:
    """Voxels (K, J, I), in color (K, J, I, channels), and the matrix (4, 4) from IJK to RAS in millimeters.

    The voxels of a file can't be written to.
    """

    voxels: np.ndarray
    ijk_to_ras: np.ndarray
    name: str

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimeters between voxel centers, IJK order."""
        i, j, k = np.linalg.norm(self.ijk_to_ras[:3, :3], axis=0)
        return float(i), float(j), float(k)

    @property
    def dimensions(self) -> tuple[int, int, int]:
        """Number of voxels, IJK order."""
        k, j, i = self.voxels.shape[:3]
        return i, j, k


def read_volume(path: Path) -> Volume:
    """Read a volume.

    :param path: an NRRD, NIfTI or MetaImage file, any other image that ITK reads (2-D ones become one slice), a folder
        that holds one DICOM series, or one file of a DICOM series, which stands for the whole of it.
    :raises FileError: if there is no such file, or it holds no image, more than one, or one that is not 3-D.
    """
    path = Path(path)
    if path.is_dir() or is_dicom(path):
        voxels, ijk_to_lps = read_dicom(path)
        voxels.flags.writeable = False
        return Volume(voxels, _LPS_TO_RAS @ ijk_to_lps, stem(path))
    image = read_image(path)
    dimension, size = image.GetDimension(), image.GetSize()
    if dimension == 4 and size[3] == 1:
        image, dimension = image[:, :, :, 0], 3
    if dimension == 2:
        image, dimension = sitk.JoinSeries(image), 3
    if dimension != 3:
        raise FileError(
            f"{path} has {dimension} dimensions, {' x '.join(map(str, size))} voxels: "
            "save one 3-D volume (one time point) of it and give that."
        )
    if "complex" in image.GetPixelIDTypeAsString():
        raise FileError(f"{path} has complex values: save their magnitude and give that.")
    ijk_to_lps = np.eye(4)
    ijk_to_lps[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    ijk_to_lps[:3, 3] = image.GetOrigin()
    if not np.isfinite(ijk_to_lps).all() or abs(np.linalg.det(ijk_to_lps)) < 1e-12:
        raise FileError(
            f"{path} has no valid geometry (spacing {image.GetSpacing()}, directions {image.GetDirection()}, origin "
            f"{image.GetOrigin()}): repair its header, or save it again from Slicer."
        )
    return Volume(_short(path, np.asarray(_Pixels(image))), _LPS_TO_RAS @ ijk_to_lps, stem(path))


class _Pixels:
    """The voxels of an image where they are; an array that is made of this keeps the image alive."""

    def __init__(self, image: sitk.Image) -> None:
        self._image = image
        self.__array_interface__ = sitk.GetArrayViewFromImage(image).__array_interface__


def _short(path: Path, voxels: np.ndarray) -> np.ndarray:
    """Make whole numbers of 64 bits, which neither VTK's pictures nor Slicer's files hold, such of 32; others stay.

    :raises FileError: if they don't fit.
    """
    if voxels.dtype.kind not in "iu" or voxels.dtype.itemsize < 8:
        return voxels
    low, high = int(voxels.min()), int(voxels.max())
    kinds = [kind for kind in (np.int32, np.uint32) if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max]
    if not kinds:
        raise FileError(f"{path} has values from {low} to {high}, of 64 bits: save it with 32 bits or less.")
    short = voxels.astype(kinds[0])
    short.flags.writeable = False
    return short


def check_holds(path: Path, ijk_to_ras: np.ndarray) -> None:
    """Check that a kind of file can hold the geometry of a volume.

    :raises FileError: if it is NIfTI and the voxels are sheared, as those of a tilted gantry are: ITK would write other
        directions.
    """
    axes = ijk_to_ras[:3, :3] / np.linalg.norm(ijk_to_ras[:3, :3], axis=0)
    if path.name.lower().endswith((".nii", ".nii.gz")) and not np.allclose(axes.T @ axes, np.eye(3), atol=1e-4):
        raise FileError(
            f"{path} can't hold sheared voxels (a tilted gantry), as NIfTI files don't: give .seg.nrrd, .nrrd or .mha."
        )


def write_labelmap(path: Path, labels: np.ndarray, ijk_to_ras: np.ndarray) -> None:
    """Write a label map (K, J, I), compressed; the file is either whole or not there.

    :raises FileError: if it can't be written, can't hold the geometry, or is not the same when it is read again.
    """
    check_holds(path, ijk_to_ras)
    image = sitk.GetImageFromArray(labels)
    ijk_to_lps = _LPS_TO_RAS @ ijk_to_ras
    spacing = np.linalg.norm(ijk_to_lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((ijk_to_lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(ijk_to_lps[:3, 3].tolist())
    with atomic_output(path) as temporary:
        try:
            with quiet():
                sitk.WriteImage(image, str(temporary), useCompression=True)
        except RuntimeError as error:
            raise FileError(f"{path} can't be written ({reason(error)}): is the disk full?") from error
        del image
        # ITK's writers say nothing when the disk is full.
        try:
            written = read_image(temporary)
            voxels = sitk.GetArrayViewFromImage(written)
            whole = voxels.shape == labels.shape and all(map(np.array_equal, voxels, labels))
        except FileError:
            whole = False
        if not whole:
            raise FileError(f"{path} could not be written: is the disk full?")


@contextlib.contextmanager
def atomic_output(path: Path) -> Iterator[Path]:
    """Give a temporary path with the same ending, and move it to ``path`` only if the block ends well.

    An interrupted or failed write leaves neither a half-written file nor a temporary one, and keeps an older file.

    :raises OSError: if the folder can't be written to.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A folder of its own: some writers put further files beside the one they are told.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".medsam-") as folder:
        temporary = Path(folder) / path.name
        yield temporary
        if not temporary.is_file() or temporary.stat().st_size == 0:
            raise OSError(f"{path} could not be written: is the disk full, or the folder {path.parent} read-only?")
        temporary.replace(path)


def stem(path: Path) -> str:
    """Name a file without its folder and endings: ``CT.nii.gz`` -> ``CT``."""
    name = path.absolute().name
    for ending in (".seg.nrrd", ".nii.gz", ".mrk.json", path.suffix):
        if ending and name.lower().endswith(ending.lower()):
            return name[: -len(ending)]
    return name
