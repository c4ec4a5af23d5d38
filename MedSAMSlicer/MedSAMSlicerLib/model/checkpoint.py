"""Weights on disk: recognized by content, loaded as data only, checked in full."""

from __future__ import annotations

import json
import os
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from MedSAMSlicerLib.model.adapter import Adapter
from MedSAMSlicerLib.model.architectures import ARCHITECTURES, build_model
from MedSAMSlicerLib.model.hugging_face import from_hugging_face, is_hugging_face
from MedSAMSlicerLib.model.network import Network
from MedSAMSlicerLib.model.safetensors import is_safetensors, read_safetensors

FORMAT = "MedSAMSlicer"
VERSION = 1
# From an adapter's base, its name and the SHA-256 of its file, to this file.
FindBase = Callable[[str, str], Path]
PREPROCESSINGS = sorted({architecture.preprocessing for architecture in ARCHITECTURES.values()})

# How other files begin that are given, or downloaded, for a checkpoint.
_FOREIGN_HEADS = {
    b"<!doctype html": "an HTML page, probably a download's error or consent page",
    b"<html": "an HTML page, probably a download's error or consent page",
    b"version https://git-lfs": "a Git LFS pointer, not the file that it points to",
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"\x89hdf": "an HDF5 file",
}
# Parameters that tell other models.
_FOREIGN_PARAMETERS = {
    "detector.backbone.vision_backbone.trunk.pos_embed": "a SAM 3 checkpoint",
    "network_weights": "an nnU-Net checkpoint",
}
# The pickle of an archive lists the parameters and holds none: SAM-H's has 150 kB, with its optimizer's some more.
_LARGEST_PICKLE = 100_000_000
# What PyTorch's reader raises of damaged files, or such as were made to be.
UNREADABLE = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, RuntimeError, TypeError, ValueError),
    struct.error,
)
_WANTED = "Give weights of MedSAM, LiteMedSAM, MedSAM2, SAM (ViT-B, -L or -H) or SAM 2.1."
_AGAIN = "Download it again, and compare its size with the source's."


class CheckpointError(ValueError):
    """Tells what a file is that can't be loaded, and what to do."""

    def __init__(self, path: Path, what: str, remedy: str) -> None:
        super().__init__(f"{path} is {what}. {remedy}")


def load_checkpoint(path: str | Path, find_base: FindBase | None = None, architecture: str | None = None) -> Network:
    """Load a model: in eval mode, in single precision, on the CPU.

    Takes the official state dicts of SAM, MedSAM, LiteMedSAM, SAM 2.1 and MedSAM2, the checkpoints of their training
    scripts, Hugging Face's SamModel and Sam2VideoModel (pytorch_model.bin, model.safetensors) and the files of
    `save_checkpoint`; the architecture is recognized. The file is read as data: a pickle that would execute anything is
    refused.

    Plain ViT-B weights are taken for MedSAM's and preprocessed so; SAM's own can't be told from them. SamModel's are
    preprocessed as SAM does, which is also how the MedSAM of April 2023 on Hugging Face was trained. Likewise the
    weights of the smallest SAM 2.1 are taken for MedSAM2's, with images of 512 pixels, in the official layout, and for
    SAM 2.1's own, with 1024, in Hugging Face's.

    :param find_base: finds the base model of a file that holds an adapter only, which is merged into it.
    :param architecture: what the file is known to hold, instead of recognizing it; a file of this project says so
        itself.
    :raises FileNotFoundError: if there is no such file.
    :raises CheckpointError: if the file is no such checkpoint, or not a whole one.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no checkpoint {path}: give the path of a file of weights.")
    if path.is_dir():
        raise CheckpointError(path, "a folder", "Give the file of weights in it.")
    content = _read(path)
    if not isinstance(content, Mapping):
        raise CheckpointError(path, f"a saved {type(content).__name__}, not a state dict", _WANTED)

    metadata: dict[str, Any] = {}
    if content.get("format") == FORMAT:
        architecture, preprocessing, metadata = _own_header(path, content)
        adapted = "adapter" in content
        state = _adapted(path, content, find_base) if adapted else _state_dict(path, content)
    else:
        state = _state_dict(path, content)
        if converted := is_hugging_face(state):
            try:
                state = from_hugging_face(state)
            except ValueError as error:
                raise CheckpointError(path, str(error), _AGAIN) from error
        architecture = architecture or _recognize(path, state, converted)
        preprocessing = ARCHITECTURES[architecture].preprocessing
        preprocessing = "sam" if converted and preprocessing == "medsam" else preprocessing

    model = build_model(architecture)
    _check(path, architecture, model.state_dict(), state)
    model.load_state_dict(state)
    _check_finite(path, model.state_dict())
    model.preprocessing = preprocessing
    model.metadata = metadata
    return model.eval()


def save_checkpoint(model: Network, path: str | Path, **metadata: Any) -> None:
    """Save a model with what is needed to use it; a file of the same name is replaced once the new one is complete.

    :param metadata: anything worth knowing, as JSON can hold it: training data, figures, license.
    :raises ValueError: if the model was prepared for inference, or if JSON can't hold the metadata.
    """
    if model.prepared:
        raise ValueError("The model was prepared for inference and can't be saved: save a copy made before.")
    try:
        json.dumps(metadata)
    except TypeError as error:
        raise ValueError(f"The metadata can't be saved ({error}): give numbers, texts, lists and dicts.") from error
    weights = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    save_atomically({**header_of(model), "metadata": metadata, "model": weights}, path)


def save_adapter(adapter: Adapter, model: Network, path: str | Path, **metadata: Any) -> None:
    """Save what an adapter changes in a model, in a file that `load_checkpoint` merges into the base model.

    :param model: tells the architecture and the preprocessing.
    """
    save_atomically({**header_of(model), "metadata": metadata, "adapter": adapter.to_content()}, path)


def header_of(model: Network) -> dict[str, Any]:
    """Return what a file of ours begins with."""
    names = {"architecture": model.architecture, "preprocessing": model.preprocessing}
    return {"format": FORMAT, "version": VERSION, **names}


def save_atomically(content: dict[str, Any], path: str | Path) -> None:
    """Save what torch.load reads as data; a file of the same name is replaced once the new one is complete.

    :raises OSError: if the file can't be written; an older one stays.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        # PyTorch's writer turns the system's error into one of its own.
        reason = (getattr(error, "strerror", None) or str(error)) if isinstance(error, OSError) else "is the disk full?"
        raise OSError(f"{path} could not be written ({reason}): free some disk space, and try again.") from error
    finally:
        partial.unlink(missing_ok=True)


def _adapted(path: Path, content: Mapping[str, Any], find_base: FindBase | None) -> dict[str, Tensor]:
    """Merge an adapter into its base model."""
    try:
        adapter = Adapter.from_content(content["adapter"])
    except ValueError as error:
        raise CheckpointError(path, str(error), _AGAIN) from error
    name, sha256 = adapter.base
    if find_base is None:
        what = f"an adapter: it holds only what was changed in the model {name!r}"
        raise CheckpointError(path, what, "Load it with loading.load_model, which looks for that model.")
    base = load_checkpoint(find_base(name, sha256))
    try:
        if base.architecture != content["architecture"]:
            raise ValueError(f"the base model is {base.architecture}")
        return adapter.merged_into(base.state_dict())
    except ValueError as error:
        what = f"an adapter for {content['architecture']} that does not fit its base model {name!r}: {error}"
        raise CheckpointError(path, what, "Fine-tune this base model again, or get the file again.") from error


def _read(path: Path) -> Any:
    """Read whatever a file holds, as data."""
    with path.open("rb") as file:
        head = file.read(1024)
    if not head:
        raise CheckpointError(path, "an empty file", _AGAIN)
    for start, what in _FOREIGN_HEADS.items():
        if head.lstrip().lower().startswith(start):
            raise CheckpointError(path, what, _WANTED)
    # (A file of that name PyTorch would hand over to a library that reads the format.)
    if is_safetensors(head) or path.suffix.lower() == ".safetensors":
        try:
            return read_safetensors(path)
        except ValueError as error:
            raise CheckpointError(path, str(error), _AGAIN) from error
    if is_zip := head.startswith(b"PK"):
        _check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles that are refused anyway
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        if "global" not in str(error).lower() and "class" not in str(error).lower():
            raise CheckpointError(path, "not a file of PyTorch, or a damaged one", f"{_AGAIN} {_WANTED}") from error
        what = "a pickled Python object, which is code, not data, and was not executed"
        remedy = "Ask its author for a state dict, saved by torch.save(model.state_dict(), …)."
        raise CheckpointError(path, what, remedy) from error
    except UNREADABLE as error:
        raise CheckpointError(path, f"truncated or damaged ({type(error).__name__}: {error})", _AGAIN) from error


def _check_archive(path: Path) -> None:
    """Tell PyTorch's zip archives from others, and whole ones from damaged ones.

    PyTorch stores its files as they are, maps them into memory and reads no checksum.
    """
    if not zipfile.is_zipfile(path):
        raise CheckpointError(path, "truncated: the end of the archive is missing", _AGAIN)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_members(path, members)
            damaged = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(path, f"a damaged archive ({error})", _AGAIN) from error
    if damaged is not None:
        raise CheckpointError(path, f"damaged: the checksum of {damaged} in it is wrong", _AGAIN)


def _check_members(path: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    """Look at the names and sizes in an archive before anything of it is unpacked."""
    names = [member.filename for member in members]
    if any(name.endswith("/constants.pkl") for name in names):
        what = "a TorchScript module, which is code, not data, and was not executed"
        raise CheckpointError(path, what, "Give the state dict that it was made of.")
    if not any(name.endswith("/data.pkl") for name in names):
        what = f"a zip archive of other files ({', '.join(names[:3])})"
        raise CheckpointError(path, what, "Unpack it and give the file of weights.")
    size = sum(member.file_size for member in members)
    if size > path.stat().st_size or any(member.compress_type != zipfile.ZIP_STORED for member in members):
        what = f"a compressed archive that would unpack to {size:,} bytes, and PyTorch writes none"
        raise CheckpointError(path, what, f"Load it with PyTorch where it comes from, and save it again. {_WANTED}")
    largest = max(member.file_size for member in members if member.filename.endswith(".pkl"))
    if largest > _LARGEST_PICKLE:
        raise CheckpointError(path, f"no file of weights: a pickle of {largest:,} bytes is in it", _WANTED)


def _own_header(path: Path, content: Mapping[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """Return architecture, preprocessing and metadata of a file of `save_checkpoint`."""
    version, architecture, preprocessing = (content.get(name) for name in ("version", "architecture", "preprocessing"))
    if version != VERSION or architecture not in ARCHITECTURES or preprocessing not in PREPROCESSINGS:
        what = f"of MedSAMSlicer's format {version} with the model {architecture!r} and preprocessing {preprocessing!r}"
        raise CheckpointError(path, what, "Update MedSAMSlicer: this version does not know them.")
    return architecture, preprocessing, dict(content.get("metadata") or {})


def _state_dict(path: Path, content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Find the parameters in what a training script saved; a prefix of data parallel training is removed."""
    model = content.get("model")
    for parameter, what in _FOREIGN_PARAMETERS.items():
        if parameter in content or (isinstance(model, Mapping) and parameter in model):
            raise CheckpointError(path, what, _WANTED)
    if "model" not in content and ("optimizer" in content or "param_groups" in content):
        raise CheckpointError(path, "an optimizer state without a model", "Give the checkpoint saved along with it.")
    state = content.get("model", content)
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        names = ", ".join(map(str, list(content)[:5])) or "nothing"
        raise CheckpointError(path, f"not a state dict: it holds {names}", _WANTED)
    for name, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
            kind = "without values" if tensor.is_meta else "quantized" if tensor.is_quantized else "sparse"
            raise CheckpointError(path, f"not usable: its parameter {name} is {kind}", f"Save it densely. {_WANTED}")
    return {str(name).removeprefix("module."): tensor for name, tensor in state.items()}


def _recognize(path: Path, state: dict[str, Tensor], converted: bool) -> str:
    """Find the architecture whose telling parameter is there.

    :param converted: from Hugging Face's layout.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if shapes.get("image_encoder.patch_embed.seq.0.c.weight", ())[-2:] == (3, 3):
        raise CheckpointError(path, "a MobileSAM checkpoint", _WANTED)
    if shapes.get("image_encoder.trunk.patch_embed.proj.weight", ())[-2:] == (16, 16):
        raise CheckpointError(path, 'an EfficientTAM checkpoint ("efficient MedSAM2")', _WANTED)
    for name, architecture in ARCHITECTURES.items():
        parameter, shape = architecture.telling
        if shapes.get(f"image_encoder.{parameter}") == shape:
            return "sam2_tiny" if converted and name == "medsam2" else name
    names = ", ".join(list(state)[:3])
    raise CheckpointError(path, f"a state dict of another model, with {len(state)} parameters ({names}, …)", _WANTED)


def _check_finite(path: Path, state: dict[str, Tensor]) -> None:
    """Refuse parameters that are no numbers: the model would find nothing anywhere."""
    broken = [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]
    if broken:
        more = ", …" if len(broken) > 3 else ""
        what = f"not usable: {len(broken)} of its parameters are NaN or infinite ({', '.join(broken[:3])}{more})"
        raise CheckpointError(path, what, "Take an earlier checkpoint of the training that it comes from.")


def _check(path: Path, architecture: str, expected: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    """Compare the parameters with the model's, all of them."""
    shapes = {name: tuple(tensor.shape) for name, tensor in expected.items()}
    problems = {
        "missing": [name for name in shapes if name not in state],
        "unexpected": [name for name in state if name not in shapes],
        "of another type": [
            f"{name} is {str(state[name].dtype).removeprefix('torch.')}"
            for name, tensor in expected.items()
            if name in state and state[name].is_floating_point() != tensor.is_floating_point()
        ],
        "of another shape": [
            f"{name} is {tuple(state[name].shape)}, not {shape}"
            for name, shape in shapes.items()
            if name in state and state[name].shape != shape
        ],
    }
    found = [
        f"{len(names)} {problem} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        for problem, names in problems.items()
        if names
    ]
    if found:
        what = f"not a whole or not an unchanged {architecture}: of its {len(shapes)} parameters, {'; '.join(found)}"
        raise CheckpointError(path, what, f"{_AGAIN} {_WANTED}")
