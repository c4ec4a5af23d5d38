"""Weights of MedSAM2 and SAM 2.1: every published layout loads, and whatever does not fit is told by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from MedSAMSlicerLib.loading import load_model
from MedSAMSlicerLib.model import CheckpointError, MedSAM2, build_model, load_checkpoint, save_checkpoint
from MedSAMSlicerLib.store.catalog import WEIGHTS
from MedSAMSlicerLib.store.weights import WeightsStore
from sam2_reference import load_official, sam2_backbone, sam2_video, with_random_weights


@pytest.fixture(scope="module")
def tiny() -> MedSAM2:
    return with_random_weights(build_model("tiny_medsam2"), seed=3)


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as MedSAM2_latest.pt and sam2.1_hiera_tiny.pt are, with random weights."""
    path = tmp_path_factory.mktemp("official") / "MedSAM2_latest.pt"
    torch.save({"model": build_model("medsam2").state_dict()}, path)
    return path


def same_weights(ours: torch.nn.Module, expected: dict[str, Tensor]) -> None:
    state = ours.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in state)


def test_the_official_file_is_recognized(official: Path) -> None:
    model = load_checkpoint(official)
    assert (model.architecture, model.preprocessing, model.image_size) == ("medsam2", "medsam2", 512)
    assert not model.training
    # As many as the released file has, whose parameters have been counted.
    assert len(model.state_dict()) == 471
    assert sum(parameter.numel() for parameter in model.parameters()) == 38_962_498
    same_weights(model, torch.load(official, weights_only=True)["model"])


def test_its_twin_of_sam_2_is_known_by_its_name_alone(official: Path, tmp_path: Path) -> None:
    store = WeightsStore(tmp_path / "weights")
    store.import_file("sam2_tiny", official)
    model = load_model("sam2_tiny", store)
    assert (model.architecture, model.image_size) == ("sam2_tiny", 1024)
    # The same file, wherever it lies.
    assert load_model(str(official), store).image_size == 1024


def test_a_file_of_another_size_than_its_name_says_is_refused(official: Path, tmp_path: Path) -> None:
    store = WeightsStore(tmp_path / "weights")
    store.import_file("sam2_small", official)
    with pytest.raises(CheckpointError, match=r"not a whole or not an unchanged sam2_small.* 50 missing"):
        load_model("sam2_small", store)


@pytest.mark.parametrize(
    ("architecture", "parameters"),
    [("sam2_small", 46.0), ("sam2_base_plus", 80.8), ("sam2_large", 224.4)],
)
def test_the_sizes_of_sam_2_are_told_apart(architecture: str, parameters: float, tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in build_model(architecture).state_dict().items()}
    # Millions, as its authors say.
    assert sum(shape.numel() for shape in shapes.values()) / 1e6 == pytest.approx(parameters, abs=0.1)
    # Tensors of one number take no room on the disk.
    torch.save({"model": {name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}}, tmp_path / "sam.pt")
    assert load_checkpoint(tmp_path / "sam.pt").architecture == architecture


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.safetensors"])
@torch.inference_mode()
def test_a_model_of_transformers_loads(tiny: MedSAM2, tmp_path: Path, file: str) -> None:
    theirs = sam2_video("tiny_medsam2")
    load_official(theirs, tiny.state_dict())
    if file == "model.safetensors":
        theirs.save_pretrained(tmp_path)
    else:
        torch.save(theirs.state_dict(), tmp_path / file)
    model = load_checkpoint(tmp_path / file)
    assert model.architecture == "tiny_medsam2"
    same_weights(model, tiny.state_dict())


def test_hiera_tiny_in_transformers_layout_is_sam_2s_own(tmp_path: Path, official: Path) -> None:
    with torch.device("meta"):
        theirs = sam2_video("sam2_tiny")
    theirs.to_empty(device="cpu")
    load_official(theirs, torch.load(official, weights_only=True)["model"])
    torch.save(theirs.state_dict(), tmp_path / "model.bin")
    assert load_checkpoint(tmp_path / "model.bin").image_size == 1024


def test_a_model_for_images_alone_is_refused_as_its_memory_is_missing(tmp_path: Path) -> None:
    from transformers import Sam2Config, Sam2Model, Sam2VisionConfig

    backbone = sam2_backbone("tiny_medsam2")
    vision = Sam2VisionConfig(backbone_config=backbone, backbone_channel_list=backbone.embed_dim_per_stage[::-1])
    theirs = Sam2Model(Sam2Config(vision_config=vision))
    # One parameter, but for random weights.
    theirs.shared_image_embedding.load_state_dict(theirs.prompt_encoder.shared_embedding.state_dict())
    theirs.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"not a whole.* 160 missing \(maskmem_tpos_enc, no_mem_pos_enc, "):
        load_checkpoint(tmp_path / "model.safetensors")


def test_sam_2_before_2_1_is_refused_by_what_it_lacks(tiny: MedSAM2, tmp_path: Path) -> None:
    state = tiny.state_dict()
    for name in ("no_obj_embed_spatial", "obj_ptr_tpos_proj.weight", "obj_ptr_tpos_proj.bias"):
        del state[name]
    state["memory_encoder.more"] = torch.zeros(1)
    torch.save({"model": state}, tmp_path / "sam2.pt")
    text = r"3 missing \(no_obj_embed_spatial, obj_ptr_tpos_proj.*; 1 unexpected \(memory_encoder.more\)"
    with pytest.raises(CheckpointError, match=text):
        load_checkpoint(tmp_path / "sam2.pt")


def test_a_saved_model_comes_back(tiny: MedSAM2, tmp_path: Path) -> None:
    save_checkpoint(tiny, tmp_path / "own.pth", trained_on="CT")
    model = load_checkpoint(tmp_path / "own.pth")
    assert (model.architecture, model.metadata) == ("tiny_medsam2", {"trained_on": "CT"})
    same_weights(model, tiny.state_dict())


def test_every_name_of_the_catalog_is_a_model_that_can_be_built() -> None:
    for weights in WEIGHTS:
        with torch.device("meta"):
            model = build_model(weights.architecture)
        assert weights.preprocessing in (model.preprocessing, "sam")
