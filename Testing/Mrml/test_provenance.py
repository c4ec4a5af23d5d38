"""Segments tell where they come from: in files, through undo, and well enough to be made again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import slicer
import torch

from box_predictor import BoxPredictor
from geometries import FIRST, GEOMETRIES, LAST
from MedSAMSlicerLib import __version__, loading
from MedSAMSlicerLib.cli.main import main
from MedSAMSlicerLib.headless.scene import HeadlessScene, save_segmentation
from MedSAMSlicerLib.model import build_model, save_checkpoint
from MedSAMSlicerLib.model.adapter import Adapter
from MedSAMSlicerLib.model.checkpoint import save_adapter
from MedSAMSlicerLib.mrml.key_slices import painted_slice
from MedSAMSlicerLib.mrml.provenance import read_fields
from MedSAMSlicerLib.mrml.segments import SegmentWriter, add_segment, segment_mask
from MedSAMSlicerLib.mrml.structure import Structure
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.store.folder import sha256_of
from MedSAMSlicerLib.volume.files import read_volume, write_labelmap
from MedSAMSlicerLib.volume.key_slices import KeySlice
from MedSAMSlicerLib.volume.provenance import Prompts

SECOND = ((22, 17, 0), (28, 22, 9))
LIVER, KIDNEY = ("5", "6", "2", "20", "15", "7"), ("22", "17", "0", "28", "22", "9")


@pytest.fixture
def ijk_to_ras() -> np.ndarray:
    return GEOMETRIES["oblique anisotropic"]


def load(headless: HeadlessScene, path: Path) -> slicer.vtkMRMLSegmentationNode:
    """Load a segmentation as Slicer does."""
    node = headless.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    storage = slicer.vtkMRMLSegmentationStorageNode()
    headless.scene.AddNode(storage)
    storage.SetFileName(str(path))
    assert storage.ReadData(node)
    return node


def fields_of(segmentation: slicer.vtkMRMLSegmentationNode, segment_id: str) -> dict[str, str]:
    return read_fields(segmentation.GetSegmentation().GetSegment(segment_id))


def test_a_segment_tells_its_run_also_after_it_was_saved_and_loaded(headless, session, volume_node, segmentation, out):
    structure = Structure.of_voxels(volume_node, FIRST, LAST, "lesion")
    list(session.run(session.begin(volume_node, segmentation, [structure], window="40/400", axis="k")))
    (segment_id,) = segmentation.GetSegmentation().GetSegmentIDs()
    fields = fields_of(segmentation, segment_id)
    assert fields["Model"] == "no file; weights box-predictor"
    assert fields["Propagation"] == "path"
    assert fields["Window"].startswith("40/400 (")
    assert fields["Version"] == __version__
    assert "in slice K " in fields["Doubt"]
    assert json.loads(fields["Prompts"])["edges"] == [4.5, 5.5, 1.5, 20.5, 15.5, 7.5]
    save_segmentation(segmentation, out / "s.seg.nrrd")
    loaded = load(headless, out / "s.seg.nrrd")
    assert fields_of(loaded, loaded.GetSegmentation().GetNthSegmentID(0)) == fields


def test_no_name_of_a_volume_no_path_and_no_name_of_a_box_gets_into_the_file(
    headless, session, volume_node, segmentation, roi, out
):
    for node in (volume_node, segmentation):
        node.SetName("Doe^Jane 1950-01-02")
    roi.SetName("Doe Jane's lesion")
    segment_id = session.segment(volume_node, roi, segmentation)
    segmentation.GetSegmentation().GetSegment(segment_id).SetName("lesion")
    save_segmentation(segmentation, out / "s.seg.nrrd")
    text = (out / "s.seg.nrrd").read_bytes()
    assert b"MedSAM.Volume" in text
    assert b"Jane" not in text
    assert str(out).encode() not in text


def test_undo_and_redo_take_along_what_a_segment_tells(session, volume_node, segmentation):
    def run(first, last, segment_id=None):
        task = session.begin(
            volume_node, segmentation, [Structure.of_voxels(volume_node, first, last, "lesion", segment_id)]
        )
        list(session.run(task))
        return task.segment_ids[0]

    segment_id = run(FIRST, LAST)
    segmentation.GetSegmentation().GetSegment(segment_id).SetTag("Site", "liver")
    told = fields_of(segmentation, segment_id)
    run(*SECOND, segment_id)
    later = fields_of(segmentation, segment_id)
    assert later["Prompts"] != told["Prompts"]
    assert session.undo(segmentation)
    assert fields_of(segmentation, segment_id) == told
    assert session.redo(segmentation)
    assert fields_of(segmentation, segment_id) == later
    assert segmentation.GetSegmentation().GetSegment(segment_id).HasTag("Site")


def test_what_was_painted_by_hand_tells_nothing_again_after_undo(session, volume_node, segmentation):
    segment_id = add_segment(segmentation, "hand")
    SegmentWriter(segmentation, segment_id, volume_node).add(np.ones((2, 3, 4), bool), (1, 2, 3))
    structure = Structure.of_voxels(volume_node, FIRST, LAST, "lesion", segment_id)
    list(session.run(session.begin(volume_node, segmentation, [structure])))
    assert fields_of(segmentation, segment_id)
    session.undo(segmentation)
    assert fields_of(segmentation, segment_id) == {}


def test_a_run_that_was_stopped_says_so(session, volume_node, segmentation):
    structure = Structure.of_voxels(volume_node, FIRST, LAST, "lesion")
    steps = session.run(session.begin(volume_node, segmentation, [structure], propagation="per-slice"))
    next(steps), next(steps)
    steps.close()
    (segment_id,) = segmentation.GetSegmentation().GetSegmentIDs()
    assert "stopped after 2 slices" in fields_of(segmentation, segment_id)["Reservation"]


@pytest.mark.parametrize(
    ("cut", "told"),
    [("", ""), ("other segments", "kept out of other segments"), ("intensity", "masking has cut it")],
)
def test_a_segment_that_was_cut_tells_by_what(headless, session, volume_node, segmentation, cut, told):
    node = headless.scene.AddNode(slicer.vtkMRMLSegmentEditorNode())
    node.SetOverwriteMode(node.OverwriteNone)
    if cut == "intensity":
        node.SetSourceVolumeIntensityMask(True)
        node.SetSourceVolumeIntensityMaskRange(30, 60)
    if cut == "other segments":
        other = add_segment(segmentation, "organ")
        SegmentWriter(segmentation, other, volume_node).add(np.ones((3, 5, 6), bool), (4, 5, 2))
        node.SetMaskMode(segmentation.EditAllowedOutsideAllSegments)
    structure = Structure.of_voxels(volume_node, FIRST, LAST, "lesion")
    task = session.begin(volume_node, segmentation, [structure], editor_node=node)
    list(session.run(task))
    reservation = fields_of(segmentation, task.segment_ids[0]).get("Reservation", "")
    assert told in reservation
    assert bool(reservation) == bool(cut)


def test_prompts_of_every_kind_are_read_as_they_were_written():
    mask = np.random.default_rng(0).random((24, 30)) < 0.3
    oblique = np.random.default_rng(1).random((8, 3)) * 20
    told = Prompts(
        axis="j",
        corners=oblique,
        start=KeySlice(2, 4, Box(1.25, 2, 7.1, 9)),
        boxes={3: Box(0, 1, 2, 3)},
        key_slices=(KeySlice(0, 7, mask=mask), KeySlice(1, 2, Box(1, 2, 3, 4))),
        limit=12.5,
        first=3,
    )
    read = Prompts.from_text(told.to_text())
    np.testing.assert_array_equal(read.corners, oblique)
    np.testing.assert_array_equal(read.key_slices[0].mask, mask)
    assert read.key_slices[1].box == Box(1, 2, 3, 4)
    assert (read.start.axis, read.start.index, read.start.box) == (2, 4, Box(1.25, 2, 7.1, 9))
    assert (read.axis, read.boxes, read.limit, read.first) == ("j", {3: Box(0, 1, 2, 3)}, 12.5, 3)
    assert read.to_text() == told.to_text()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"axis": "k"}', '{"space": "IJK", "axis": "q"}'])
def test_prompts_that_are_none_are_refused_in_a_sentence(text):
    with pytest.raises(ValueError, match="can't be read"):
        Prompts.from_text(text)


# segment --repeat, with a whole network of random weights


def segment(*arguments: str | Path) -> int:
    return main(["segment", *map(str, arguments)])


@pytest.fixture
def made(simple_ct_file, tiny_file, out) -> Path:
    """Two segments of one box each, as the command line makes them."""
    path = out / "made.seg.nrrd"
    assert not segment(
        *("--volume", simple_ct_file, "--model", tiny_file, "--output", path),
        *("--box", *LIVER, *KIDNEY, "--name", "liver", "kidney", "--window", "40/400"),
    )
    return path


def test_a_file_makes_its_segments_again_and_tells_that_they_are_the_same(made, simple_ct_file, tiny_file, out, capsys):
    again = out / "again.seg.nrrd"
    assert not segment(
        *("--repeat", made, "--volume", simple_ct_file, "--model", tiny_file, "--output", again, "--json", "-")
    )
    printed = capsys.readouterr()
    figures = json.loads(printed.out)["segments"]
    assert [(each["name"], each["voxels_changed"]) for each in figures] == [("liver", 0), ("kidney", 0)]
    assert figures[0]["origin"]["ModelSHA256"] == sha256_of(tiny_file)
    assert "liver: the same in every voxel." in printed.err
    masks = []
    for path in (made, again):
        scene = HeadlessScene()
        node = load(scene, path).GetSegmentation()
        fields = [read_fields(node.GetNthSegment(number)) for number in range(2)]
        masks.append([{name: text for name, text in each.items() if name != "Date"} for each in fields])
    # What is told of the repetition is what was told of the run, and it can be repeated as well.
    assert masks[0] == masks[1]


@pytest.fixture
def known_predictor(a_box_predictor: BoxPredictor, monkeypatch: pytest.MonkeyPatch) -> BoxPredictor:
    """Exact masks, from what says it is a file."""
    a_box_predictor.device = "cpu"
    a_box_predictor.source = {"Model": "lite", "ModelSHA256": "0" * 64}
    monkeypatch.setattr(loading, "load_predictor", lambda model, device: a_box_predictor)
    return a_box_predictor


@pytest.mark.parametrize("what", ["a box on one slice", "key slices", "an oblique box", "boxes on slices"])
def test_what_the_module_made_the_command_line_makes_again(
    what, headless, known_predictor, session, a_ct, ijk_to_ras, out, tmp_path, capsys
):
    path = tmp_path / "CT.nrrd"
    write_labelmap(path, a_ct, ijk_to_ras)
    volume = headless.add_volume(read_volume(path))
    segmentation = headless.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "S")
    structure = Structure.of_voxels(volume, FIRST, LAST, "lesion")
    if what == "a box on one slice":
        structure = Structure.of_slice(volume, 5, (6, 7, 18, 14), "k", "lesion")
    elif what == "an oblique box":
        turned = structure.corners @ np.array([[1, 0.2, 0.1], [-0.2, 1, 0], [0, 0, 0.8]])
        structure = Structure("lesion", corners=turned)
    elif what == "boxes on slices":
        structure = Structure.of_slices({2: (5, 6, 20, 15), 6: (9, 8, 14, 13)}, "k", "lesion")
    task = session.begin(volume, segmentation, [structure], limit=9.0, first=(2, 5))
    list(session.run(task))
    (segment_id,) = task.segment_ids
    if what == "key slices":
        SegmentWriter(segmentation, segment_id, volume).add(np.ones((1, 3, 9), bool), (6, 16, 4))
        keys = (painted_slice(segmentation, segment_id, volume, 2, 4), KeySlice(2, 6, Box(8, 8, 16, 14)))
        corrected = Structure("lesion", structure.corners, key_slices=keys, segment_id=segment_id)
        list(session.run(session.begin(volume, segmentation, [corrected])))
    assert segment_mask(segmentation, segment_id, volume).any()
    made = out / "made.seg.nrrd"
    save_segmentation(segmentation, made)
    assert not segment("--repeat", made, "--volume", path, "--output", out / "again.seg.nrrd")
    assert "lesion: the same in every voxel." in capsys.readouterr().err


def test_an_edited_segment_is_told_to_differ(made, simple_ct_file, tiny_file, out, headless, capsys):
    node = load(headless, made)
    volume = headless.add_volume(read_volume(simple_ct_file))
    segment_id = node.GetSegmentation().GetNthSegmentID(0)
    held = segment_mask(node, segment_id, volume)
    empty = tuple(int(index) for index in np.argwhere(~held)[0][::-1])
    SegmentWriter(node, segment_id, volume).add(np.ones((1, 1, 1), bool), empty)
    save_segmentation(node, made)
    arguments = ("--volume", simple_ct_file, "--model", tiny_file, "--output", out / "again.seg.nrrd")
    assert not segment("--repeat", made, *arguments, "--name", "liver")
    told = capsys.readouterr().err
    assert "liver: differs from" in told
    assert "in 1 voxels" in told
    assert "kidney" not in told


def test_an_adapter_is_told_with_its_base(made, simple_ct_file, tiny_file, out, tmp_path, capsys):
    base = tmp_path / "tiny.pth"
    base.write_bytes(tiny_file.read_bytes())
    name = next(iter(build_model("tiny").state_dict()))
    added = {name: torch.zeros_like(build_model("tiny").state_dict()[name])}
    save_adapter(Adapter(("tiny.pth", sha256_of(base)), {}, added), build_model("tiny"), tmp_path / "site.pth")
    arguments = ("--volume", simple_ct_file, "--box", *LIVER, "--model", tmp_path / "site.pth")
    assert not segment(*arguments, "--output", out / "a.seg.nrrd", "--json", "-")
    origin = json.loads(capsys.readouterr().out)["segments"][0]["origin"]
    assert (origin["Model"], origin["Base"]) == ("site.pth", "tiny.pth")
    assert (origin["ModelSHA256"], origin["BaseSHA256"]) == (sha256_of(tmp_path / "site.pth"), sha256_of(base))


def refusal(capsys: pytest.CaptureFixture[str], out: Path, *arguments: str | Path) -> str:
    capsys.readouterr()
    assert segment(*arguments, "--output", out / "again.seg.nrrd") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert not (out / "again.seg.nrrd").exists()
    return line


def test_another_volume_model_or_segment_is_refused(made, simple_ct_file, tiny_file, a_ct, out, tmp_path, capsys):
    other = tmp_path / "other.nrrd"
    changed = a_ct.copy()
    changed[5, 6, 7] += 1
    write_labelmap(other, changed, np.diag([0.8, 0.8, 3.0, 1]))
    repeat = ("--repeat", made)
    assert "is not the volume of the segment 'liver'" in refusal(
        capsys, out, *repeat, "--volume", other, "--model", tiny_file
    )
    write_labelmap(other, a_ct, np.diag([0.8, 0.8, 2.5, 1]))
    assert "0.8x0.8x2.5 mm" in refusal(capsys, out, *repeat, "--volume", other, "--model", tiny_file)
    model = build_model("tiny")
    next(model.parameters()).data += 0.1
    save_checkpoint(model, tmp_path / "tiny.pth")
    assert "was made with tiny.pth (ModelSHA256" in refusal(
        capsys, out, *repeat, "--volume", simple_ct_file, "--model", tmp_path / "tiny.pth"
    )
    assert "'tiny.pth', which isn't here: give its file by --model" in refusal(
        capsys, out, *repeat, "--volume", simple_ct_file
    )
    assert "has no segment 'spleen', only 'liver', 'kidney'" in refusal(
        capsys, out, *repeat, "--volume", simple_ct_file, "--name", "spleen"
    )


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("Prompts", "[" * 100_000, "nested|recursion"),
        ("Prompts", "{}", "The prompts '{}' can't be read"),
        ("Propagation", "magic", "The propagation 'magic' is unknown"),
        ("Window", "lung", "The window 'lung' is none"),
    ],
)
def test_what_was_changed_in_a_file_is_told_with_its_segment(
    made, simple_ct_file, tiny_file, out, capsys, field, value, text
):
    changed = made.with_name("changed.seg.nrrd")
    old = re.search(rf"MedSAM\.{field}:[^|]*".encode(), made.read_bytes())
    changed.write_bytes(made.read_bytes().replace(old[0], f"MedSAM.{field}:{value}".encode(), 1))
    line = refusal(capsys, out, "--repeat", changed, "--volume", simple_ct_file, "--model", tiny_file)
    assert f"The segment 'liver' of {changed} can't be made again" in line
    assert re.search(text, line)


def test_what_does_not_tell_how_it_was_made_is_refused(
    simple_ct_file, headless, volume_node, segmentation, out, capsys
):
    segment_id = add_segment(segmentation, "hand")
    SegmentWriter(segmentation, segment_id, volume_node).add(np.ones((2, 3, 4), bool), (1, 2, 3))
    save_segmentation(segmentation, out / "hand.seg.nrrd")
    line = refusal(capsys, out, "--repeat", out / "hand.seg.nrrd", "--volume", simple_ct_file)
    assert "The segment 'hand' does not tell how it was made" in line
    line = refusal(capsys, out, "--repeat", simple_ct_file, "--volume", simple_ct_file)
    assert "whole numbers" in line or "negative values" in line
    line = refusal(capsys, out, "--repeat", simple_ct_file.with_name("none.seg.nrrd"), "--volume", simple_ct_file)
    assert "does not exist" in line


def test_options_that_the_file_answers_are_wrong_usage(made, simple_ct_file, capsys, out):
    with pytest.raises(SystemExit) as exit_:
        segment("--repeat", made, "--volume", simple_ct_file, "--output", out / "o.seg.nrrd", "--window", "lung")
    assert exit_.value.code == 2
    assert "--window: the file of --repeat says that" in capsys.readouterr().err
