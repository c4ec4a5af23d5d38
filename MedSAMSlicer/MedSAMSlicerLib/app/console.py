"""What scripts and the Python console call to segment; names and style are Slicer's."""


class Console:
    """The calls; a `MedSAMSlicerLogic` has them.

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
    - ``keepOut``: True to leave voxels that other segments hold to them; by default segments may overlap.
    - ``editorNode``: a vtkMRMLSegmentEditorNode whose masking and overwrite rules hold; by default there are none.
    - ``progress``: called after every slice with (done, total); it stops the segmentation by returning False.
    - ``cancel``: a threading.Event; the segmentation stops once it is set. A stop keeps the slices that are done (a
      correction is made in whole or not at all).

    All raise ValueError if a node is missing or unsuitable, or an option is unknown, with nothing changed, and
    RuntimeError if the weights are not on this computer, see `fetchModel`. The volume is never changed.
    """

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
        from MedSAMSlicerLib.mrml.boxes import belong
        from MedSAMSlicerLib.mrml.structure import Structure

        structure = Structure.of_roi(volumeNode, roiNode, segmentID, keySlices)
        (segmentID,) = self._segment(volumeNode, segmentationNode, [structure], **options)
        if roiNode is not None:
            belong(roiNode, volumeNode, segmentationNode, segmentID)
        return segmentID

    def segmentROIs(self, volumeNode, roiNodes, segmentationNode, **options):
        """Segment what several ROIs hold, one segment each, in one step of undo; return the segments' IDs.

        Example::

            rois = slicer.util.getNodesByClass("vtkMRMLMarkupsROINode")
            logic.segmentROIs(volumeNode, rois, segmentationNode)
        """
        from MedSAMSlicerLib.mrml.boxes import belong
        from MedSAMSlicerLib.mrml.structure import Structure

        roiNodes = list(roiNodes)
        structures = [Structure.of_roi(volumeNode, roiNode) for roiNode in roiNodes]
        segmentIDs = self._segment(volumeNode, segmentationNode, structures, **options)
        for roiNode, segmentID in zip(roiNodes, segmentIDs, strict=False):
            belong(roiNode, volumeNode, segmentationNode, segmentID)
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

    def segmentLine(self, volumeNode, lineNode, segmentationNode, shortAxisNode=None, segmentID=None, **options):
        """Follow a lesion from its measured diameter to both sides until it ends, and return the ID of the segment.

        Example: ``logic.segmentLine(volumeNode, slicer.util.getNode("L"), segmentationNode, limit=60)``

        :param lineNode: a Markups line along the longest diameter, within one slice of any of the three directions.
        :param shortAxisNode: the line across it in the same slice; without it the short axis is taken for 3/4 of the
            long one.
        """
        from MedSAMSlicerLib.mrml.diameters import lesion, structure_of_diameter

        structure = structure_of_diameter(lesion(lineNode, shortAxisNode, volumeNode), volumeNode, segmentID)
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
        keepOut=False,
        **options,
    ):
        """Segment at once. The nodes are looked at first: nobody waits for a model to hear that one is missing."""
        from MedSAMSlicerLib.mrml.editing_rules import outside_others

        if keepOut and editorNode is not None:
            raise ValueError("keepOut and editorNode were both given: the editor's masking says where segments may go.")
        editorNode = outside_others() if keepOut else editorNode
        task = self.session.begin(volumeNode, segmentationNode, structures, editor_node=editorNode, **options)
        from MedSAMSlicerLib.inference.enduring_predictor import EnduringPredictor

        load, forget = lambda instead: self.loadPredictor(model, instead or device), self.session.cache.clear
        steps = self.session.run(task, EnduringPredictor(load, forget))
        for step in steps:
            if (progress and progress(step.done, step.total) is False) or (cancel and cancel.is_set()):
                steps.close()
        return task.segment_ids
