"""The MedSAM module of 3D Slicer: segments what an ROI holds in a CT or MRI volume."""

import sys
import threading
import unittest

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
from slicer.util import VTKObservationMixin


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
        slicer.app.connect("startupCompleted()", onStartupCompleted)


def onStartupCompleted():
    """Called when Slicer is up: what other modules must know of this one is registered. May be called again."""
    from MedSAMSlicerLib.app.effect_registration import registerEditorEffect
    from MedSAMSlicerLib.app.sample_data import registerSampleData

    registerSampleData()
    registerEditorEffect()


class MedSAMSlicerWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The module's panel in Slicer; what it does is in `MedSAMSlicerLib.app.panel`."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.panel = None

    def setup(self):
        """Called when the user opens the module for the first time."""
        ScriptedLoadableModuleWidget.setup(self)
        from MedSAMSlicerLib.app.panel import Panel

        uiWidget = slicer.util.loadUI(self.resourcePath("UI/MedSAMSlicer.ui"))
        self.layout.addWidget(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = MedSAMSlicerLogic()
        self.panel = Panel(slicer.util.childWidgetVariables(uiWidget), self.logic)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneReplaced)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneReplaced)
        self.refresh()

    def enter(self):
        """Called each time the user opens the module."""
        self.panel.show(self.logic.getParameterNode())
        self.panel.enter()

    def exit(self):
        """Called each time the user leaves the module."""
        self.panel.leave()

    def cleanup(self):
        """Called when the module is unloaded or Slicer exits: the model's memory is freed."""
        self.removeObservers()
        if self.panel is not None:
            self.panel.close()
            self.logic.releaseModel()
        self.panel = None

    def onReload(self):
        """Called by the button Reload of developers: the library is loaded anew, too."""
        self.cleanup()
        for name in list(sys.modules):
            if name.split(".")[0] == "MedSAMSlicerLib":
                del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def onSceneStartClose(self, caller, event):
        """Called before the scene is closed: nothing may hold on to its nodes."""
        self.panel.forget()

    def onSceneReplaced(self, caller, event):
        """Called after a scene was closed or loaded; the node selectors learn of that only afterwards."""
        qt.QTimer.singleShot(0, self.refresh)

    def refresh(self):
        """Show the parameters of the scene, if the module is open."""
        if self.panel is not None and self.parent.isEntered:
            self.enter()


class MedSAMSlicerLogic(ScriptedLoadableModuleLogic):
    """Segments with MedSAM; works without the widget.

    Usage example::

        logic = slicer.util.getModuleLogic("MedSAMSlicer")
        segmentID = logic.segmentROI(volumeNode, roiNode, segmentationNode)
        logic.undo(segmentationNode)

    The options that all calls take:

    - ``model``: name of known weights ("lite", "vit_b", ...) or path of a checkpoint.
    - ``device``: "auto", "cuda", "mps" or "cpu".
    - ``axis``: direction of the slices, "auto", "i", "j" or "k".
    - ``window``: "auto", "abdomen", "lung", "brain", "mediastinum", "bone", "mr", "full" or "LEVEL/WIDTH".
    - ``limit``: how far a structure is followed from a box on one slice to either side, in millimeters; by default
      until it ends. The ends of 3-D boxes hold without it.
    - ``propagation``: "path", "memory" (of models that remember slices), "reference" (LiteMedSAM's official one) or
      "per-slice"; by default that which suits the model, "memory" or "path".
    - ``editorNode``: a vtkMRMLSegmentEditorNode whose masking and overwrite rules hold; by default there are none.
    - ``progress``: called after every slice with (done, total); it stops the segmentation by returning False.
    - ``cancel``: a threading.Event; the segmentation stops once it is set. A stop keeps the slices that are done (a
      correction is made in whole or not at all).

    All raise ValueError if a node is missing or unsuitable, or an option is unknown, with nothing changed, and
    RuntimeError if the weights are not on this computer, see `fetchModel`. The volume is never changed.
    """

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        self._session = None
        self._worker = None
        self._loaded = None
        self._loading = threading.Lock()

    def getParameterNode(self):
        """Return the module's parameters, which are saved with the scene."""
        from MedSAMSlicerLib.app.parameters import MedSAMSlicerParameterNode

        return MedSAMSlicerParameterNode(super().getParameterNode())

    @property
    def session(self):
        """The session, which holds the embeddings of slices and the histories of segmentations."""
        if self._session is None:
            from MedSAMSlicerLib.app.segment_editor import save_editor_state
            from MedSAMSlicerLib.mrml.session import SegmentationSession

            self._session = SegmentationSession(save_state=save_editor_state)
        return self._session

    @property
    def worker(self):
        """The thread in which computations run beside a responsive Slicer."""
        if self._worker is None:
            from MedSAMSlicerLib.app.worker import Worker

            self._worker = Worker()
        return self._worker

    def segmentROI(self, volumeNode, roiNode, segmentationNode, segmentID=None, keySlices=(), **options):
        """Segment what an ROI holds in a volume, and return the ID of the segment.

        An ROI that the module's *Place ROI* has placed in a slice view is a box on that slice, until its depth is set:
        the structure is followed to both sides until it ends, and the ROI takes that depth. Any other is a 3-D box.

        To correct it, call this again with its ID and key slices: flat ROIs around the structure in single slices of
        any of the three directions, or slices painted by hand (see `paintedSlice`). Only what lies between a key slice
        and its neighbors changes. Called again without a key slice, its correction is taken back.

        :param roiNode: a Markups ROI around the structure, a 3-D box in any orientation; None to follow the structure
            from the first key slice.
        :param segmentID: the segment whose content is replaced; by default a new one is added.
        :param keySlices: flat Markups ROIs, or what `paintedSlice` returns.
        """
        from MedSAMSlicerLib.mrml.boxes import show_depth
        from MedSAMSlicerLib.mrml.structure import Structure

        structure = Structure.of_roi(volumeNode, roiNode, segmentID, keySlices)
        (segmentID,) = self._segment(volumeNode, segmentationNode, [structure], **options)
        if roiNode is not None:
            show_depth(roiNode, volumeNode, segmentationNode, segmentID)
        return segmentID

    def segmentROIs(self, volumeNode, roiNodes, segmentationNode, **options):
        """Segment what several ROIs hold, one segment each, in one step of undo; return the segments' IDs.

        Example::

            rois = slicer.util.getNodesByClass("vtkMRMLMarkupsROINode")
            logic.segmentROIs(volumeNode, rois, segmentationNode)
        """
        from MedSAMSlicerLib.mrml.boxes import show_depth
        from MedSAMSlicerLib.mrml.structure import Structure

        roiNodes = list(roiNodes)
        structures = [Structure.of_roi(volumeNode, roiNode) for roiNode in roiNodes]
        segmentIDs = self._segment(volumeNode, segmentationNode, structures, **options)
        for roiNode, segmentID in zip(roiNodes, segmentIDs, strict=False):
            show_depth(roiNode, volumeNode, segmentationNode, segmentID)
        return segmentIDs

    def segmentBox(self, volumeNode, first, last, segmentationNode, segmentID=None, name="Segment", **options):
        """Segment what the 3-D box from one voxel to another holds, and return the ID of the segment.

        Example: ``logic.segmentBox(volumeNode, (120, 80, 10), (180, 150, 25), segmentationNode, name="liver")``

        :param first: the box's first voxel (I, J, K).
        :param last: its last voxel, inclusive.
        """
        from MedSAMSlicerLib.mrml.structure import Structure

        structure = Structure.of_voxels(volumeNode, first, last, name, segmentID)
        return self._segment(volumeNode, segmentationNode, [structure], **options)[0]

    def segmentSliceBox(
        self, volumeNode, index, box, segmentationNode, axis="k", segmentID=None, name="Segment", **options
    ):
        """Follow a structure from a box on one slice to both sides until it ends, and return the ID of the segment.

        Example: ``logic.segmentSliceBox(volumeNode, 12, (120, 80, 180, 150), segmentationNode, limit=60)``

        :param index: of the slice, in voxels.
        :param box: (x0, y0, x1, y1) in voxels, inclusive; x counts the lower and y the higher of the two other axes, so
            I and J for slices along K.
        :param axis: of the slice, "i", "j" or "k".
        """
        from MedSAMSlicerLib.mrml.structure import Structure

        structure = Structure.of_slice(volumeNode, index, box, axis, name, segmentID)
        return self._segment(volumeNode, segmentationNode, [structure], **options)[0]

    def segmentSlices(self, volumeNode, boxes, segmentationNode, axis="k", segmentID=None, name="Segment", **options):
        """Segment a structure of which single slices have a box each, and the slices between them; return its ID.

        Example::

            boxes = {10: (120, 80, 180, 150), 15: (110, 70, 190, 160)}
            logic.segmentSlices(volumeNode, boxes, segmentationNode)

        :param boxes: slice index -> (x0, y0, x1, y1) in voxels, inclusive; x counts the lower and y the higher of the
            two other axes, so I and J for slices along K.
        :param axis: that the slice indices count, "i", "j" or "k".
        """
        from MedSAMSlicerLib.mrml.structure import Structure

        structure = Structure.of_slices(boxes, axis, name, segmentID)
        return self._segment(volumeNode, segmentationNode, [structure], **options)[0]

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
        return self.session.review(segmentationNode, segmentID)

    def undo(self, segmentationNode):
        """Take the last run back, but not what was changed since (ValueError if all was); false if there is none."""
        return self.session.undo(segmentationNode)

    def redo(self, segmentationNode):
        """Bring back what was undone, see `undo`."""
        return self.session.redo(segmentationNode)

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

        from MedSAMSlicerLib.loading import import_weights

        return import_weights(name, Path(path))

    def loadPredictor(self, model=None, device=None):
        """Load a model, unless it is the one that is loaded, from the same file; may be called in any thread.

        :param model: by default the one that the user has chosen in the module, as for ``device``.
        :raises RuntimeError: if the weights are not on this computer.
        """
        if model is None or device is None:
            from MedSAMSlicerLib.app.settings import setting

            model, device = model or setting("model"), device or setting("device")
        from MedSAMSlicerLib.loading import file_state, load_predictor

        with self._loading:
            wanted = (model, device, file_state(model))
            if self._loaded != wanted:
                self.session.predictor = load_predictor(model, device)
                self._loaded = wanted
            return self.session.predictor

    def startSegmentation(self, volumeNode, segmentationNode, structures, callbacks, *, model, device, **options):
        """Segment structures while Slicer goes on, and return the job, which can be stopped.

        :param structures: `MedSAMSlicerLib.mrml.structure.Structure`.
        :param callbacks: a dict of onStep, onMessage, onEnd and keepOnStop, see `MedSAMSlicerLib.app.segmentation_job`.
        """
        from MedSAMSlicerLib.app.segmentation_job import segmentation_job

        task = self.session.begin(volumeNode, segmentationNode, structures, **options)
        job = segmentation_job(
            task,
            lambda instead: self.loadPredictor(model, instead or device),
            self.session.cache,
            **callbacks,
        )
        return self.worker.run(job)

    def windowFor(self, volumeNode):
        """Name the window through which the model sees a volume: the user's choice in the module, or "auto"."""
        parameters = self.getParameterNode()
        return parameters.window if parameters.inputVolume is volumeNode else "auto"

    def releaseModel(self):
        """Stop what runs, forget the model and all embeddings, and what could be undone."""
        if self._worker is not None:
            self._worker.close()
        self._worker = self._session = self._loaded = None

    def _segment(
        self,
        volumeNode,
        segmentationNode,
        structures,
        *,
        model="lite",
        device="auto",
        progress=None,
        cancel=None,
        editorNode=None,
        **options,
    ):
        """Segment at once. The nodes are looked at first: nobody waits for a model to hear that one is missing."""
        task = self.session.begin(volumeNode, segmentationNode, structures, editor_node=editorNode, **options)
        from MedSAMSlicerLib.inference.enduring_predictor import EnduringPredictor

        load, forget = lambda instead: self.loadPredictor(model, instead or device), self.session.cache.clear
        steps = self.session.run(task, EnduringPredictor(load, forget))
        for step in steps:
            if (progress and progress(step.done, step.total) is False) or (cancel and cancel.is_set()):
                steps.close()
        return task.segment_ids


class MedSAMSlicerTest(ScriptedLoadableModuleTest):
    """Runs in Slicer, by "Reload and Test" and by ctest; the tests are in `MedSAMSlicerLib.app.self_test`."""

    def runTest(self):
        """Run all tests, as "Reload and Test" does."""
        self.test_module()

    def test_module(self):
        """Run all tests; the scene is cleared."""
        from MedSAMSlicerLib.app.self_test import SelfTest

        result = unittest.TextTestRunner(verbosity=2).run(unittest.defaultTestLoader.loadTestsFromTestCase(SelfTest))
        for _test, reason in result.skipped:
            self.delayDisplay(reason)
        self.assertTrue(result.wasSuccessful(), "\n".join(trace for _test, trace in result.failures + result.errors))
