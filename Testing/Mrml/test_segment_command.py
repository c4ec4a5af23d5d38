"""The command `segment`: files in, files out."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
import torch

from box_predictor import BoxPredictor
from MedSAMSlicerLib import loading
from MedSAMSlicerLib.cli.main import main
from MedSAMSlicerLib.headless.scene import HeadlessScene
from MedSAMSlicerLib.inference.predictor import Predictor
from MedSAMSlicerLib.volume.files import read_volume, write_labelmap
from MedSAMSlicerLib.volume.geometry import voxel_box_corners
from MedSAMSlicerLib.volume.labels import read_labels

LIVER = ("5", "6", "2", "20", "15", "7")
KIDNEY = ("22", "17", "0", "28", "22", "9")
LIVER_VOXELS, KIDNEY_VOXELS = np.s_[2:8, 6:16, 5:21], np.s_[0:10, 17:23, 22:29]


def voxels_of(*blocks: tuple[slice, ...]) -> np.ndarray:
    mask = np.zeros((10, 24, 30), dtype=bool)
    for block in blocks:
        mask[block] = True
    return mask


def segment(volume: Path, output: Path, *more: str | Path) -> int:
    return main(["segment", "--volume", str(volume), "--output", str(output), *map(str, more)])


def test_boxes_become_named_segments_of_exactly_their_voxels_at_their_place(predictor, ct_file, out, ijk_to_ras):
    path = out / "organs.seg.nrrd"
    assert segment(ct_file, path, "--box", *LIVER, *KIDNEY, "--name", "liver", "left kidney") == 0
    labels = read_labels(path)
    assert labels.names == {1: "liver", 2: "left kidney"}
    write_labelmap(out / "reference.nrrd", voxels_of().astype(np.uint8), ijk_to_ras)
    in_place = labels.resampled_to(read_labels(out / "reference.nrrd"))
    np.testing.assert_array_equal(in_place.mask(1), voxels_of(LIVER_VOXELS))
    np.testing.assert_array_equal(in_place.mask(2), voxels_of(KIDNEY_VOXELS))
    assert sorted(each.name for each in out.iterdir()) == ["organs.seg.nrrd", "reference.nrrd"]


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_a_label_map_has_the_voxels_and_the_geometry_of_the_volume(predictor, ct_file, out, ijk_to_ras, ending):
    path = out / f"labels{ending}"
    assert segment(ct_file, path, "--box", *LIVER, "--box", *KIDNEY) == 0
    labels = read_volume(path)
    expected = np.zeros((10, 24, 30), np.uint8)
    expected[LIVER_VOXELS], expected[KIDNEY_VOXELS] = 1, 2
    np.testing.assert_array_equal(labels.voxels, expected)
    np.testing.assert_allclose(labels.ijk_to_ras, ijk_to_ras, atol=1e-4)
    assert [each.name for each in out.iterdir()] == [path.name]


def test_boxes_that_overlap_stay_whole_as_segments_but_not_in_a_label_map(predictor, simple_ct_file, out, capfd):
    boxes = ("--box", *LIVER, "10", "10", "3", "25", "20", "8")
    over = voxels_of(np.s_[3:9, 10:21, 10:26])
    assert segment(simple_ct_file, out / "o.seg.nrrd", *boxes) == 0
    labels = read_labels(out / "o.seg.nrrd")
    assert [labels.mask(label).sum() for label in (1, 2)] == [voxels_of(LIVER_VOXELS).sum(), over.sum()]
    assert "overlaps" not in capfd.readouterr().err
    assert segment(simple_ct_file, out / "o.nii.gz", *boxes, "--name", "liver", "lesion") == 0
    voxels = read_volume(out / "o.nii.gz").voxels
    np.testing.assert_array_equal(voxels == 2, over)
    np.testing.assert_array_equal(voxels == 1, voxels_of(LIVER_VOXELS) & ~over)
    common = (over & voxels_of(LIVER_VOXELS)).sum()
    assert f"lesion overlaps earlier segments in {common} voxels" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("box", "voxels"),
    [
        (("-5", "-1", "8", "3", "40", "99"), np.s_[8:10, 0:24, 0:4]),
        (("12", "13", "4", "12", "13", "4"), np.s_[4, 13, 12]),
        (("29", "23", "9", "29", "23", "9"), np.s_[9, 23, 29]),
    ],
    ids=["clipped", "one voxel", "the last voxel"],
)
def test_a_box_is_clipped_to_the_volume_and_may_be_one_voxel(predictor, simple_ct_file, out, box, voxels):
    # Every slice from its own box: `path` would choose among smaller ones too.
    assert segment(simple_ct_file, out / "o.nii.gz", "--box", *box, "--propagation", "per-slice") == 0
    np.testing.assert_array_equal(read_volume(out / "o.nii.gz").voxels != 0, voxels_of(voxels))


TILTED = np.array([[-0.8, 0, 0, 20], [0, -0.8, -1.8, 30], [0, 0, 5, -40], [0, 0, 0, 1]])
SHEARED = np.array([[0.8, 0.3, -0.4, 5], [0, 0.7, 1.1, 6], [0.1, 0, 3, 7], [0, 0, 0, 1]])


@pytest.mark.parametrize("ijk_to_ras", [TILTED, SHEARED], ids=["tilted", "sheared"])
@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".seg.nrrd"])
def test_a_box_in_a_sheared_volume_is_exactly_its_voxels_at_their_place(
    predictor, a_ct, ijk_to_ras, ending, out, tmp_path
):
    write_labelmap(tmp_path / "CT.nrrd", a_ct, ijk_to_ras)
    path = out / f"o{ending}"
    assert segment(tmp_path / "CT.nrrd", path, "--box", *LIVER, "--propagation", "per-slice", "--name", "liver") == 0
    found = sitk.ReadImage(str(path))
    places = [
        found.TransformIndexToPhysicalPoint(tuple(map(int, index[::-1])))
        for index in np.argwhere(sitk.GetArrayFromImage(found))
    ]
    expected = np.argwhere(voxels_of(LIVER_VOXELS))[:, ::-1] @ ijk_to_ras[:3, :3].T + ijk_to_ras[:3, 3]
    np.testing.assert_allclose(np.array(places) * [-1, -1, 1], expected, atol=1e-3)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_file_that_can_not_hold_a_sheared_volume_is_refused_before_anything_is_loaded(
    error_of, a_ct, out, tmp_path, ending
):
    write_labelmap(tmp_path / "CT.nrrd", a_ct, TILTED)
    command = ["segment", "--volume", tmp_path / "CT.nrrd", "--output", out / f"o{ending}", "--box", *LIVER]
    line = error_of([*command, "--model", "none.pth"])
    assert f"o{ending} can't hold sheared voxels (a tilted gantry), as NIfTI files don't: give .seg.nrrd" in line


def save_roi(path: Path, ijk_to_ras: np.ndarray, box: tuple[str, ...]) -> Path:
    numbers = [int(number) for number in box]
    headless = HeadlessScene()
    roi = headless.add_roi("R", ijk_to_ras, voxel_box_corners(numbers[:3], numbers[3:]))
    storage = slicer.vtkMRMLMarkupsROIJsonStorageNode()
    headless.scene.AddNode(storage)
    storage.SetFileName(str(path))
    assert storage.WriteData(roi)
    return path


def test_rois_of_slicer_are_segmented_and_named_after_their_files(predictor, ct_file, out, ijk_to_ras, tmp_path):
    liver = save_roi(tmp_path / "liver.mrk.json", ijk_to_ras, LIVER)
    kidney = save_roi(tmp_path / "left kidney.mrk.json", ijk_to_ras, KIDNEY)
    assert segment(ct_file, out / "o.nii.gz", "--roi", liver, kidney) == 0
    voxels = read_volume(out / "o.nii.gz").voxels
    np.testing.assert_array_equal(voxels == 1, voxels_of(LIVER_VOXELS))
    np.testing.assert_array_equal(voxels == 2, voxels_of(KIDNEY_VOXELS))
    assert segment(ct_file, out / "o.seg.nrrd", "--roi", liver, "--roi", kidney, "--name", "Leber") == 0
    assert read_labels(out / "o.seg.nrrd").names == {1: "Leber", 2: "left kidney"}


def test_an_roi_beside_the_volume_is_named(error_of, simple_ct_file, out, tmp_path):
    roi = save_roi(tmp_path / "far.mrk.json", np.eye(4), ("200", "200", "200", "210", "210", "210"))
    line = error_of(["segment", "--volume", simple_ct_file, "--output", out / "o.seg.nrrd", "--roi", roi])
    assert "'far' lies outside of the volume 'CT'" in line


def test_the_json_tells_what_was_found_and_how_fast(predictor, ct_file, out, ijk_to_ras, capfd):
    options = ("--box", *LIVER, *KIDNEY, "--name", "liver", "--axis", "k")
    assert segment(ct_file, out / "o.seg.nrrd", *options, "--json", out / "new" / "o.json") == 0
    printed, err = capfd.readouterr()
    assert printed == ""
    report = json.loads((out / "new" / "o.json").read_text())
    milliliters = abs(np.linalg.det(ijk_to_ras[:3, :3])) / 1000
    assert [segment.pop("milliliters") for segment in report["segments"]] == pytest.approx(
        [960 * milliliters, 420 * milliliters], abs=1e-3
    )
    for segment_report, count in zip(report["segments"], (6, 10), strict=True):
        # All slices of each segment, the doubtful ones first.
        slices = segment_report.pop("slices")
        assert {"Model", "Volume", "Prompts", "Window", "Propagation"} < set(segment_report.pop("origin"))
        assert (segment_report.pop("fragments_dropped"), segment_report.pop("open_ends")) == (0, [])
        assert len({each["index"] for each in slices}) == len(slices) == count
        assert {each["axis"] for each in slices} == {"k"}
        assert all(0 <= each["confidence"] <= 1 for each in slices)
    assert report["seconds"] >= report["seconds_to_first_mask"] >= 0
    del report["seconds"], report["seconds_to_first_mask"]
    assert report == {
        "model": "lite",
        "device": "cpu",
        "slices": 16,
        "segments": [{"name": "liver", "voxels": 960}, {"name": "Segment_2", "voxels": 420}],
    }
    assert "liver: 960 voxels" in err
    assert "100 % 16/16 slices" in err


def test_with_a_dash_only_json_is_on_the_standard_output(predictor, simple_ct_file, out, capfd):
    assert segment(simple_ct_file, out / "o.seg.nrrd", "--box", *LIVER, "--json", "-") == 0
    assert json.loads(capfd.readouterr().out)["segments"][0]["voxels"] == 960


def test_an_empty_result_is_said_and_is_an_empty_segment(predictor, simple_ct_file, out, monkeypatch, capfd):
    filled = predictor.decode

    def empty(embedding, boxes, window=None):
        prediction = filled(embedding, boxes, window)
        prediction.probabilities[:] = 0
        return prediction

    monkeypatch.setattr(predictor, "decode", empty)
    assert segment(simple_ct_file, out / "o.seg.nrrd", "--box", *LIVER, "--name", "liver") == 0
    assert "liver: the model found nothing in this box; is the window right?" in capfd.readouterr().err
    labels = read_labels(out / "o.seg.nrrd")
    assert labels.names == {1: "liver"}
    assert not labels.mask(1).any()


def test_axis_window_and_propagation_reach_the_model(predictor, simple_ct_file, a_ct, out):
    options = ("--axis", "i", "--window", "50/300", "--propagation", "per-slice")
    assert segment(simple_ct_file, out / "o.nii.gz", "--box", *LIVER, *options) == 0
    assert {image.shape for image in predictor.encoded} == {(10, 24)}
    windowed = (np.clip(a_ct[:, :, 11].astype(float), -100, a_ct.max()) + 100) / (a_ct.max() + 100) * 255
    # From the middle, 12, to the last one, 20, then down from 11.
    np.testing.assert_array_equal(predictor.encoded[9], windowed.astype(np.uint8))


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_whole_numbers_of_64_bits_are_drawn_like_others(predictor, a_ct, tmp_path, out, dtype):
    pictures = []
    for kind in (np.int32, dtype):
        path = tmp_path / "CT.nrrd"
        write_labelmap(path, (a_ct + 1100).astype(kind), np.diag([0.8, 0.8, 3.0, 1]))
        options = ("--window", "1140/400", "--snapshot", out / "o.png")
        assert segment(path, out / "o.seg.nrrd", "--box", *LIVER, *options) == 0
        pictures.append((out / "o.png").read_bytes())
    assert pictures[0] == pictures[1]


def test_a_snapshot_shows_the_result_in_the_window_that_the_model_has_seen(predictor, simple_ct_file, out):
    brightness = {}
    for window in ("0/400", "120/400"):
        options = ("--window", window, "--snapshot", out / "o.png")
        assert segment(simple_ct_file, out / "o.seg.nrrd", "--box", *LIVER, *options) == 0
        picture = sitk.GetArrayFromImage(sitk.ReadImage(str(out / "o.png"))).astype(int)
        assert min(picture.shape[:2]) > 300
        in_color = np.ptp(picture, axis=2) > 60
        assert in_color.mean() > 0.02
        axial = picture[:480, :480]
        brightness[window] = np.median(axial[np.ptp(axial, axis=2) == 0])
    assert brightness["0/400"] > brightness["120/400"] + 30


def test_a_run_replaces_the_files_of_an_earlier_one(predictor, simple_ct_file, out):
    for box in (KIDNEY, LIVER):
        assert segment(simple_ct_file, out / "o.nii.gz", "--box", *box, "--json", out / "o.json") == 0
    np.testing.assert_array_equal(read_volume(out / "o.nii.gz").voxels != 0, voxels_of(LIVER_VOXELS))
    assert sorted(each.name for each in out.iterdir()) == ["o.json", "o.nii.gz"]


def test_a_color_photo_can_be_segmented(predictor, out, tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (24, 30, 3), dtype=np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=True), str(tmp_path / "nevus.png"))
    assert segment(tmp_path / "nevus.png", out / "o.nii.gz", "--box", 5, 6, 0, 20, 15, 0) == 0
    assert (read_volume(out / "o.nii.gz").voxels[0, 6:16, 5:21] == 1).all()
    assert predictor.encoded[0].shape == (24, 30, 3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_numbers_do_not_stop_a_real_network(a_ct, tiny_file, out, tmp_path, value):
    voxels = a_ct.astype(np.float32)
    voxels[::2, 10:14, 10:14] = value
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(tmp_path / "CT.nrrd"))
    assert segment(tmp_path / "CT.nrrd", out / "o.seg.nrrd", "--box", *LIVER, "--model", tiny_file) == 0
    assert read_labels(out / "o.seg.nrrd").values() == [1]


def test_slices_whose_embeddings_were_kept_are_not_encoded_again(simple_ct_file, tiny_file, out, tmp_path, monkeypatch):
    options = ("--box", *LIVER, "--model", tiny_file, "--device", "cpu", "--embeddings", tmp_path / "embeddings")
    assert segment(simple_ct_file, out / "first.nrrd", *options) == 0
    monkeypatch.setattr(Predictor, "encode", lambda *given: pytest.fail("A slice was encoded again."))
    assert segment(simple_ct_file, out / "second.nrrd", *options) == 0
    assert len(list((tmp_path / "embeddings").iterdir())) >= 6


def test_a_run_like_one_before_is_told_its_time_before_it_begins(predictor, ct_file, out, capfd):
    assert segment(ct_file, out / "1.seg.nrrd", "--box", *LIVER) == 0
    assert "at the pace" not in capfd.readouterr().err
    assert segment(ct_file, out / "2.seg.nrrd", "--box", *LIVER) == 0
    assert "6 slices: about" in capfd.readouterr().err.splitlines()[0]
    # How far a structure goes is not known before.
    assert segment(ct_file, out / "3.seg.nrrd", "--slice-box", "5", "6", "2", "20", "15", "--axis", "k") == 0
    assert "at the pace" not in capfd.readouterr().err


def test_a_full_graphics_card_leaves_the_work_to_the_processor_with_a_word(
    ct_file, out, a_box_predictor, monkeypatch, capfd
):
    full = copy.copy(a_box_predictor)
    full.device, a_box_predictor.device = "cuda:0", "cpu"
    asked: list[str] = []

    def decode(*args: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    full.decode = decode

    def load(model: str, device: str) -> BoxPredictor:
        asked.append(device)
        return a_box_predictor if device == "cpu" else full

    monkeypatch.setattr(loading, "load_predictor", load)
    report = out / "o.json"
    assert segment(ct_file, out / "o.nrrd", "--box", *LIVER, "--json", report) == 0
    assert asked == ["auto", "cpu"]
    assert capfd.readouterr().err.count("the computation goes on with the processor") == 1
    assert json.loads(report.read_text())["device"] == "cpu"
    np.testing.assert_array_equal(read_labels(out / "o.nrrd").mask(1), voxels_of(LIVER_VOXELS))
