"""Weights on disk: every published layout loads, and whatever else is given is told by name."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from MedSAMSlicerLib.model import CheckpointError, MedSAM, build_model, load_checkpoint, save_checkpoint


@pytest.fixture
def tiny() -> MedSAM:
    """A model whose weights are not those that the loader's own random start gives."""
    model = build_model("tiny")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.25)
    return model


def same_weights(ours: MedSAM, expected: dict[str, Tensor]) -> None:
    state = ours.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name].float()) for name in state)


def write_safetensors(path: Path, tensors: dict[str, Tensor], padding: str = "") -> None:
    """Write the format as its specification describes it; the padding shifts the data."""
    header, data = {"__metadata__": {"format": "pt", "padding": padding}}, b""
    for name, tensor in tensors.items():
        raw = tensor.contiguous().numpy().tobytes()
        dtype = {torch.float32: "F32", torch.float16: "F16", torch.int64: "I64"}[tensor.dtype]
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": offsets}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_the_published_litemedsam_is_recognized(lite_weights: Path) -> None:
    model = load_checkpoint(lite_weights)
    assert (model.architecture, model.preprocessing, model.image_size) == ("lite", "lite", 256)
    assert not model.training
    same_weights(model, torch.load(lite_weights, weights_only=True))


@pytest.mark.parametrize("architecture", ["lite", "vit_b"])
def test_a_plain_state_dict_tells_its_architecture(tmp_path: Path, architecture: str) -> None:
    state = build_model(architecture).state_dict()
    torch.save(state, tmp_path / "weights.pth")
    model = load_checkpoint(str(tmp_path / "weights.pth"))
    assert model.architecture == architecture
    assert model.preprocessing == {"lite": "lite", "vit_b": "medsam"}[architecture]
    same_weights(model, state)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_checkpoint_of_the_official_training_scripts_loads(tmp_path: Path, tiny: MedSAM, prefix: str) -> None:
    optimizer = torch.optim.AdamW(tiny.parameters())
    state = OrderedDict((prefix + name, tensor) for name, tensor in tiny.state_dict().items())
    content = {"model": state, "optimizer": optimizer.state_dict(), "epoch": 3, "loss": 0.1, "best_loss": 0.1}
    torch.save(content, tmp_path / "medsam_model_best.pth")
    same_weights(load_checkpoint(tmp_path / "medsam_model_best.pth"), tiny.state_dict())


def test_the_file_format_of_old_pytorch_loads(tmp_path: Path, tiny: MedSAM) -> None:
    torch.save(tiny.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    same_weights(load_checkpoint(tmp_path / "old.pth"), tiny.state_dict())


def test_half_precision_becomes_single(tmp_path: Path, tiny: MedSAM) -> None:
    halves = {name: tensor.half() for name, tensor in tiny.state_dict().items()}
    torch.save(halves, tmp_path / "half.pth")
    same_weights(load_checkpoint(tmp_path / "half.pth"), halves)


@pytest.mark.parametrize("padding", ["", "x", "xx", "xxx"])
def test_safetensors_load_at_any_alignment(tmp_path: Path, tiny: MedSAM, padding: str) -> None:
    write_safetensors(tmp_path / "model.safetensors", tiny.state_dict(), padding)
    same_weights(load_checkpoint(tmp_path / "model.safetensors"), tiny.state_dict())


def test_a_saved_model_comes_back_with_its_preprocessing_and_metadata(tmp_path: Path, tiny: MedSAM) -> None:
    tiny.preprocessing = "sam"
    save_checkpoint(tiny, tmp_path / "own.pth", trained_on=["CT"], dice=0.91)
    model = load_checkpoint(tmp_path / "own.pth")
    assert (model.architecture, model.preprocessing) == ("tiny", "sam")
    assert model.metadata == {"trained_on": ["CT"], "dice": 0.91}
    same_weights(model, tiny.state_dict())
    assert [path.name for path in tmp_path.iterdir()] == ["own.pth"]


def test_a_failed_save_leaves_the_old_file_and_no_other(
    tmp_path: Path, tiny: MedSAM, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "own.pth"
    save_checkpoint(tiny, path)
    before = path.read_bytes()

    def disk_full(content: object, file: object) -> None:
        file.write(b"half of it")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", disk_full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tiny, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_model_prepared_for_inference_is_not_saved(tmp_path: Path, tiny: MedSAM) -> None:
    with pytest.raises(ValueError, match="prepared for inference"):
        save_checkpoint(tiny.prepare_for_inference(), tmp_path / "own.pth")


def test_metadata_that_would_make_the_file_unloadable_is_refused(tmp_path: Path, tiny: MedSAM) -> None:
    with pytest.raises(ValueError, match="Path is not JSON serializable"):
        save_checkpoint(tiny, tmp_path / "own.pth", source=tmp_path)
    assert list(tmp_path.iterdir()) == []


class Malicious:
    """Creates a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable, tuple[str]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("new_format", [True, False])
def test_code_in_a_checkpoint_is_refused_and_not_executed(tmp_path: Path, tiny: MedSAM, new_format: bool) -> None:
    path, trace = tmp_path / "evil.pth", tmp_path / "executed"
    content = {"model": tiny.state_dict(), "epoch": Malicious(trace)}
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    with pytest.raises(CheckpointError, match=r"code, not data.*torch\.save\(model\.state_dict\(\)"):
        load_checkpoint(path)
    assert not trace.exists()


def test_a_pickled_module_is_refused_as_code(tmp_path: Path, tiny: MedSAM) -> None:
    torch.save(tiny, tmp_path / "module.pth")
    with pytest.raises(CheckpointError, match="code, not data"):
        load_checkpoint(tmp_path / "module.pth")


def test_a_torchscript_module_is_refused_as_code(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        archive.writestr("script/data.pkl", b"")
        archive.writestr("script/constants.pkl", b"")
        archive.writestr("script/code/__torch__.py", b"")
    with pytest.raises(CheckpointError, match="TorchScript module, which is code"):
        load_checkpoint(tmp_path / "script.pt")


def test_a_safetensors_header_that_is_nested_too_deep_or_too_long_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    deep = b'{"a":' * 100_000
    path.write_bytes(struct.pack("<Q", len(deep)) + deep)
    with pytest.raises(CheckpointError, match="damaged: its header can't be read"):
        load_checkpoint(path)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 50_000_000) + b"{")
        file.truncate(60_000_000)
    with pytest.raises(CheckpointError, match="its header is 50,000,000 bytes long, more than 10,000,000"):
        load_checkpoint(path)
    # By its name PyTorch knows the format as well.
    named = tmp_path / "model.safetensors"
    for head, text in ((2**60, "truncated: its header should be"), (9, "damaged: its header can't be read")):
        named.write_bytes(struct.pack("<Q", head) + b"[" * 100)
        with pytest.raises(CheckpointError, match=text):
            load_checkpoint(named)


def test_safetensors_that_share_bytes_are_refused(tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    header = json.dumps({"a": entry, "b": {**entry, "data_offsets": [4, 12]}}).encode()
    (tmp_path / "file").write_bytes(struct.pack("<Q", len(header)) + header + bytes(12))
    with pytest.raises(CheckpointError, match="damaged: its tensors a and b share bytes"):
        load_checkpoint(tmp_path / "file")


FOREIGN_FILES = {
    b"": "an empty file",
    b"\n<!DOCTYPE html><html><head><title>Google Drive": "an HTML page",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:00": "a Git LFS pointer",
    b"\x1f\x8b\x08\x00": "a gzip archive",
    b"PK\x03\x04\x00\x00": "truncated: the end of the archive is missing",
    b"Not a checkpoint at all.": "not a file of PyTorch",
    pickle.dumps({"a": 1}, protocol=2): "truncated or damaged",
}


@pytest.mark.parametrize(("content", "text"), FOREIGN_FILES.items(), ids=FOREIGN_FILES.values())
def test_a_file_that_is_no_checkpoint_is_told_by_name(tmp_path: Path, content: bytes, text: str) -> None:
    (tmp_path / "file.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"file\.pth is {text}.*\. [A-Z].*\."):
        load_checkpoint(tmp_path / "file.pth")


def test_another_zip_archive_is_told_with_what_is_in_it(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "download.zip", "w") as archive:
        archive.writestr("MedSAM/medsam_vit_b.pth", b"")
    with pytest.raises(CheckpointError, match=r"zip archive of other files \(MedSAM/medsam_vit_b\.pth\). Unpack it"):
        load_checkpoint(tmp_path / "download.zip")


@pytest.mark.parametrize("kept", [0.01, 0.5, 0.999])
@pytest.mark.parametrize("layout", ["zip", "legacy", "safetensors"])
def test_a_truncated_file_is_told(tmp_path: Path, tiny: MedSAM, layout: str, kept: float) -> None:
    path = tmp_path / "file"
    if layout == "safetensors":
        write_safetensors(path, tiny.state_dict())
    else:
        torch.save(tiny.state_dict(), path, _use_new_zipfile_serialization=layout == "zip")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(CheckpointError, match=r"(truncated|damaged).*Download it again"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}, "damaged.*can't fill the bytes"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}, "damaged.*can't fill the bytes"),
        ({"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}, "truncated.*ends at byte 16"),
        ({"dtype": "F4", "shape": [1], "data_offsets": [0, 4]}, "type F4"),
        ({"dtype": "F32", "shape": [1]}, "header can't be read"),
        ("none", "header can't be read"),
        ({"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}, "damaged.*can't fill the bytes"),
        ({"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}, "damaged.*can't fill the bytes"),
        ({"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}, "damaged.*can't fill the bytes"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [0, 2, 4]}, "damaged.*can't fill the bytes"),
        ({"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}, "header can't be read"),
    ],
)
def test_a_safetensors_header_that_lies_is_refused(tmp_path: Path, entry: object, text: str) -> None:
    header = json.dumps({"weight": entry}).encode()
    (tmp_path / "file").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    with pytest.raises(CheckpointError, match=text):
        load_checkpoint(tmp_path / "file")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"model": {"image_encoder.trunk.patch_embed.proj.weight": torch.zeros(192, 3, 16, 16)}}, "an EfficientTAM"),
        ({"image_encoder.patch_embed.seq.0.c.weight": torch.zeros(32, 3, 3, 3)}, "a MobileSAM checkpoint"),
        ({"state": {}, "param_groups": []}, "an optimizer state without a model"),
        ({"epoch": 3, "loss": 0.1}, "not a state dict: it holds epoch, loss"),
        ({}, "not a state dict: it holds nothing"),
        (torch.zeros(3), "a saved Tensor, not a state dict"),
        ({"fc.weight": torch.zeros(3, 3)}, r"a state dict of another model, with 1 parameters \(fc\.weight"),
        ({"format": "MedSAMSlicer", "version": 2, "model": {}}, "format 2.*Update MedSAMSlicer"),
        ({"format": "MedSAMSlicer", "version": 1, "architecture": "vit_z", "model": {}}, "model 'vit_z'.*Update"),
    ],
)
def test_another_models_file_is_told_by_name(tmp_path: Path, content: object, text: str) -> None:
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match=text):
        load_checkpoint(tmp_path / "file.pth")


def test_every_kind_of_mismatch_is_listed(tmp_path: Path, tiny: MedSAM) -> None:
    state = tiny.state_dict()
    for index in range(4):
        del state[f"mask_decoder.output_hypernetworks_mlps.{index}.layers.0.weight"]
    state["adapter.weight"] = torch.zeros(2)
    state["mask_decoder.iou_token.weight"] = torch.zeros(1, 8)
    torch.save(state, tmp_path / "file.pth")
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(tmp_path / "file.pth")
    text = str(error.value)
    assert "4 missing (mask_decoder.output_hypernetworks_mlps.0.layers.0.weight, " in text
    assert ", …)" in text
    assert "1 unexpected (adapter.weight)" in text
    assert "1 of another shape (mask_decoder.iou_token.weight is (1, 8), not (1, 256))" in text


def changed(name: str, change: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    state = dict(build_model("tiny").state_dict())
    state[name] = change(state[name].clone())
    return state


BIAS = "mask_decoder.iou_token.weight"


def with_first(value: float) -> Callable[[Tensor], Tensor]:
    def change(tensor: Tensor) -> Tensor:
        tensor.view(-1)[0] = value
        return tensor

    return change


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (with_first(float("nan")), f"1 of its parameters are NaN or infinite \\({BIAS}\\). Take an earlier checkpoint"),
        (with_first(float("-inf")), "1 of its parameters are NaN or infinite"),
        (lambda tensor: tensor.double().fill_(1e300), "1 of its parameters are NaN or infinite"),
        (lambda tensor: tensor.to(torch.complex64), f"1 of another type \\({BIAS} is complex64\\)"),
        (lambda tensor: tensor.to(torch.int8), f"1 of another type \\({BIAS} is int8\\)"),
        (lambda tensor: tensor.to_sparse(), f"its parameter {BIAS} is sparse. Save it densely"),
        (lambda tensor: tensor.to("meta"), f"its parameter {BIAS} is without values"),
    ],
    ids=["NaN", "infinite", "too large for single precision", "complex", "integers", "sparse", "meta"],
)
def test_parameters_that_no_model_can_use_are_refused_by_name(tmp_path: Path, change: Callable, text: str) -> None:
    torch.save(changed(BIAS, change), tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match=text):
        load_checkpoint(tmp_path / "file.pth")


@pytest.mark.parametrize("content", [{"model": torch.ones(2)}, {"model": None, "epoch": 1}, {1: torch.ones(2)}])
def test_a_dict_that_holds_no_parameters_is_told(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match="a state dict"):
        load_checkpoint(tmp_path / "file.pth")


def test_nothing_else_is_printed_of_a_pickle_of_another_protocol(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    (tmp_path / "file.pth").write_bytes(pickle.dumps({"a": 1}, protocol=4))
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "file.pth")
    assert not recwarn.list


def test_two_different_positional_encodings_are_refused(tmp_path: Path) -> None:
    name = "positional_embedding"
    state = {
        "vision_encoder.pos_embed": torch.zeros(1, 4, 4, 32),
        f"shared_image_embedding.{name}": torch.zeros(2, 128),
        f"prompt_encoder.shared_embedding.{name}": torch.ones(2, 128),
    }
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="two positional encodings"):
        load_checkpoint(tmp_path / "pytorch_model.bin")


def test_a_path_that_is_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        load_checkpoint(tmp_path / "absent.pth")
    with pytest.raises(CheckpointError, match="a folder"):
        load_checkpoint(tmp_path)
