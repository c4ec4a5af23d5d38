"""From a model's name or file to a predictor."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import MedSAMSlicerLib
from MedSAMSlicerLib.loading import import_weights, load_predictor
from MedSAMSlicerLib.model import build_model, save_checkpoint
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.store.catalog import Weights
from MedSAMSlicerLib.store.weights import WeightsMissing, WeightsStore


@pytest.fixture
def tiny_file(tmp_path: Path) -> Path:
    path = tmp_path / "my model.pth"
    save_checkpoint(build_model("tiny"), path)
    return path


@pytest.fixture
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDSAM_SLICER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_checkpoint_file_becomes_a_predictor_that_segments(tiny_file, empty_home):
    predictor = load_predictor(str(tiny_file), "cpu")
    image = np.random.default_rng(1).integers(0, 256, (40, 50), dtype=np.uint8)
    prediction = predictor.decode(predictor.encode(image), [Box(5, 6, 30, 25), Box(0, 0, 49, 39)])
    assert prediction.probabilities.shape == (2, 40, 50)
    assert str(predictor.device) == "cpu"


def test_known_weights_are_found_by_name_and_recognized_wherever_their_file_lies(lite_weights, tmp_path):
    by_name = load_predictor("lite", "cpu")
    renamed = Path(shutil.copy(lite_weights, tmp_path / "downloaded (1).bin"))
    by_path = load_predictor(str(renamed), "cpu")
    assert by_name.model.architecture == by_path.model.architecture == "lite"
    assert by_name.key == by_path.key


@pytest.fixture
def a_store(tmp_path: Path) -> WeightsStore:
    """A store that knows one model, whose publisher states no checksum."""
    weights = Weights("vit_t", "MedSAM tiny", "tiny", "medsam", "Apache-2.0", "medsam.pth", "https://example.org")
    return WeightsStore(tmp_path / "store", (weights,))


def test_a_file_without_a_published_checksum_is_imported_once_it_is_recognized(tiny_file, a_store):
    assert import_weights("vit_t", tiny_file, a_store) == a_store.path("vit_t")


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("evil.txt"),))


def other_model(path: Path) -> None:
    torch.save(build_model("lite").state_dict(), path)


def nan_model(path: Path) -> None:
    state = build_model("tiny").state_dict()
    state["mask_decoder.iou_token.weight"][:] = np.nan
    torch.save(state, path)


def zip_of_something(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../notes.txt", "none")


@pytest.mark.parametrize(
    ("write", "text"),
    [
        (lambda path: torch.save({"model": Evil()}, path), "is a pickled Python object, which is code, not data"),
        (zip_of_something, "is a zip archive of other files"),
        (other_model, "holds a network 'lite', not MedSAM tiny: get medsam.pth again"),
        (nan_model, "of its parameters are NaN"),
        (lambda path: torch.save(torch.nn.Linear(2, 2).state_dict(), path), "is a state dict of another model"),
    ],
    ids=["code", "zip", "another network", "NaN", "another model"],
)
def test_what_is_not_the_model_is_not_imported_and_does_not_block_the_real_one(
    a_store, tiny_file, tmp_path, monkeypatch, write, text
):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "file.pth")
    with pytest.raises(ValueError, match=text):
        import_weights("vit_t", tmp_path / "file.pth", a_store)
    assert [stored.state for stored in a_store.entries()] == ["absent"]
    assert not (tmp_path / "evil.txt").exists()
    import_weights("vit_t", tiny_file, a_store)


def test_a_known_file_is_preprocessed_as_its_catalog_entry_says(tiny_file, tmp_path):
    assert load_predictor(str(tiny_file), "cpu").model.preprocessing == "medsam"
    sam = Weights(
        "sam_tiny", "SAM tiny", "tiny", "sam", "Apache-2.0", "sam.pth", "https://example.org",
        (), tiny_file.stat().st_size, hashlib.sha256(tiny_file.read_bytes()).hexdigest(),
    )  # fmt: skip
    predictor = load_predictor(str(tiny_file), "cpu", WeightsStore(tmp_path / "store", (sam,)))
    assert predictor.model.preprocessing == "sam"
    assert type(predictor.recipe) is not type(load_predictor(str(tiny_file), "cpu").recipe)


@pytest.mark.parametrize("model", ["lightmedsam", "", "weights/none.pth", "."])
def test_an_unknown_model_is_refused_with_the_names_there_are(empty_home, model):
    text = "unknown: give one of lite, vit_b, .*or the path of a checkpoint file"
    with pytest.raises(ValueError, match=text) as refused:
        load_predictor(model)
    assert repr(model) in str(refused.value)


@pytest.mark.parametrize(("model", "way"), [("lite", "models fetch lite"), ("vit_b", "models import vit_b FILE")])
def test_weights_that_are_not_here_say_how_to_get_them(empty_home, model, way):
    with pytest.raises(WeightsMissing, match=way):
        load_predictor(model)
    assert not empty_home.exists() or not [each for each in empty_home.rglob("*") if each.is_file()]


def test_damaged_weights_are_never_loaded(empty_home, lite_weights):
    damaged = bytearray(lite_weights.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (empty_home / "weights").mkdir(parents=True)
    (empty_home / "weights" / lite_weights.name).write_bytes(damaged)
    with pytest.raises(WeightsMissing, match=r"'lite'.*are damaged.*models fetch lite"):
        load_predictor("lite")


def test_a_missing_device_is_refused(tiny_file):
    import torch

    missing = "mps" if torch.cuda.is_available() else "cuda"
    with pytest.raises(ValueError, match=missing):
        load_predictor(str(tiny_file), missing)


def test_a_missing_pytorch_is_named_with_both_ways_to_get_it(tiny_file):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from MedSAMSlicerLib.loading import load_predictor\n"
        f"load_predictor({str(tiny_file)!r})"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(Path(MedSAMSlicerLib.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ModuleNotFoundError: PyTorch is not installed")
    assert "PyTorch Util" in last
    assert "pip install torch" in last
