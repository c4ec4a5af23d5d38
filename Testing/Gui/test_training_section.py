"""Section Site training: a real dataset, a real training process, and a Slicer that is closed and opened meanwhile."""

from __future__ import annotations

import os
import signal
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import slicer
import slicer.util

from geometries import FIRST, LAST
from made_up_site import blind_base, made_up_site
from MedSAMSlicerLib.app.settings import remember, setting
from MedSAMSlicerLib.dataset.site import SiteDataset
from MedSAMSlicerLib.mrml.segments import SegmentWriter, add_segment
from panel_user import box_mask

CASE, PATIENT, SPLIT, LABELS = 1, 2, 3, 4
TRAINING_S = 60.0


@pytest.fixture
def site(gui, computer: Path) -> SiteDataset:
    """A dataset of four patients and a base model, chosen in an earlier Slicer."""
    remember("siteDataset", str(computer / "site"))
    remember("model", str(blind_base(computer / "base.pth")))
    return made_up_site(computer / "site")


@pytest.fixture
def trainer(site, user):
    """A user who has opened the section."""
    user.ui.trainingSection.collapsed = False
    user.ui.modelNameLineEdit.setText("our scanner")
    wait_for_pictures(user)
    assert user.ui.trainButton.isVisibleTo(user.ui.trainingSection)
    assert not user.ui.findingsText.isVisibleTo(user.ui.trainingSection)
    return user


def wait_for_pictures(user) -> None:
    user.gui.pump(until=lambda: not user.widget.logic.worker.busy)
    user.gui.pump()


def column(user, number: int) -> list[str]:
    table = user.ui.casesTable
    return [table.item(row, number).text() for row in range(table.rowCount)]


def splits(user) -> list[str]:
    table = user.ui.casesTable
    return [table.cellWidget(row, SPLIT).currentText for row in range(table.rowCount)]


def choose_split(user, row: int, text: str) -> None:
    combo = user.ui.casesTable.cellWidget(row, SPLIT)
    combo.setCurrentIndex(combo.findText(text))
    combo.activated.emit(combo.currentIndex)
    user.gui.pump()


def wait_for_an_epoch(user) -> None:
    user.gui.pump(until=lambda: user.ui.showCurvesButton.enabled, at_most=TRAINING_S)


def wait_for_end(user) -> None:
    user.gui.pump(until=lambda: not user.panel.training.running, at_most=TRAINING_S)
    wait_for_pictures(user)


@pytest.fixture
def drawn(gui, computer: Path, user):
    """A user whose scene has a segmentation of two segments, and who has chosen an empty folder for a dataset."""
    segmentation = gui.headless.add_segmentation("Doe^John", user.volume_node)
    for name, first in (("lesion", FIRST), ("draft", (20, 12, 3))):
        writer = SegmentWriter(segmentation, add_segment(segmentation, name), user.volume_node)
        writer.add(box_mask(user.volume_node, first, LAST), (0, 0, 0))
    user.panel.parameters.segmentation = segmentation
    user.ui.trainingSection.collapsed = False
    gui.pump()
    assert not user.ui.addCaseButton.enabled
    assert "Choose a folder" in user.ui.addCaseButton.toolTip
    (computer / "new").mkdir()
    gui.dialogs.answer(str(computer / "new"))
    user.press("chooseDatasetButton")
    gui.dialogs.take()
    return user


def test_the_ticked_segments_of_the_scene_become_a_case_without_the_patients_name(gui, drawn, computer):
    ui = drawn.ui
    ui.caseSegmentsList.item(1).setCheckState(gui.qt.Qt.Unchecked)
    ui.patientLineEdit.setText("hospital number 4711")
    drawn.press("addCaseButton")
    wait_for_pictures(drawn)
    assert [column(drawn, number) for number in (CASE, PATIENT, LABELS)] == [["case-0001"], ["P0001"], ["lesion"]]
    assert splits(drawn) == ["none yet"]
    assert not ui.casesTable.item(0, 0).icon().isNull()
    assert ui.patientLineEdit.text == ""
    dataset = SiteDataset.open(Path(setting("siteDataset")))
    loaded = dataset.load(dataset.cases[0])
    np.testing.assert_array_equal(loaded.labels["lesion"], box_mask(drawn.volume_node))
    np.testing.assert_array_equal(loaded.volume.voxels, slicer.util.arrayFromVolume(drawn.volume_node))
    written = b"".join(path.read_bytes() for path in (computer / "new").rglob("*") if path.is_file())
    assert b"4711" not in written
    assert b"Doe" not in written


def test_what_cannot_become_a_case_is_told(gui, drawn):
    ui = drawn.ui
    for _time in range(2):
        drawn.press("addCaseButton")
        wait_for_pictures(drawn)
    assert "in the dataset already, as case-0001" in ui.datasetLabel.text
    add_segment(drawn.segmentation, "nothing")
    drawn.panel.update()
    gui.pump()
    drawn.press("addCaseButton")
    assert "'nothing' is empty" in ui.datasetLabel.text
    assert ui.casesTable.rowCount == 1


def test_patients_are_dealt_and_moved_but_never_tested_on_after_a_training(gui, trainer, site):
    first = site.load(site.cases[0])
    site.add(replace(first.volume, voxels=first.volume.voxels + 1), first.labels, pseudonym="P0001")
    trainer.panel.training.dataset.read()
    wait_for_pictures(trainer)
    assert column(trainer, PATIENT) == ["P0001", "P0002", "P0003", "P0004", "P0001"]
    assert splits(trainer) == ["training", "training", "validation", "test", "training"]
    choose_split(trainer, 0, "test")
    assert splits(trainer) == ["test", "training", "validation", "test", "test"]
    site.mark_used(["case-0002"], "an earlier run")
    choose_split(trainer, 1, "test")
    assert "was used for training (an earlier run)" in trainer.ui.datasetLabel.text
    assert splits(trainer)[1] == "training"


def test_new_patients_are_dealt_at_once_and_all_of_them_anew_after_a_question(gui, trainer, site):
    choose_split(trainer, 0, "test")
    new = site.load(site.cases[0])
    site.add(replace(new.volume, voxels=new.volume.voxels + 1), new.labels, patient=None)
    trainer.panel.training.dataset.read()
    wait_for_pictures(trainer)
    assert splits(trainer) == ["test", "training", "validation", "test", "none yet"]
    trainer.press("splitDatasetButton")
    assert splits(trainer) == ["test", "training", "validation", "test", "training"]
    by_hand = splits(trainer)
    for answer in (gui.qt.QMessageBox.Cancel, gui.qt.QMessageBox.Ok):
        assert splits(trainer) == by_hand
        gui.dialogs.answer(answer)
        trainer.press("splitDatasetButton")
        (dialog,) = gui.dialogs.take()
        assert "Deal all of them anew?" in dialog.text
    assert sorted(splits(trainer)) == ["test", "training", "training", "training", "validation"]


def test_the_check_shows_what_is_wrong_and_a_case_is_removed_after_a_question(gui, trainer, site):
    site.labels_path(site.cases[1]).write_bytes(b"damaged")
    trainer.press("checkDatasetButton")
    wait_for_pictures(trainer)
    assert "error: case-0002:" in trainer.ui.findingsText.plainText
    assert "Errors: 1." in trainer.ui.datasetLabel.text
    trainer.ui.casesTable.setCurrentCell(1, CASE)
    for answer, left in ((gui.qt.QMessageBox.Cancel, 4), (gui.qt.QMessageBox.Ok, 3)):
        gui.dialogs.answer(answer)
        gui.pump()
        trainer.press("removeCaseButton")
        (dialog,) = gui.dialogs.take()
        assert "case-0002" in dialog.text
        assert trainer.ui.casesTable.rowCount == left
    assert not site.image_path(site.cases[1]).exists()


def test_a_trained_model_is_drawn_reported_listed_and_used(gui, trainer, computer, monkeypatch):
    ui = trainer.ui
    models = ui.modelComboBox.count
    trainer.press("trainButton")
    assert not ui.trainButton.enabled
    wait_for_an_epoch(trainer)
    gui.pump(0.6)
    assert "Epoch" in ui.trainingLabel.text
    assert ui.trainingProgressBar.maximum > 0
    table = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLTableNode")
    assert table.GetTable().GetNumberOfRows() >= 1
    chart = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLPlotChartNode")
    assert chart.GetNumberOfPlotSeriesNodes() == 4
    epochs = [row["epoch"] for row in trainer.panel.training.training.log()]
    assert chart.GetXAxisRange()[0] == min(epochs)
    assert chart.GetXAxisRange()[1] >= max(epochs) + 1, "the legend covers no point"
    assert not chart.GetXAxisRangeAuto()
    wait_for_end(trainer)
    assert ui.trainingLabel.text.startswith("Dice on 3 patients, each left out of training in turn: 0.000 to")
    assert "Expected gain: +" in ui.trainingLabel.text
    assert ui.useModelButton.toolTip.startswith("Segment with our scanner from now on. Dice on 3 patients")
    assert "Expected gain: +" in ui.useModelButton.toolTip
    assert table.GetTable().GetNumberOfRows() == len(trainer.panel.training.training.log())

    model = computer / "home" / "models" / "our scanner.pth"
    assert ui.modelComboBox.count == models + 1
    assert setting("model") != str(model)
    opened = []
    browser = types.SimpleNamespace(openUrl=lambda url: opened.append(url.toLocalFile()))
    monkeypatch.setattr(gui.qt, "QDesktopServices", browser)
    trainer.press("reportButton")
    gui.pump(until=lambda: opened, at_most=TRAINING_S)
    assert "Learning curves" in Path(opened[0]).read_text(encoding="utf-8")
    assert "Too few held-out patients" in ui.trainingLabel.text
    trainer.press("useModelButton")
    assert setting("model") == str(model)
    assert ui.modelComboBox.currentText == "our scanner"

    trainer.press("showCurvesButton")
    assert gui.layout_manager.layout == slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpPlotView
    trainer.press("trainButton")
    assert "give another name" in ui.trainingLabel.text


def test_the_next_slicer_follows_the_training_and_can_stop_it(gui, trainer, computer):
    trainer.press("trainButton")
    wait_for_an_epoch(trainer)
    first = trainer.panel.training.training.process
    trainer.widget.onReload()
    trainer.widget = gui.module_manager.module("MedSAMSlicer").widgetRepresentation().self()
    gui.pump()
    assert first.running
    assert trainer.panel.training.running
    assert not trainer.ui.trainingSection.collapsed
    assert trainer.ui.modelNameLineEdit.text == "our scanner"
    found = trainer.panel.training.training
    with pytest.raises(ValueError, match="our scanner is being trained already"):
        type(found).start(found.request)
    gui.pump(until=lambda: "Epoch" in trainer.ui.trainingLabel.text)
    trainer.press("stopTrainingButton")
    wait_for_end(trainer)
    assert trainer.ui.trainingLabel.text.startswith("Stopped. Dice on 3 patients")
    assert (computer / "home" / "models" / "our scanner.pth").is_file()
    assert trainer.ui.modelComboBox.findText("our scanner") >= 0
    assert trainer.ui.useModelButton.enabled


def test_a_training_that_has_not_said_a_word_yet_is_found_again_but_not_for_ever(gui, trainer):
    trainer.press("trainButton")
    training = trainer.panel.training.training
    # As silent as one that still imports PyTorch.
    os.kill(training.process.id, signal.SIGKILL)
    gui.pump(until=lambda: not training.process.running)
    trainer.widget.onReload()
    trainer.widget = gui.module_manager.module("MedSAMSlicer").widgetRepresentation().self()
    gui.pump()
    assert trainer.panel.training.running
    assert trainer.ui.trainingLabel.text == "Starting…"
    started = (training.folder / "output.txt").stat().st_mtime
    os.utime(training.folder / "output.txt", (started, started - 61))
    wait_for_end(trainer)
    assert "has ended before its time" in trainer.ui.trainingLabel.text


GO_ON, STAY, STOP = "Let it go on", "Stay in Slicer", "Stop it, keep the best so far"
EXIT = "Exit (discard modifications)"


def close_slicer(gui, *answers: str) -> list[str]:
    """Close the main window with these answers, and tell the titles of what it asked."""
    gui.main_window.show()
    gui.dialogs.answer(*answers)
    gui.main_window.close()
    gui.pump()
    return [dialog.title for dialog in gui.dialogs.take()]


def test_closing_slicer_asks_what_becomes_of_a_training(gui, trainer):
    trainer.press("trainButton")
    gui.pump(until=lambda: trainer.ui.stopTrainingButton.enabled, at_most=TRAINING_S)
    training = trainer.panel.training.training
    assert close_slicer(gui, STAY) == ["A training runs"]
    assert gui.main_window.visible
    assert close_slicer(gui, GO_ON, "Cancel exit") == ["A training runs", "Save before exit?"]
    assert gui.main_window.visible
    assert training.process.running
    assert not (training.folder / "stop").exists()
    assert close_slicer(gui, STOP, EXIT) == ["A training runs", "Save before exit?"]
    assert not gui.main_window.visible
    assert (training.folder / "stop").exists()
    os.kill(training.process.id, signal.SIGKILL)


def test_a_training_that_may_go_on_survives_the_end_of_slicer(gui, trainer):
    trainer.press("trainButton")
    training = trainer.panel.training.training
    assert close_slicer(gui, GO_ON, EXIT) == ["A training runs", "Save before exit?"]
    assert not gui.main_window.visible
    # As macOS may do.
    gui.main_window.close()
    trainer.widget.cleanup()
    assert training.process.running
    os.kill(training.process.id, signal.SIGKILL)


def test_a_training_that_can_not_be_stopped_yet_or_at_all_is_not_left_by_mistake(gui, trainer, monkeypatch):
    trainer.press("trainButton")
    assert not trainer.ui.stopTrainingButton.enabled
    gui.main_window.show()
    gui.dialogs.answer(STAY)
    gui.main_window.close()
    (dialog,) = gui.dialogs.take()
    assert dialog.buttons == (GO_ON, STAY)
    gui.pump(until=lambda: trainer.ui.stopTrainingButton.enabled, at_most=TRAINING_S)
    training = trainer.panel.training.training

    def refuse(self) -> None:
        raise OSError("The folder is read-only.")

    with monkeypatch.context() as patch:
        patch.setattr(type(training), "stop", refuse)
        patch.setattr(trainer.panel.training, "_look", lambda: None)
        assert close_slicer(gui, STOP) == ["A training runs"]
    assert gui.main_window.visible
    os.kill(training.process.id, signal.SIGKILL)


def test_closing_slicer_asks_nothing_without_a_training_or_a_user(gui, trainer, monkeypatch):
    only_slicers = ["Save before exit?"]
    assert close_slicer(gui, "Cancel exit") == only_slicers
    trainer.press("trainButton")
    training = trainer.panel.training.training
    with monkeypatch.context() as patch:
        patch.setattr(type(gui.app), "testingEnabled", lambda self: True)
        assert close_slicer(gui, "Cancel exit") == only_slicers
    trainer.widget.cleanup()
    assert close_slicer(gui, "Cancel exit") == only_slicers
    os.kill(training.process.id, signal.SIGKILL)


def test_a_process_that_was_killed_is_told_and_goes_on(gui, trainer):
    trainer.press("trainButton")
    wait_for_an_epoch(trainer)
    os.kill(trainer.panel.training.training.process.id, signal.SIGKILL)
    wait_for_end(trainer)
    assert "has ended before its time" in trainer.ui.trainingLabel.text
    done = trainer.panel.training.training.log()
    trainer.press("trainButton")
    gui.pump(until=lambda: "Epoch" in trainer.ui.trainingLabel.text, at_most=TRAINING_S)
    trainer.press("stopTrainingButton")
    wait_for_end(trainer)
    assert trainer.ui.trainingLabel.text.startswith("Stopped.")
    # With the seconds that each epoch took.
    assert trainer.panel.training.training.log()[: len(done)] == done


def test_what_the_training_refuses_is_told_in_its_own_words(gui, trainer, site):
    site.image_path(site.cases[0]).write_bytes(b"damaged")
    trainer.press("trainButton")
    wait_for_end(trainer)
    assert "can't be trained on: case-0001" in trainer.ui.trainingLabel.text
    assert not trainer.ui.useModelButton.enabled


def test_the_button_says_what_is_missing_for_a_training(gui, trainer, site):
    button = trainer.ui.trainButton
    assert button.enabled
    trainer.ui.modelNameLineEdit.setText("../elsewhere")
    gui.pump()
    assert not button.enabled
    assert "Give the new model a name" in button.toolTip
    choose_split(trainer, 2, "test")
    assert "split them first" in button.toolTip
