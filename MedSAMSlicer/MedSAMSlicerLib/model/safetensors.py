"""Reader of the safetensors format: 8 bytes of header length, a JSON header, raw tensors."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from torch import Tensor

# The limit of the reference implementation, huggingface/safetensors.
MAX_HEADER = 100_000_000

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def is_safetensors(head: bytes) -> bool:
    """Tell from the first bytes of a file whether it is in this format."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MAX_HEADER


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Map the tensors of a file into memory, by name.

    :raises ValueError: if the file is truncated or its header is wrong.
    """
    size = path.stat().st_size
    content = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
    start = 8 + int.from_bytes(bytes(content[:8].tolist()), "little")
    if start > size:
        raise ValueError(f"truncated: its header should be {start - 8:,} bytes long, but the file has only {size:,}")
    try:
        header = json.loads(bytes(content[8:start].tolist()))
        header.pop("__metadata__", None)
        return {name: _tensor(content[start:], name, **entry) for name, entry in header.items()}
    except (UnicodeDecodeError, json.JSONDecodeError, TypeError, AttributeError) as error:
        raise ValueError(f"damaged: its header can't be read ({error})") from error


def _tensor(data: Tensor, name: str, dtype: str, shape: list[int], data_offsets: list[int]) -> Tensor:
    """View a part of the data as a tensor."""
    if dtype not in DTYPES:
        raise ValueError(f"not usable: its tensor {name} has the type {dtype}, not one of {', '.join(DTYPES)}")
    begin, end = data_offsets
    itemsize = DTYPES[dtype].itemsize
    if end > len(data):
        raise ValueError(f"truncated: its tensor {name} ends at byte {end:,} of the data, which has only {len(data):,}")
    if begin < 0 or end - begin != math.prod(shape) * itemsize:
        raise ValueError(f"damaged: its tensor {name} of shape {shape} can't fill the bytes {begin} to {end}")
    part = data[begin:end]
    # The format does not promise the alignment that PyTorch needs to look at bytes as numbers.
    aligned = part if part.storage_offset() % itemsize == 0 else part.clone()
    return aligned.view(DTYPES[dtype]).view(shape)
