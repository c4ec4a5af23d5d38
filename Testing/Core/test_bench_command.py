"""The command bench: a table of what a user waits for, from nothing but a made-up volume."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from MedSAMSlicerLib import loading
from MedSAMSlicerLib.benchmark import course
from MedSAMSlicerLib.benchmark.figures import Figures, table
from MedSAMSlicerLib.benchmark.phantom import phantom
from MedSAMSlicerLib.cli.main import main
from MedSAMSlicerLib.store.catalog import Weights

TINY = Weights("lite", "Tiny", "tiny", "lite", "Apache-2.0", "tiny.pth", "https://example.org/tiny")
WAITED_FOR = {"model_loaded", "slice_encoded", "box_decoded", "first_mask", "box", "second_box", "correction"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store without anything, on a computer without a network, whose model "lite" is a tiny one."""
    monkeypatch.setenv("MEDSAM_SLICER_HOME", str(tmp_path / "home"))
    for name in ("http_proxy", "https_proxy", "PIP_INDEX_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setattr(loading, "WEIGHTS", (TINY,))
    monkeypatch.setattr(loading.WeightsStore.__init__, "__defaults__", (None, (TINY,)))
    monkeypatch.setattr(course, "weights_named", lambda name: TINY)
    return tmp_path / "home"


def test_bench_measures_every_step_without_weights_or_network_and_leaves_nothing(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "--device", "cpu", "--slices", "3", "--json", str(tmp_path / "bench.json")]) == 0
    printed, told = capsys.readouterr()
    report = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    (figures,) = report["devices"]
    assert all(figures[name] > 0 for name in WAITED_FOR)
    assert figures["first_mask"] < figures["box"]
    assert figures["gpu_mebibytes"] is None
    assert "random weights" in report["weights"]
    assert "made-up CT, 512 x 512 x 3 voxels" in printed
    assert "| box through all slices" in printed
    assert "correcting a slice" in told
    assert not home.exists()


def test_figures_tell_neither_the_computer_nor_its_user(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import getpass
    import platform

    assert main(["bench", "--device", "cpu", "--slices", "3", "--json", "-"]) == 0
    text = capsys.readouterr().out
    report = json.loads(text)
    assert report["machine"]["torch"] == torch.__version__
    assert platform.node() not in text
    assert getpass.getuser() not in text
    assert str(Path.home()) not in text


def test_a_device_is_compared_with_the_cpu_figure_by_figure() -> None:
    def figures(device: str, factor: float, gpu: float | None) -> Figures:
        return Figures(device, device, 10.0, 1.0, factor, factor / 10, 2 * factor, 30 * factor, 8.0, 3.0, 5, 600.0, gpu)

    text = table([figures("cuda:0", 0.02, 1800.0), figures("cpu", 0.4, None)])
    cells = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in text.splitlines()}
    assert cells[""] == ["cuda:0", "cpu", "times as fast"]
    assert cells["one slice encoded"] == ["0.020 s", "0.400 s", "20.0"]
    assert cells["box through all slices"] == ["0.600 s", "12.0 s", "20.0"]
    assert cells["second box, same slices"] == ["8.0 s", "8.0 s", "1.0"]
    assert cells["peak memory of the GPU"] == ["1,800 MiB", "", ""]
    assert len({len(line) for line in text.splitlines()}) == 1


def test_a_device_that_is_not_there_and_a_model_that_is_unknown_are_refused_by_name(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "--model", "medsam3"]) == 1
    assert "'medsam3' is unknown" in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert main(["bench", "--device", "cuda"]) == 1
        assert "'cuda' is not there" in capsys.readouterr().err


def test_the_made_up_volume_is_the_same_every_time_and_its_box_wraps_the_organ() -> None:
    one, two = phantom(5), phantom(5)
    assert (one.voxels == two.voxels).all()
    assert len({image.tobytes() for image in one.voxels}) == 5
    (i0, j0, k0), (i1, j1, k1) = one.first, one.last
    assert (k0, k1) == (0, 4)
    middle = np.s_[(j0 + j1) // 2 - 8 : (j0 + j1) // 2 + 8, (i0 + i1) // 2 - 8 : (i0 + i1) // 2 + 8]
    for image in one.voxels:
        assert 100 < np.median(image[middle]) < 130
