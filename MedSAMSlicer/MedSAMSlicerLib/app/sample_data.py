"""Sample data in Slicer's own module for it: a CT and an MRI, with boxes that can be segmented in one click."""

from __future__ import annotations

from typing import Any

import slicer
import slicer.util
from slicer.i18n import tr as _

from MedSAMSlicerLib.mrml.boxes import tick
from MedSAMSlicerLib.mrml.markups import wrap_voxels
from MedSAMSlicerLib.mrml.volumes import ijk_to_world
from MedSAMSlicerLib.store.samples import fetch_samples, sample_path
from MedSAMSlicerLib.volume.geometry import voxel_box_corners

_CATEGORY = "MedSAM"
# First and last voxel (IJK) of organs, read from the experts' labels that come with the images.
_SAMPLES = {
    "MedSAMCTAbdomen": (
        "example_ct_sm.nii.gz",
        {
            "spleen": ((10, 22, 0), (43, 57, 29)),
            "right kidney": ((70, 29, 0), (92, 51, 18)),
            "left kidney": ((23, 27, 0), (44, 49, 22)),
        },
    ),
    "MedSAMMRAbdomen": (
        "example_mr_sm.nii.gz",
        {
            "right kidney": ((25, 50, 0), (43, 66, 14)),
            "left kidney": ((72, 48, 0), (90, 62, 10)),
            "liver": ((10, 15, 0), (61, 73, 19)),
        },
    ),
}


def registerSampleData() -> None:
    """Add the samples to Slicer's module Sample Data, once."""
    import SampleData

    logic = SampleData.SampleDataLogic
    if hasattr(logic, "registerCustomSampleDataCategory"):  # since Slicer 5.12
        logic.registerCustomSampleDataCategory(_CATEGORY, title=_("MedSAM"))
    for name, (file, _boxes) in _SAMPLES.items():
        logic.registerCustomSampleDataSource(
            category=_CATEGORY,
            sampleName=name,
            nodeNames=name,
            fileNames=file,
            customDownloader=_load,
            thumbnailFileName=None,
        )


def _load(source: Any) -> Any:
    """Called by Sample Data when the user clicks a sample: that is the consent to fetch it."""
    name = source.sampleName
    file, boxes = _SAMPLES[name]
    fetch_samples()
    volume = slicer.util.loadVolume(str(sample_path(file)), {"name": name})
    for structure, (first, last) in boxes.items():
        roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", structure)
        roi.CreateDefaultDisplayNodes()
        roi.GetDisplayNode().SetFillVisibility(False)
        wrap_voxels(roi, ijk_to_world(volume), voxel_box_corners(first, last))
        tick(roi, True)
    return volume
