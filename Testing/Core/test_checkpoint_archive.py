"""The archive that a checkpoint is: damaged ones are found, and such as would fill the memory are not unpacked."""

from __future__ import annotations

import tracemalloc
import zipfile
from pathlib import Path

import pytest
import torch

from MedSAMSlicerLib.model import CheckpointError, build_model, load_checkpoint


def test_a_single_wrong_bit_is_found(tmp_path: Path) -> None:
    """PyTorch maps weights into memory and reads no checksum."""
    path = tmp_path / "file.pth"
    torch.save(build_model("tiny").state_dict(), path)
    with zipfile.ZipFile(path) as archive:
        member = max(archive.infolist(), key=lambda each: each.file_size)
    content = bytearray(path.read_bytes())
    content[member.header_offset + 1000] ^= 4
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"damaged: the checksum of {member.filename} in it is wrong. Download"):
        load_checkpoint(path)


def packed(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_an_archive_that_would_unpack_to_much_more_is_refused_before(tmp_path: Path) -> None:
    path = packed(tmp_path / "bomb.pth", {"archive/data.pkl": bytes(300_000_000), "archive/version": b"3\n"})
    assert path.stat().st_size < 1_000_000
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match="a compressed archive that would unpack to 300,000,002 bytes"):
            load_checkpoint(path)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_an_archive_that_is_only_compressed_is_refused_in_a_sentence(tmp_path: Path) -> None:
    torch.save(build_model("tiny").state_dict(), tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain:
        path = packed(tmp_path / "file.pth", {name: plain.read(name) for name in plain.namelist()})
    with pytest.raises(CheckpointError, match="a compressed archive"):
        load_checkpoint(path)


def test_a_pickle_that_is_too_large_for_a_list_of_parameters_is_not_read(tmp_path: Path) -> None:
    path = packed(tmp_path / "file.pth", {"archive/data.pkl": bytes(100_000_001)}, zipfile.ZIP_STORED)
    with pytest.raises(CheckpointError, match="a pickle of 100,000,001 bytes is in it"):
        load_checkpoint(path)
