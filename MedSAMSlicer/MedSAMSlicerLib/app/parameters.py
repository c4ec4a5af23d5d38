"""What the user has chosen in the module, as the scene saves it."""

from typing import Annotated

from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper


@parameterNodeWrapper
class MedSAMSlicerParameterNode:
    """The module's parameters.

    window - the range of intensities that the model sees, see `MedSAMSlicerLib.volume.intensity.resolve_window`.
    inputVolume - the CT or MRI to segment.
    previewWindow - whether the views show the volume through this window.
    limit - how far a box on one slice is followed to either side, in millimeters; 0 for no limit.
    segmentation - receives the segments.
    segmentID - the segment that is corrected.
    keepOut - whether segments keep out of all others.
    useEditingRules - whether Segment Editor's masking section holds.
    autoUpdate - whether a box is segmented again as soon as it was dragged.
    """

    # The first one must have no widget that the wrapper connects: VTK calls the first observer of a new node last, so
    # that the widget would be given the value from before a change that another wrapper has made.
    window: str = "auto"
    inputVolume: vtkMRMLScalarVolumeNode
    previewWindow: bool = False
    limit: Annotated[float, WithinRange(0.0, 1000.0)] = 0.0
    segmentation: vtkMRMLSegmentationNode
    segmentID: str = ""
    keepOut: bool = False
    useEditingRules: bool = False
    autoUpdate: bool = False
