"""The button Measure speed: a table for an issue, from a process that touches nothing of the user's."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import pytest
import slicer

from made_up_site import blind_base
from MedSAMSlicerLib.app.settings import remember
from panel_user import User

LONG_S = 120.0


@pytest.fixture
def own_model(gui, computer: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small model that the user has chosen, and a folder for temporary files that is looked at."""
    (computer / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(computer / "temporary"))
    remember("model", str(blind_base(computer / "base.pth")))
    remember("device", "cpu")
    return computer


def nodes() -> set[str]:
    scene = slicer.mrmlScene
    return {scene.GetNthNode(number).GetID() for number in range(scene.GetNumberOfNodes())}


def test_the_table_can_be_copied_and_nothing_else_has_changed(own_model: Path, user: User) -> None:
    ui, before = user.ui, nodes()
    assert not ui.speedText.isVisibleTo(user.widget.parent)
    user.press("speedButton")
    assert ui.speedButton.text == "Cancel"
    user.gui.pump(until=lambda: "segmenting a box" in ui.speedLabel.text, at_most=LONG_S)
    user.gui.pump(until=lambda: ui.speedButton.text == "Measure speed", at_most=LONG_S)
    assert ui.speedLabel.text == "Done."
    assert "| first mask" in ui.speedText.toPlainText()
    assert "made-up CT, 512 x 512 x 30 voxels" in ui.speedText.toPlainText()
    assert "bench [" not in ui.speedText.toPlainText()
    user.press("copySpeedButton")
    assert user.gui.qt.QApplication.clipboard().text().startswith("medsam-slicer ")
    assert nodes() == before
    assert len(user.widget.logic.session.cache) == 0
    assert not (own_model / "home").exists()
    assert list((own_model / "temporary").iterdir()) == []


def test_a_measurement_is_cancelled_at_once_and_ends_with_slicer(
    own_model: Path, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen] = []
    popen = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda *args, **options: started.append(popen(*args, **options)) or started[-1]
    )
    user.press("speedButton")
    user.press("speedButton")
    assert user.ui.speedLabel.text == "Stopped."
    assert started[0].poll() is not None
    user.press("speedButton")
    user.widget.cleanup()
    assert started[1].poll() is not None
    assert list((own_model / "temporary").iterdir()) == []


def test_what_keeps_it_from_being_measured_is_told(own_model: Path, user: User) -> None:
    remember("model", str(own_model / "gone.pth"))
    user.press("speedButton")
    user.gui.pump(until=lambda: user.ui.speedButton.text == "Measure speed", at_most=LONG_S)
    assert "gone.pth' is unknown" in user.ui.speedLabel.text
    (own_model / "Slicer" / "bin" / "PythonSlicer").unlink()
    user.press("speedButton")
    assert "PythonSlicer is not in" in user.ui.speedLabel.text
    assert user.ui.speedButton.text == "Measure speed"
