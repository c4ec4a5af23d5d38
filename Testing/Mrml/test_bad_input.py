"""Bad input at the command line: answered in one line that helps, with no file changed and none left behind."""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from box_predictor import BoxPredictor
from Core.dicom_writer import write_series
from made_up_site import blind_base, made_up_site
from MedSAMSlicerLib import loading
from MedSAMSlicerLib.cli.main import main
from MedSAMSlicerLib.dataset.masks import write_masks
from MedSAMSlicerLib.headless.scene import HeadlessScene
from MedSAMSlicerLib.volume.files import write_labelmap
from MedSAMSlicerLib.volume.geometry import voxel_box_corners
from Mrml.bad_files import FILES, LOSSES
from Mrml.bad_input import LABELS, OUTPUTS, SITES, TABLES, BadInput

SHAPE = (10, 24, 30)
GEOMETRY = np.diag([0.8, 0.8, 3.0, 1])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder in which nothing is wrong: a CT, its labels, a DICOM series, an ROI, a site and a model."""
    folder = tmp_path_factory.mktemp("whole")
    voxels = np.random.default_rng(7).normal(40, 200, SHAPE).astype(np.int16)
    organ = np.zeros(SHAPE, bool)
    organ[2:8, 6:16, 5:21] = True
    write_labelmap(folder / "CT.nrrd", voxels, GEOMETRY)
    write_labelmap(folder / "labels.nii.gz", organ.astype(np.uint8), GEOMETRY)
    write_masks(folder / "labels.seg.nrrd", {"liver": organ}, GEOMETRY)
    write_series(folder / "dicom", voxels[:3], GEOMETRY)
    write_labelmap(folder / "new" / "1_image.nrrd", voxels, GEOMETRY)
    write_labelmap(folder / "new" / "1_label.nrrd", organ.astype(np.uint8), GEOMETRY)
    headless = HeadlessScene()
    roi = headless.add_roi("R", GEOMETRY, voxel_box_corners((5, 6, 2), (20, 15, 7)))
    storage = roi.CreateDefaultStorageNode()
    storage.SetFileName(str(folder / "R.mrk.json"))
    assert storage.WriteData(roi)
    made_up_site(folder / "site")
    blind_base(folder / "base.pth")
    return folder


def content(folder: Path) -> dict[str, str]:
    """Digest all files below a folder, and name its folders; the locks of datasets are empty and stay."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in folder.rglob("*")
        if not (path.name.endswith(".lock") and path.stat().st_size == 0)
    }


@pytest.mark.parametrize("bad", [*OUTPUTS, *TABLES, *LABELS, *SITES, *FILES, *LOSSES], ids=lambda bad: bad.name)
def test_bad_input_is_answered_in_one_line_and_changes_nothing(
    bad: BadInput, whole, tmp_path, home, monkeypatch, capfd
):
    def load(*args: object) -> None:
        raise AssertionError("The model was loaded.")

    folder = tmp_path / "folder"
    shutil.copytree(whole, folder)
    bad.make(folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(loading, "load_predictor", load)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in bad.environment.items():
        monkeypatch.setenv(name, value)
    before = content(folder)
    capfd.readouterr()
    code = main(shlex.split(bad.command))
    out, err = capfd.readouterr()
    lines = [line for line in err.splitlines() if not re.match(r"\w+ \[[#.]{24}\]", line)]
    assert code == 1, err
    assert len(lines) == 1, err
    assert lines[0].startswith("medsam-slicer: error: ")
    assert out == ""
    for words in bad.words:
        assert words in lines[0]
    assert content(folder) == before


@pytest.mark.parametrize("command", ["segment --volume CT.nrrd --box 5 6 2 20 15 7 --output out/o.seg.nrrd --json -"])
def test_the_folder_itself_is_good(command, whole, tmp_path, monkeypatch, capfd):
    """Else the cases above would prove nothing."""
    predictor = BoxPredictor()
    predictor.device = "cpu"
    monkeypatch.setattr(loading, "load_predictor", lambda *args: predictor)
    shutil.copytree(whole, tmp_path / "folder")
    monkeypatch.chdir(tmp_path / "folder")
    assert main(shlex.split(command)) == 0
    assert main(shlex.split("evaluate --prediction labels.seg.nrrd --reference labels.nii.gz --json -")) == 0
    assert main(shlex.split("dataset check --data site")) == 0
    assert '"dice": 1.0' in capfd.readouterr().out
