"""What Segment Editor's masking section allows: editable area, intensity range, and which other segments give way."""

from __future__ import annotations

import slicer

from MedSAMSlicerLib.mrml.segments import SegmentWriter, held_by, put_labelmap


def outside_others() -> slicer.vtkMRMLSegmentEditorNode:
    """Make the rules by which a segment keeps out of all others, which stay as they are."""
    rules = slicer.vtkMRMLSegmentEditorNode()
    rules.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedOutsideAllSegments)
    rules.SetOverwriteMode(rules.OverwriteNone)
    return rules


def gives_way(editor_node: slicer.vtkMRMLSegmentEditorNode) -> bool:
    """Return whether other segments may lose voxels to one that is written."""
    return bool(editor_node.GetOverwriteMode() != editor_node.OverwriteNone)


def cut_told(editor_node: slicer.vtkMRMLSegmentEditorNode) -> str:
    """Say in a sentence why a segment lacks a part of what was found."""
    keeps_out = editor_node.GetMaskMode() == slicer.vtkMRMLSegmentationNode.EditAllowedOutsideAllSegments
    if keeps_out and not editor_node.GetSourceVolumeIntensityMask():
        return "It was kept out of other segments, which hold a part of what was found."
    return "The Segment Editor's masking has cut it."


def apply_editing_rules(
    editor_node: slicer.vtkMRMLSegmentEditorNode,
    writer: SegmentWriter,
    before: slicer.vtkOrientedImageData | None,
    volume: slicer.vtkMRMLVolumeNode,
) -> None:
    """Make a segment that was just written what Segment Editor would have made of the same mask.

    Slicer's own logic decides: outside of the editable area the segment stays as it was, and other segments lose the
    voxels that they share with it if they are to be overwritten.

    :param editor_node: where Segment Editor keeps its settings; it is not changed.
    :param before: what the segment held before it was written.
    """
    segmentation, segment_id = writer.segmentation, writer.segment_id
    scene = segmentation.GetScene()
    written = held_by(segmentation, segment_id)
    if written.IsEmpty():
        return
    if before is not None and not before.IsEmpty():
        # Slicer looks at what the segment held within the extent of the new mask only.
        padded = slicer.vtkOrientedImageData()
        slicer.vtkOrientedImageDataResample.PadImageToContainImage(written, before, padded)
        written = padded
    # A node of our own: the user's names another segmentation, maybe.
    settings = slicer.vtkMRMLSegmentEditorNode()
    settings.SetHideFromEditors(True)
    settings.SetMaskMode(editor_node.GetMaskMode())
    settings.SetMaskSegmentID(editor_node.GetMaskSegmentID())
    settings.SetOverwriteMode(editor_node.GetOverwriteMode())
    settings.SetSourceVolumeIntensityMask(editor_node.GetSourceVolumeIntensityMask())
    settings.SetSourceVolumeIntensityMaskRange(*editor_node.GetSourceVolumeIntensityMaskRange())
    scene.AddNode(settings)
    try:
        settings.SetAndObserveSegmentationNode(segmentation)
        settings.SetSelectedSegmentID(segment_id)
        logic = slicer.vtkSlicerSegmentEditorLogic()
        logic.SetMRMLScene(scene)
        logic.SetSegmentEditorNode(settings)
        logic.SetSourceVolumeNode(volume)
        put_labelmap(segmentation, segment_id, before)
        logic.ModifySegmentByLabelmap(
            segmentation, segment_id, written, logic.ModificationModeSet, list(written.GetExtent()), True, False
        )
        logic.SetSegmentEditorNode(None)
    finally:
        scene.RemoveNode(settings)
