"""Sample data in Slicer's own module for it: a CT and an MRI, with boxes that can be segmented in one click."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer
import slicer.util
from slicer.i18n import tr as _

from MedSAMSlicerLib.app.slice_views import jump_to
from MedSAMSlicerLib.mrml.boxes import new_box, structure_boxes, tick
from MedSAMSlicerLib.mrml.markups import wrap_voxels
from MedSAMSlicerLib.mrml.volumes import ijk_to_world
from MedSAMSlicerLib.mrml.windows import window_of
from MedSAMSlicerLib.store.samples import fetch_samples, sample_path
from MedSAMSlicerLib.volume.geometry import voxel_box_corners

_CATEGORY = "MedSAM"
# Where the images come from. Slicer wants an address; what downloads is `fetch_samples`.
_PAGE = "https://pypi.org/project/totalsegmentator/2.18.0/"
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
    known = [each.sampleName for each in getattr(slicer.modules, "sampleDataSources", {}).get(_CATEGORY, [])]
    icons = Path(slicer.util.modulePath("MedSAMSlicer")).parent / "Resources" / "Icons"
    for name, (file, _boxes) in _SAMPLES.items():
        # Slicer compares the functions' addresses, too, which change when the module is reloaded.
        if name not in known:
            logic.registerCustomSampleDataSource(
                category=_CATEGORY,
                sampleName=name,
                nodeNames=name,
                fileNames=file,
                uris=_PAGE,
                customDownloader=_load,
                thumbnailFileName=str(icons / f"{name}.png"),
            )


def _load(source: Any) -> Any:
    """Called by Sample Data when the user clicks a sample: that is the consent to fetch it."""
    name = source.sampleName
    file, boxes = _SAMPLES[name]
    with slicer.util.tryWithErrorDisplay(_("The sample {name} could not be loaded.").format(name=name)):
        with slicer.util.WaitCursor():
            fetch_samples(_show_progress)
            volume = slicer.util.loadVolume(str(sample_path(file)), {"name": name})
        for roi in structure_boxes(slicer.mrmlScene):
            tick(roi, False)  # of another volume
        for structure, (first, last) in boxes.items():
            roi = new_box(slicer.mrmlScene, structure)
            wrap_voxels(roi, ijk_to_world(volume), voxel_box_corners(first, last))
            tick(roi, True)
        _show(volume, roi)
        parameters = slicer.util.getModuleLogic("MedSAMSlicer").getParameterNode()
        parameters.inputVolume, parameters.segmentation = volume, None
    return volume


def _show(volume: Any, roi: Any) -> None:
    """Show the volume through the window that the model takes, in which organs can be told apart, and one of them."""
    seen, display = window_of(volume, "auto"), volume.GetScalarVolumeDisplayNode()
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(seen.lower, seen.upper)
    jump_to(roi.GetCenterWorld())


def _show_progress(done: int, total: int) -> None:
    text = _("Sample data: {percent} % of the download").format(percent=100 * done // total)
    slicer.util.showStatusMessage(text, 2000)
    slicer.app.processEvents()
