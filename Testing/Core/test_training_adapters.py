"""Adapters: a small file beside a base model, which loads as the whole model that was trained."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from MedSAMSlicerLib.loading import load_model
from MedSAMSlicerLib.model import CheckpointError, MedSAM, build_model, load_checkpoint, save_checkpoint
from MedSAMSlicerLib.store.folder import sha256_of
from MedSAMSlicerLib.store.weights import WeightsMissing
from MedSAMSlicerLib.training.low_rank import LowRank
from MedSAMSlicerLib.training.model_file import export_official
from MedSAMSlicerLib.training.recipe import Recipe
from MedSAMSlicerLib.training.trainee import Trainee
from reference_models import decode, sam_vit_b

BOX = torch.tensor([[10.0, 12.0, 40.0, 50.0]])


def trained(base: MedSAM, recipe: Recipe, name: str = "base.pth", sha256: str = "?") -> Trainee:
    """Change everything that a recipe trains, at random."""
    trainee = Trainee(base, recipe, name, sha256)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trainee.trained().values():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return trainee


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def base_file(tmp_path: Path) -> Path:
    path = tmp_path / "base.pth"
    save_checkpoint(build_model("tiny"), path)
    return path


def adapter_file(base_file: Path) -> tuple[Path, Trainee]:
    path = base_file.with_name("site.pth")
    trainee = trained(load_checkpoint(base_file), Recipe(depth="adapter"), sha256=sha256_of(base_file))
    trainee.save(path, {"seed": 1})
    return path, trainee


@pytest.mark.parametrize("architecture", ["tiny", "lite", "vit_b"])
def test_low_rank_matrices_are_in_every_attention_of_the_encoder_and_change_nothing_at_first(architecture):
    base = build_model(architecture).eval()
    trainee = Trainee(base, Recipe(depth="adapter", rank=4), "base", "?")
    attentions = [name for name, _ in base.image_encoder.named_modules() if name.endswith(".attn")]
    assert len(attentions) == {"tiny": 2, "lite": 10, "vit_b": 12}[architecture]
    assert sum(isinstance(module, LowRank) for module in trainee.modules()) == len(attentions)
    if architecture != "vit_b":
        side = base.image_size
        images = torch.rand(1, 3, side, side)
        with torch.no_grad():
            assert torch.equal(trainee(images, BOX)[0], base.decode(base.encode(images), BOX)[0])


@pytest.mark.parametrize("depth", ["decoder", "adapter", "full"])
def test_the_prompt_encoder_and_what_no_box_asks_for_stay_as_they_are(depth, images):
    trainee = Trainee(build_model("tiny"), Recipe(depth=depth), "base", "?")
    inputs = trainee.model.encode(images) if depth == "decoder" else images
    logits, _ = trainee(inputs, BOX)
    logits.square().mean().backward()
    names = set(trainee.trained())
    # Everything that is said to be trained gets a gradient, or distributed training would wait for it forever.
    assert all(parameter.grad is not None for parameter in trainee.trained().values())
    assert not any("prompt_encoder" in name or "mlps.1" in name or "iou_prediction" in name for name in names)
    assert any("image_encoder" in name for name in names) == (depth != "decoder")


def test_an_adapter_file_loads_as_the_model_that_was_validated(base_file, images):
    path, trainee = adapter_file(base_file)
    assert path.stat().st_size < 0.6 * base_file.stat().st_size
    ours, loaded = trainee.result(), load_model(str(path))
    assert loaded.metadata == {"seed": 1}
    with torch.no_grad():
        expected, trained_logits = ours.decode(ours.encode(images), BOX)[0], trainee(images, BOX)[0]
        assert torch.equal(loaded.decode(loaded.encode(images), BOX)[0], expected)
        # Half precision of the changes is all that is lost.
        assert (expected - trained_logits).abs().max() < 0.02 * trained_logits.abs().max()


def test_without_the_decoder_an_adapter_takes_kilobytes(base_file):
    trainee = trained(load_checkpoint(base_file), Recipe(depth="adapter", train_decoder=False))
    trainee.save(base_file.with_name("site.pth"), {})
    assert base_file.with_name("site.pth").stat().st_size < 20_000


def test_an_adapter_whose_base_is_not_here_says_so(base_file, tmp_path):
    path, _ = adapter_file(base_file)
    alone = Path(shutil.move(path, tmp_path / "elsewhere.pth"))
    base_file.unlink()
    with pytest.raises(ValueError, match=r"adapter of the model 'base\.pth', which isn't here: put this file beside"):
        load_model(str(alone))


def test_an_adapter_of_published_weights_that_are_absent_names_the_command(base_file, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDSAM_SLICER_HOME", str(tmp_path / "home"))
    trained(load_checkpoint(base_file), Recipe(depth="adapter"), name="lite").save(tmp_path / "site.pth", {})
    with pytest.raises(WeightsMissing, match="medsam-slicer models fetch lite"):
        load_model(str(tmp_path / "site.pth"))


def test_an_adapter_is_not_merged_into_another_file_than_its_base(base_file):
    path, _ = adapter_file(base_file)
    model = build_model("tiny")
    torch.nn.init.zeros_(model.mask_decoder.iou_token.weight)
    save_checkpoint(model, base_file)
    with pytest.raises(ValueError, match=r"SHA-256 [0-9a-f]{64}, but .*base\.pth has [0-9a-f]{64}: get the file"):
        load_model(str(path))


def test_an_adapter_of_another_architecture_is_refused(base_file):
    path, _ = adapter_file(base_file)
    content = torch.load(path, weights_only=True)
    save_checkpoint(build_model("lite"), base_file)
    content["adapter"]["base"][1] = sha256_of(base_file)
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"adapter for tiny that does not fit its base model 'base\.pth': the"):
        load_model(str(path))


@pytest.mark.parametrize("damage", ["base", "low_rank", "added"])
def test_a_damaged_adapter_is_told(base_file, damage):
    path, _ = adapter_file(base_file)
    content = torch.load(path, weights_only=True)
    content["adapter"][damage] = {"a": 1}
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="a damaged adapter"):
        load_model(str(path))


def test_an_adapter_that_is_loaded_without_its_base_is_told(base_file):
    path, _ = adapter_file(base_file)
    with pytest.raises(CheckpointError, match=r"an adapter: it holds only what was changed in the model 'base\.pth'"):
        load_checkpoint(path)


@pytest.mark.parametrize("depth", ["decoder", "adapter", "full"])
def test_the_official_layout_is_a_plain_state_dict_with_the_official_names(base_file, tmp_path, depth):
    trainee = trained(load_checkpoint(base_file), Recipe(depth=depth), sha256=sha256_of(base_file))
    trainee.save(tmp_path / "site.pth", {})
    export_official(str(tmp_path / "site.pth"), tmp_path / "official.pth")
    state = torch.load(tmp_path / "official.pth", weights_only=True)
    expected = trainee.result().state_dict()
    assert state.keys() == expected.keys() == build_model("tiny").state_dict().keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_the_official_layout_loads_in_the_official_code(tmp_path):
    trainee = trained(build_model("vit_b").eval(), Recipe(depth="decoder"))
    trainee.save(tmp_path / "site.pth", {})
    export_official(str(tmp_path / "site.pth"), tmp_path / "official.pth")
    sam = sam_vit_b().eval()
    sam.load_state_dict(torch.load(tmp_path / "official.pth", weights_only=True))
    embedding = torch.rand(1, 256, 64, 64, generator=torch.Generator().manual_seed(3))
    box = torch.tensor([[100.0, 120.0, 700.0, 640.0]])
    with torch.no_grad():
        ours, theirs = trainee.result().decode(embedding, box)[0], decode(sam, embedding, box)[0]
    assert torch.allclose(ours, theirs, atol=1e-4 * float(theirs.abs().max()))
