"""The table of what is on this computer: seen, removed after a question, and brought from a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from MedSAMSlicerLib.store.samples import SampleMissing, sample_path
from MedSAMSlicerLib.store.weights import WeightsStore
from panel_user import User


@pytest.fixture
def home(tmp_path: Path, lite_weights: Path, samples: dict[str, Path], monkeypatch) -> Path:
    """A store with a model of the user's own, and a stick with weights and a sample."""
    stick = tmp_path / "stick"
    stick.mkdir()
    for path in (lite_weights, samples["example_ct_sm.nii.gz"]):
        (stick / path.name).write_bytes(path.read_bytes())
    monkeypatch.setenv("MEDSAM_SLICER_HOME", str(tmp_path / "home"))
    model = tmp_path / "home" / "models" / "our liver.pth"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"x" * 2_000_000)
    return tmp_path / "home"


def rows(user: User) -> list[list[str]]:
    table = user.ui.storageTable
    return [[table.item(row, column).text() for column in range(3)] for row in range(table.rowCount)]


def test_weights_and_samples_come_from_a_folder_and_go_again(gui, home: Path, user: User) -> None:
    ui = user.ui
    ui.modelSection.collapsed = False
    user.gui.pump()
    assert rows(user) == [["Own model", "our liver", "2.0 MB"]]
    assert str(home) in ui.storageLabel.text
    assert ui.installPanel.isVisibleTo(user.widget.parent)
    gui.dialogs.answer(str(home.parent / "stick"))
    user.press("importFolderButton")
    gui.pump(until=lambda: "Taken over" in ui.storageLabel.text, at_most=30)
    gui.dialogs.take()
    assert "lite_medsam.pth" in ui.storageLabel.text
    assert [row[:2] for row in rows(user)] == [["Weights", "lite"], ["Samples", "samples"], ["Own model", "our liver"]]
    assert WeightsStore().path("lite").is_file()
    assert sample_path("example_ct_sm.nii.gz").is_file()
    gui.pump()
    assert not ui.installPanel.isVisibleTo(user.widget.parent)
    # Only what is selected goes, and the panel asks for it anew.
    ui.storageTable.selectRow(1)
    gui.dialogs.answer(gui.qt.QMessageBox.Ok)
    user.press("removeStoredButton")
    with pytest.raises(SampleMissing):
        sample_path("example_ct_sm.nii.gz")
    ui.storageTable.selectRow(0)
    gui.dialogs.answer(gui.qt.QMessageBox.Ok)
    user.press("removeStoredButton")
    assert str(home / "weights" / "lite_medsam.pth") in gui.dialogs.take()[1].text
    assert ui.installPanel.isVisibleTo(user.widget.parent)
    assert rows(user) == [["Own model", "our liver", "2.0 MB"]]


def test_a_model_of_ones_own_goes_only_when_the_question_is_agreed_to(gui, home: Path, user: User) -> None:
    ui = user.ui
    ui.modelSection.collapsed = False
    user.gui.pump()
    assert not ui.removeStoredButton.enabled
    ui.storageTable.selectRow(0)
    user.gui.pump()
    gui.dialogs.answer(gui.qt.QMessageBox.Cancel)
    user.press("removeStoredButton")
    assert "can't be had again" in gui.dialogs.take()[0].text
    assert (home / "models" / "our liver.pth").exists()
    assert ui.modelComboBox.findText("our liver") >= 0
    gui.dialogs.answer(gui.qt.QMessageBox.Ok)
    user.press("removeStoredButton")
    gui.dialogs.take()
    assert not (home / "models" / "our liver.pth").exists()
    assert ui.modelComboBox.findText("our liver") < 0


def test_a_folder_without_weights_is_told(gui, home: Path, user: User) -> None:
    user.ui.modelSection.collapsed = False
    gui.dialogs.answer(str(home))
    user.press("importFolderButton")
    gui.pump(until=lambda: "holds no weights" in user.ui.storageLabel.text, at_most=30)
    gui.dialogs.take()
    assert user.ui.importFolderButton.enabled
