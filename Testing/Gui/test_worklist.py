"""The worklist: the volumes of a folder, what was made of each saved beside it, and nothing lost."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
import slicer.util

from Core.dicom_writer import write_series
from MedSAMSlicerLib.mrml.segments import add_segment
from MedSAMSlicerLib.store.claim import Claim
from MedSAMSlicerLib.volume.files import write_labelmap
from panel_user import GEOMETRY, User, box_mask


@pytest.fixture
def folder(tmp_path: Path, a_ct: np.ndarray) -> Path:
    """Three volumes, one of which has somebody else's result, and a mask."""
    folder = tmp_path / "cases"
    folder.mkdir()
    for number, name in enumerate(("a.nrrd", "b.nii.gz", "c.mha", "a_label.nrrd")):
        write_labelmap(folder / name, a_ct + np.int16(number), GEOMETRY)
    (folder / "b.seg.nrrd").write_bytes(b"somebody's work")
    return folder


def choose(user: User, folder: Path) -> None:
    user.gui.dialogs.answer(str(folder))
    user.press("worklistButton")
    user.gui.dialogs.take()


def volumes() -> list[str]:
    return [node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")]


def count(kind: str) -> int:
    return len(slicer.util.getNodesByClass(kind))


def voxels_in(path: Path) -> int:
    return int(np.count_nonzero(sitk.GetArrayFromImage(sitk.ReadImage(str(path)))))


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


def test_every_case_is_opened_saved_and_left_and_nothing_else_changes(gui, user: User, folder: Path) -> None:
    before = digests(folder)
    own = user.add_box("mine", ticked=False)
    choose(user, folder)
    assert volumes() == ["CT", "a"]
    assert user.widget.logic.getParameterNode().inputVolume.GetName() == "a"
    assert "1 of 3" in user.ui.worklistLabel.text
    user.add_box()
    user.segment()
    assert voxels_in(folder / "a.seg.nrrd") == box_mask(user.volume_node).sum()
    user.press("nextCaseButton")
    # The second one has a result of somebody else.
    assert volumes() == ["CT", "c"]
    assert count("vtkMRMLSegmentationNode") == 0
    assert slicer.util.getNodesByClass("vtkMRMLMarkupsROINode") == [own]
    user.press("nextCaseButton")
    # Nothing was made of it: no file, and it stays on the list.
    assert not (folder / "c.seg.nrrd").exists()
    assert volumes() == ["CT", "c"]
    user.add_box("lesion")
    crop = user.add_box("crop", ticked=False)
    user.segment()
    user.press("nextCaseButton")
    # What may serve something else stays.
    assert slicer.util.getNodesByClass("vtkMRMLMarkupsROINode") == [own, crop]
    assert "No case without a result is left" in user.ui.statusLabel.text
    assert "3 of 3" in user.ui.worklistLabel.text
    assert volumes() == ["CT"]
    after = digests(folder)
    assert {name: after[name] for name in before} == before


def test_what_was_painted_since_the_run_is_saved_before_the_case_is_left(gui, user: User, folder: Path) -> None:
    choose(user, folder)
    user.add_box()
    user.segment()
    volume = user.widget.logic.getParameterNode().inputVolume
    painted = add_segment(user.segmentation, "painted")
    everything = np.ones((10, 24, 30), dtype=np.uint8)
    slicer.util.updateSegmentBinaryLabelmapFromArray(everything, user.segmentation, painted, volume)
    gui.pump()
    user.press("nextCaseButton")
    assert voxels_in(folder / "a.seg.nrrd") >= 10 * 24 * 30
    assert volumes() == ["CT", "c"]


def test_a_result_that_somebody_has_written_meanwhile_stays_and_so_does_the_case(gui, user: User, folder: Path) -> None:
    choose(user, folder)
    user.add_box()
    (folder / "a.seg.nrrd").write_bytes(b"a colleague's")
    user.segment()
    assert "somebody else" in user.ui.statusLabel.text
    user.press("nextCaseButton")
    assert str(folder / "a.seg.nrrd") in user.ui.statusLabel.text
    assert (folder / "a.seg.nrrd").read_bytes() == b"a colleague's"
    assert volumes() == ["CT", "a"]
    assert user.segments == ["lesion"]
    (folder / "a.seg.nrrd").rename(folder / "colleague.seg.nrrd")
    user.press("nextCaseButton")
    assert voxels_in(folder / "a.seg.nrrd") > 0
    assert volumes() == ["CT", "c"]


def test_a_case_that_another_slicer_has_open_is_left_to_it(gui, user: User, folder: Path) -> None:
    held = Claim([folder / "a.seg.nrrd"], "a.nrrd")
    assert held.take()
    choose(user, folder)
    assert volumes() == ["CT", "c"]
    held.release()
    user.press("nextCaseButton")
    assert volumes() == ["CT", "a"]
    assert not Claim([folder / "a.seg.nrrd"], "a.nrrd").take()
    user.widget.cleanup()
    assert Claim([folder / "a.seg.nrrd"], "a.nrrd").take()


def test_closing_the_scene_saves_the_case(gui, user: User, folder: Path) -> None:
    choose(user, folder)
    user.add_box()
    user.segment()
    (folder / "a.seg.nrrd").unlink()
    slicer.mrmlScene.Clear(0)
    gui.pump()
    assert voxels_in(folder / "a.seg.nrrd") > 0


def test_a_volume_that_cant_be_read_is_told_and_passed_by(gui, user: User, folder: Path) -> None:
    (folder / "a.nrrd").write_bytes(b"no image")
    gui.dialogs.answer(str(folder))
    user.ui.worklistButton.click()
    gui.dialogs.take()
    assert any("a.nrrd" in error for error in gui.take_errors()), "what Slicer itself says of it"
    gui.pump()
    assert "a.nrrd" in user.ui.statusLabel.text
    user.press("nextCaseButton")
    assert volumes() == ["CT", "c"]


def test_a_folder_of_a_dicom_series_is_a_case_and_one_of_two_series_is_told_and_passed_by(
    gui, user: User, a_ct: np.ndarray, tmp_path: Path
) -> None:
    for name, voxels in (("1.2.3", a_ct + np.int16(5)), ("two", a_ct), ("two", a_ct + np.int16(1))):
        write_series(tmp_path / "dicom" / name, voxels, GEOMETRY)
    (tmp_path / "dicom" / "notes").mkdir()
    (tmp_path / "dicom" / "notes" / "read me.txt").write_text("no image")
    before = [digests(path) for path in sorted((tmp_path / "dicom").iterdir())]
    choose(user, tmp_path / "dicom")
    assert volumes() == ["CT", "1.2.3"]
    loaded = user.widget.logic.getParameterNode().inputVolume
    # (A series is put into right-handed order.)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(loaded), (a_ct + 5)[::-1])
    red = gui.layout_manager.sliceWidget("Red").mrmlSliceCompositeNode()
    assert red.GetBackgroundVolumeID() == loaded.GetID()
    user.add_box()
    user.segment()
    assert voxels_in(tmp_path / "dicom" / "1.2.3.seg.nrrd") == box_mask(loaded).sum()
    user.press("nextCaseButton")
    assert "holds 2 DICOM series" in user.ui.statusLabel.text
    assert volumes() == ["CT"]
    assert [digests(path) for path in sorted((tmp_path / "dicom").iterdir()) if path.is_dir()] == before


def test_a_folder_without_volumes_is_refused_and_two_of_one_name_get_two_results(
    gui, user: User, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    choose(user, tmp_path / "empty")
    assert "holds no volume" in user.ui.statusLabel.text
    assert not user.ui.nextCaseButton.enabled
    from MedSAMSlicerLib.app.worklist import Worklist

    (folder / "a.mha").write_bytes((folder / "c.mha").read_bytes())
    names = [Worklist(folder).output_of(path).name for path in Worklist(folder).volumes]
    assert names == ["a.mha.seg.nrrd", "a.nrrd.seg.nrrd", "b.seg.nrrd", "c.seg.nrrd"]
