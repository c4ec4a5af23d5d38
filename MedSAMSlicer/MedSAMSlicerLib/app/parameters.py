"""What the user has chosen in the module, as the scene saves it."""

from typing import Annotated

from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper


@parameterNodeWrapper
class MedSAMSlicerParameterNode:
    """The module's parameters.

    inputVolume - the CT or MRI to segment.
    window - the range of intensities that the model sees, see `MedSAMSlicerLib.volume.intensity.resolve_window`.
    previewWindow - whether the views show the volume through this window.
    limit - how far a box on one slice is followed to either side, in millimeters; 0 for no limit.
    segmentation - receives the segments.
    segmentID - the segment that is corrected.
    useEditingRules - whether Segment Editor's masking section holds.
    autoUpdate - whether a box is segmented again as soon as it was dragged.
    """

    inputVolume: vtkMRMLScalarVolumeNode
    window: str = "auto"
    previewWindow: bool = False
    limit: Annotated[float, WithinRange(0.0, 1000.0)] = 0.0
    segmentation: vtkMRMLSegmentationNode
    segmentID: str = ""
    useEditingRules: bool = False
    autoUpdate: bool = False
