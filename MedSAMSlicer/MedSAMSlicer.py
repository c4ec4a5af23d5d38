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

from MedSAMSlicerLib.app.console import Console


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


class MedSAMSlicerLogic(Console, ScriptedLoadableModuleLogic):
    """Segments with MedSAM; works without the widget.

    What scripts call is in `MedSAMSlicerLib.app.console`; here is what the widget needs beside that.
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

    def loadPredictor(self, model=None, device=None):
        """Load a model, unless it is the one that is loaded, from the same file; may be called in any thread.

        :param model: by default the one that the user has chosen in the module, as for ``device``.
        :raises RuntimeError: if the weights are not on this computer.
        """
        if model is None or device is None:
            from MedSAMSlicerLib.app.settings import setting

            model, device = model or setting("model"), device or setting("device")
        from MedSAMSlicerLib.app.requirements import read_torch
        from MedSAMSlicerLib.loading import file_state, load_predictor

        read_torch()
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
