"""A model that remembers slices, on real nodes and without a word on the propagation: the smallest network, random
weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
import slicer

from box_predictor import BoxPredictor
from geometries import FIRST, LAST
from MedSAMSlicerLib.cli.main import main
from MedSAMSlicerLib.headless.scene import HeadlessScene
from MedSAMSlicerLib.inference.tracking_predictor import TrackingPredictor
from MedSAMSlicerLib.model import build_model, save_checkpoint
from MedSAMSlicerLib.mrml.key_slices import painted_slice
from MedSAMSlicerLib.mrml.segments import SegmentWriter, segment_mask, segment_span
from MedSAMSlicerLib.mrml.session import SegmentationSession
from MedSAMSlicerLib.mrml.slice_boxes import lay
from MedSAMSlicerLib.mrml.structure import Structure
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
from MedSAMSlicerLib.volume.files import Volume, write_labelmap
from MedSAMSlicerLib.volume.key_slices import KeySlice
from MedSAMSlicerLib.volume.labels import read_labels
from MedSAMSlicerLib.volume.memory_propagation import propagate_memory
from MedSAMSlicerLib.volume.slice_masks import collect
from MedSAMSlicerLib.volume.slice_stack import SliceStack
from tiny_tracker import tiny_file, tiny_tracker

SPACING = (0.8, 0.8, 3.0)
MIDDLE = 4
BOX = Box(FIRST[0], FIRST[1], LAST[0], LAST[1])


@pytest.fixture(scope="module")
def tracker() -> TrackingPredictor:
    return tiny_tracker()


@pytest.fixture
def session(tracker) -> SegmentationSession:
    return SegmentationSession(tracker)


@pytest.fixture
def ijk_to_ras() -> np.ndarray:
    return np.diag([*SPACING, 1.0])


def stack(a_ct: np.ndarray) -> SliceStack:
    return SliceStack(a_ct, SPACING, axis="k")


def expected(a_ct: np.ndarray, tracker, boxes, keys=None, farthest=None) -> np.ndarray:
    """What the memory finds, put together: bool (K, J, I)."""
    return collect(propagate_memory(stack(a_ct), boxes, tracker, EmbeddingCache(), keys, farthest), stack(a_ct))


def roi_slices() -> dict[int, Box]:
    return dict.fromkeys(range(FIRST[2], LAST[2] + 1), BOX)


def on_slice(roi, volume_node) -> slicer.vtkMRMLMarkupsROINode:
    lay(roi, volume_node, 2, MIDDLE)
    return roi


def test_a_3d_box_is_followed_from_its_middle_and_undone(session, tracker, volume_node, a_ct, roi, segmentation):
    steps = list(session.segment_by_slice(volume_node, roi, segmentation))
    assert steps[0].result.index == MIDDLE
    (segment_id,) = {step.segment_id for step in steps}
    mask = segment_mask(segmentation, segment_id, volume_node)
    assert mask.any()
    np.testing.assert_array_equal(mask, expected(a_ct, tracker, roi_slices()))
    assert {each.index for each in session.review(segmentation, segment_id)} == set(range(FIRST[2], LAST[2] + 1))
    other = session.segment(volume_node, roi, segmentation, propagation="path")
    assert not np.array_equal(segment_mask(segmentation, other, volume_node), mask)
    session.undo(segmentation)
    session.undo(segmentation)
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 0


def test_a_slice_that_the_user_looks_at_comes_first_and_changes_nothing(
    session, tracker, volume_node, a_ct, roi, segmentation
):
    task = session.begin(volume_node, segmentation, [Structure.of_roi(volume_node, roi)], first=(2, LAST[2]))
    steps = list(session.run(task))
    assert (steps[0].result.index, steps[0].result.final) == (LAST[2], False)
    mask = segment_mask(segmentation, task.segment_ids[0], volume_node)
    np.testing.assert_array_equal(mask, expected(a_ct, tracker, roi_slices()))


@pytest.mark.parametrize("slices", [None, 2, 1])
def test_a_box_on_a_slice_is_followed_as_far_as_the_limit(
    session, tracker, volume_node, a_ct, roi, segmentation, slices
):
    limit = None if slices is None else (slices + 0.5) * SPACING[2]
    task = session.begin(
        volume_node, segmentation, [Structure.of_roi(volume_node, on_slice(roi, volume_node))], limit=limit
    )
    list(session.run(task))
    (segment_id,) = task.segment_ids
    key = KeySlice(2, MIDDLE, BOX)
    mask = segment_mask(segmentation, segment_id, volume_node)
    np.testing.assert_array_equal(mask, expected(a_ct, tracker, {}, {MIDDLE: key}, slices))
    span = segment_span(segmentation, segment_id, volume_node, 2)
    assert span == range(0, 10) if slices is None else span == range(MIDDLE - slices, MIDDLE + slices + 1)
    assert task.outcomes[segment_id].open_ends == ((0, 9) if slices is None else ())


def test_a_painted_slice_stays_and_the_other_side_does_too_and_undo_restores(session, volume_node, roi, segmentation):
    segment_id = session.segment(volume_node, roi, segmentation)
    before, reviewed = segment_mask(segmentation, segment_id, volume_node), session.review(segmentation, segment_id)
    painted = before.copy()
    painted[6] = False
    painted[6, 8:13, 8:14] = True
    SegmentWriter(segmentation, segment_id, volume_node).replace([(painted, (0, 0, 0))])
    key = painted_slice(segmentation, segment_id, volume_node, 2, 6)
    session.segment(volume_node, roi, segmentation, segment_id, key_slices=[key])
    after = segment_mask(segmentation, segment_id, volume_node)
    np.testing.assert_array_equal(after[6], painted[6])
    assert not np.array_equal(after[[5, 7]], before[[5, 7]])
    session.undo(segmentation)
    np.testing.assert_array_equal(segment_mask(segmentation, segment_id, volume_node), painted)
    assert session.review(segmentation, segment_id) == reviewed


def test_a_correction_computes_only_what_lies_up_to_the_next_known_slice(
    session, tracker, volume_node, roi, segmentation, monkeypatch
):
    segment_id = session.segment(volume_node, roi, segmentation)
    followed = []
    follow = TrackingPredictor.follow
    monkeypatch.setattr(
        TrackingPredictor, "follow", lambda self, *arguments: followed.append(1) or follow(self, *arguments)
    )
    key = KeySlice(2, 6, Box(8, 8, 14, 13))
    session.segment(volume_node, roi, segmentation, segment_id, key_slices=[key])
    assert len(followed) == 2, "slices 5 and 7 of 2 to 7"
    session.segment(volume_node, roi, segmentation, segment_id)
    assert len(followed) == 2, "to take it back costs nothing"


def test_a_key_slice_of_another_direction_fixes_its_slice(session, volume_node, roi, segmentation):
    segment_id = session.segment(volume_node, roi, segmentation)
    held = segment_mask(segmentation, segment_id, volume_node)
    here = np.zeros_like(held[:, :, 12])
    here[3:6, 8:12] = True
    session.segment(volume_node, roi, segmentation, segment_id, key_slices=[KeySlice(0, 12, mask=here)])
    after = segment_mask(segmentation, segment_id, volume_node)
    np.testing.assert_array_equal(after[:, :, 12], here)


def test_a_stop_keeps_what_is_done_and_a_stopped_correction_changes_nothing(session, volume_node, roi, segmentation):
    steps = session.segment_by_slice(volume_node, roi, segmentation)
    first = [next(steps) for _ in range(3)]
    steps.close()
    segment_id = first[0].segment_id
    kept = segment_mask(segmentation, segment_id, volume_node)
    assert set(np.flatnonzero(kept.any(axis=(1, 2))).tolist()) <= {step.result.index for step in first}
    assert kept[MIDDLE].any()
    key = KeySlice(2, 6, Box(8, 8, 14, 13))
    steps = session.segment_by_slice(volume_node, roi, segmentation, segment_id, key_slices=[key])
    for _ in range(8):
        next(steps)
    steps.close()
    np.testing.assert_array_equal(segment_mask(segmentation, segment_id, volume_node), kept)


class TestBadInput:
    """Each is told in a sentence, and nothing is changed."""

    @pytest.fixture(autouse=True)
    def nothing_changes(self, session, volume_node, roi, segmentation):
        segment_id = session.segment(volume_node, roi, segmentation)
        before = segment_mask(segmentation, segment_id, volume_node)
        yield
        assert segmentation.GetSegmentation().GetSegmentIDs() == (segment_id,)
        np.testing.assert_array_equal(segment_mask(segmentation, segment_id, volume_node), before)

    def test_neither_a_box_nor_a_key_slice(self, session, volume_node, segmentation):
        with pytest.raises(ValueError, match="ROI"):
            session.segment(volume_node, None, segmentation)
        across = KeySlice(0, 12, Box(3, 3, 8, 6))
        with pytest.raises(ValueError, match="a key slice along the axis of the slices"):
            session.segment(volume_node, None, segmentation, axis="k", key_slices=[across])

    def test_a_key_slice_that_shows_nothing(self, session, volume_node, segmentation, a_ct):
        empty = KeySlice(2, 3, mask=np.zeros(a_ct.shape[1:], dtype=bool))
        with pytest.raises(ValueError, match="Nothing was found in slice 3: draw the box around the structure"):
            session.segment(volume_node, None, segmentation, key_slices=[empty])

    def test_a_key_slice_of_another_size(self, session, volume_node, roi, segmentation):
        wrong = KeySlice(2, 3, mask=np.ones((3, 3), dtype=bool))
        with pytest.raises(ValueError, match=r"shape \(3, 3\), its slice"):
            session.segment(volume_node, roi, segmentation, axis="k", key_slices=[wrong])

    def test_no_memory_is_left_in_the_midst(self, session, tracker, volume_node, roi, segmentation, monkeypatch):
        calls = []

        def follow(self, *arguments):
            calls.append(arguments)
            if len(calls) > 2:
                raise RuntimeError("CUDA out of memory")
            return real(self, *arguments)

        real = TrackingPredictor.follow
        monkeypatch.setattr(TrackingPredictor, "follow", follow)
        (segment_id,) = segmentation.GetSegmentation().GetSegmentIDs()
        for target in (None, segment_id):
            calls.clear()
            session.cache.clear()
            with pytest.raises(RuntimeError, match="out of memory"):
                session.segment(volume_node, roi, segmentation, target, key_slices=[KeySlice(2, 6, BOX)])

    @pytest.mark.parametrize("propagation", ["reference", "per-slice"])
    def test_a_propagation_that_takes_no_key_slices(self, session, volume_node, roi, segmentation, propagation):
        with pytest.raises(ValueError, match="takes no key slices: use 'auto'"):
            session.segment(volume_node, roi, segmentation, key_slices=[KeySlice(2, 6, BOX)], propagation=propagation)
        with pytest.raises(ValueError, match="can't follow a box on one slice: use 'auto'"):
            session.segment(volume_node, on_slice(roi, volume_node), segmentation, propagation=propagation)

    def test_a_model_without_a_memory(self, volume_node, roi, segmentation):
        with pytest.raises(ValueError, match="This model remembers no slices: choose MedSAM2, or another propagation"):
            SegmentationSession(BoxPredictor()).segment(volume_node, roi, segmentation, propagation="memory")


@pytest.mark.parametrize("count", [2, 60])
def test_two_slices_and_many(headless: HeadlessScene, session, tracker, segmentation, count):
    voxels = np.random.default_rng(5).normal(40, 20, (count, 12, 16)).astype(np.int16)
    volume = headless.add_volume(Volume(voxels, np.diag([1.0, 1.0, 2.0, 1.0]), "CT"))
    middle = count // 2
    structure = Structure.of_slice(volume, middle, (3, 3, 12, 9), "k")
    session.cache.budget = 1 << 20
    task = session.begin(volume, segmentation, [structure])
    list(session.run(task))
    (segment_id,) = task.segment_ids
    span = segment_span(segmentation, segment_id, volume, 2)
    assert middle in span
    assert len(span) == count
    assert session.cache.nbytes <= 1 << 20


class TestCommand:
    """The command line, with the network in a file: only its name is given."""

    @pytest.fixture
    def model(self, tmp_path):
        return tiny_file(tmp_path / "tiny.pt")

    @pytest.fixture
    def ct_file(self, a_ct, ijk_to_ras, tmp_path):
        write_labelmap(tmp_path / "CT.nrrd", a_ct, ijk_to_ras)
        return tmp_path / "CT.nrrd"

    def segment(self, model, volume, output, *more) -> int:
        start = ("segment", "--model", model, "--device", "cpu", "--axis", "k")
        return main([*map(str, (*start, "--volume", volume, "--output", output, *more))])

    def test_box(self, model, ct_file, out, tracker, a_ct):
        assert self.segment(model, ct_file, out / "o.nrrd", "--box", *FIRST, *LAST) == 0
        np.testing.assert_array_equal(read_labels(out / "o.nrrd").mask(1), expected(a_ct, tracker, roi_slices()))

    def test_slice_box_and_limit(self, model, ct_file, out, tracker, a_ct):
        box = ("--slice-box", MIDDLE, FIRST[0], FIRST[1], LAST[0], LAST[1])
        assert self.segment(model, ct_file, out / "o.nrrd", *box, "--limit", 7, "--json", out / "o.json") == 0
        keys = {MIDDLE: KeySlice(2, MIDDLE, BOX)}
        np.testing.assert_array_equal(read_labels(out / "o.nrrd").mask(1), expected(a_ct, tracker, {}, keys, 2))
        (figures,) = json.loads((out / "o.json").read_text())["segments"]
        assert sorted(each["index"] for each in figures["slices"]) == [2, 3, 4, 5, 6]

    def test_memory_is_refused_for_other_models(self, ct_file, out, tmp_path, capsys):
        save_checkpoint(build_model("tiny"), tmp_path / "plain.pth")
        arguments = ("--box", *FIRST, *LAST, "--propagation", "memory")
        assert self.segment(tmp_path / "plain.pth", ct_file, out / "o.nrrd", *arguments) == 1
        assert "This model remembers no slices: choose MedSAM2" in capsys.readouterr().err
        assert not (out / "o.nrrd").exists()
