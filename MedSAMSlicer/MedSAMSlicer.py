"""The MedSAM module of 3D Slicer: segments what an ROI holds in a CT or MRI volume."""

import qt
import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)


class MedSAMSlicer(ScriptedLoadableModule):
    """Tells Slicer what the module is."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("MedSAM")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = ["Segmentations", "Markups"]
        self.parent.contributors = ["MedSAMSlicer developers"]
        self.parent.helpText = _(
            "Segments organs and lesions in CT and MRI volumes from one ROI box, with MedSAM and LiteMedSAM. "
            "The computation runs on this computer; no image leaves it."
        )
        self.parent.acknowledgementText = _(
            'MedSAM: Ma et al., "Segment anything in medical images", Nature Communications 2024. '
            "The networks follow Segment Anything (Meta AI) and TinyViT (Microsoft)."
        )


class MedSAMSlicerWidget(ScriptedLoadableModuleWidget):
    """Shows how to use the module. Its controls are not there yet; the logic is complete without them."""

    def setup(self):
        """Called when the user opens the module for the first time."""
        ScriptedLoadableModuleWidget.setup(self)
        self.logic = MedSAMSlicerLogic()
        self.usage = qt.QLabel(
            _(
                "Place an ROI (Markups) around a structure, then run in the Python console:\n\n"
                'logic = slicer.util.getModuleLogic("MedSAMSlicer")\n'
                "segmentID = logic.segmentROI(volumeNode, roiNode, segmentationNode)"
            )
        )
        self.usage.setWordWrap(True)
        self.usage.setTextInteractionFlags(qt.Qt.TextSelectableByMouse)
        self.layout.addWidget(self.usage)
        self.layout.addStretch(1)

    def cleanup(self):
        """Called when the module is unloaded or Slicer exits: the model's memory is freed."""
        self.logic.releaseModel()


class MedSAMSlicerLogic(ScriptedLoadableModuleLogic):
    """Segments with MedSAM; works without the widget.

    Usage example::

        logic = slicer.util.getModuleLogic("MedSAMSlicer")
        segmentID = logic.segmentROI(volumeNode, roiNode, segmentationNode)
        logic.undo(segmentationNode)
    """

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        self._session = None
        self._loaded = None

    def segmentROI(
        self,
        volumeNode,
        roiNode,
        segmentationNode,
        segmentID=None,
        model="lite",
        device="auto",
        axis="auto",
        window="auto",
        propagation="path",
        progress=None,
        keySlices=(),
    ):
        """Segment what an ROI holds in a volume, and return the ID of the segment.

        To correct it, call this again with its ID and key slices: flat ROIs around the structure in single slices of
        any of the three directions, or slices painted by hand (see `paintedSlice`). Only what lies between a key slice
        and its neighbors changes. Called again without a key slice, its correction is taken back.

        :param volumeNode: the CT or MRI; it is never changed.
        :param roiNode: a Markups ROI around the structure, in any orientation; None to follow the structure from the
            first key slice to both sides until it ends.
        :param segmentationNode: receives the segment; its other segments stay as they are.
        :param segmentID: the segment whose content is replaced; by default a new one is added.
        :param model: name of known weights ("lite", "vit_b", ...) or path of a checkpoint.
        :param device: "auto", "cuda", "mps" or "cpu".
        :param axis: direction of the slices, "auto", "i", "j" or "k".
        :param window: "auto", "abdomen", "lung", "brain", "mediastinum", "bone", "mr", "full" or "LEVEL/WIDTH".
        :param propagation: "path", "reference" (LiteMedSAM's official one) or "per-slice".
        :param progress: called after every slice with (done, total); it stops the segmentation by returning False,
            which keeps the slices that are done (a correction is made in whole or not at all).
        :param keySlices: flat Markups ROIs, or what `paintedSlice` returns.
        :raises ValueError: if a node is missing or unsuitable, or an option is unknown; nothing is changed then.
        :raises RuntimeError: if the weights are not on this computer, see `fetchModel`.
        """
        rois = [node for node in (roiNode, *keySlices) if hasattr(node, "IsA")]
        # With neither an ROI nor a key slice, the missing ROI is what has to be told.
        session = self._sessionFor(model, device, volumeNode, rois if keySlices else [roiNode], segmentationNode)
        steps = session.segment_by_slice(
            volumeNode,
            roiNode,
            segmentationNode,
            segmentID,
            key_slices=keySlices,
            axis=axis,
            window=window,
            propagation=propagation,
        )
        for step in steps:
            segmentID = step.segment_id
            if progress and progress(step.done, step.total) is False:
                steps.close()
        return segmentID

    def paintedSlice(self, volumeNode, segmentationNode, segmentID, axis, index):
        """Make a key slice of what a segment holds in one slice, after it was painted or erased by hand.

        :param axis: of the slice, "i", "j" or "k".
        :param index: of the slice, in voxels of the volume.
        """
        from MedSAMSlicerLib.mrml.key_slices import painted_slice
        from MedSAMSlicerLib.volume.geometry import AXES

        if axis not in AXES:
            raise ValueError(f"The axis {axis!r} is unknown: give i, j or k.")
        return painted_slice(segmentationNode, segmentID, volumeNode, AXES[axis], index)

    def slicesToReview(self, segmentationNode, segmentID):
        """List the slices of a segment, that one first where a key slice promises most.

        :return: objects with ``axis`` (0 = I, 1 = J, 2 = K), ``index``, ``confidence`` (from 0 to 1, an estimate of the
            slice's Dice) and ``doubtful`` (how many pixels are expected to be wrong); empty for a segment that this
            logic did not make.
        """
        return self._session.review(segmentationNode, segmentID) if self._session is not None else []

    def undo(self, segmentationNode):
        """Take the last segmentation back; False if there is none."""
        return self._session is not None and self._session.undo(segmentationNode)

    def redo(self, segmentationNode):
        """Bring back what was undone; False if there is nothing."""
        return self._session is not None and self._session.redo(segmentationNode)

    def fetchModel(self, name="lite", progress=None):
        """Download the weights of a model and check them; to call this is to agree to the download.

        :param name: see `MedSAMSlicerLib.store.catalog` for size, license and source of each.
        :param progress: called with (done, total) in bytes.
        :raises RuntimeError: if these weights can only be downloaded by hand; the text says from where.
        :raises OSError: if no source can be reached, or the disk is full.
        """
        from MedSAMSlicerLib.store.weights import WeightsStore

        return WeightsStore().fetch(name, progress)

    def importModel(self, name, path):
        """Take over weights that the user has downloaded, such as MedSAM ViT-B ("vit_b").

        :raises ValueError: if the file is not what the name says.
        """
        from pathlib import Path

        from MedSAMSlicerLib.store.weights import WeightsStore

        return WeightsStore().import_file(name, Path(path))

    def releaseModel(self):
        """Forget the model and all embeddings, and what could be undone."""
        self._session = None
        self._loaded = None

    def _sessionFor(self, model, device, volumeNode, roiNodes, segmentationNode):
        """Load the model, after a look at the nodes: nobody waits for a model to hear that a node is missing."""
        from MedSAMSlicerLib.mrml.markups import world_corners
        from MedSAMSlicerLib.mrml.segments import require_labelmaps
        from MedSAMSlicerLib.mrml.session import SegmentationSession
        from MedSAMSlicerLib.mrml.volumes import voxels

        voxels(volumeNode)
        for roiNode in roiNodes:
            world_corners(roiNode)
        require_labelmaps(segmentationNode)
        if self._loaded != (model, device):
            from MedSAMSlicerLib.loading import load_predictor

            predictor = load_predictor(model, device)
            if self._session is None:
                self._session = SegmentationSession(predictor)
            else:
                self._session.predictor = predictor
            self._loaded = (model, device)
        return self._session


class MedSAMSlicerTest(ScriptedLoadableModuleTest):
    """Runs in Slicer, by "Reload and Test" and by ctest."""

    def setUp(self):
        """Clear the scene."""
        slicer.mrmlScene.Clear()

    def runTest(self):
        """Run all tests."""
        self.setUp()
        self.test_missingVolumeIsNamed()

    def test_missingVolumeIsNamed(self):
        """A missing volume is reported before any model is loaded."""
        with self.assertRaisesRegex(ValueError, "No volume is given"):
            MedSAMSlicerLogic().segmentROI(None, None, None)
