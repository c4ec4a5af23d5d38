"""Reader of the safetensors format: 8 bytes of header length, a JSON header, raw tensors."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

# The limit of the reference implementation, huggingface/safetensors.
MAX_HEADER = 100_000_000
# What is read of it: SAM-H's has 70 kB, and as objects a header takes many times its bytes.
_LONGEST_HEADER = 10_000_000

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
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > size - 8:
            raise ValueError(f"truncated: its header should be {length:,} bytes long, but the file has only {size:,}")
        if length > _LONGEST_HEADER:
            raise ValueError(f"not usable: its header is {length:,} bytes long, more than {_LONGEST_HEADER:,}")
        text = file.read(length)
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        places = {name: _Place(**entry) for name, entry in header.items()}
        for name, place in places.items():
            place.check(name)
    except (UnicodeDecodeError, json.JSONDecodeError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"damaged: its header can't be read ({error})") from error
    _check_apart(places)
    content = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
    return {name: _tensor(content[8 + length :], name, place) for name, place in places.items()}


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies in the data, as the header tells it."""

    dtype: str
    shape: list[int]
    data_offsets: list[int]

    def check(self, name: str) -> None:
        """Make sure that the numbers are such as can be.

        :raises ValueError: if they are not.
        """
        if self.dtype not in DTYPES:
            raise ValueError(f"not usable: its tensor {name} has the type {self.dtype}, not one of {', '.join(DTYPES)}")
        numbers = [*self.shape, *self.data_offsets]
        if len(self.data_offsets) != 2 or any(type(number) is not int or number < 0 for number in numbers):
            raise ValueError(
                f"damaged: its tensor {name} of shape {self.shape} can't fill the bytes {self.data_offsets}"
            )
        begin, end = self.data_offsets
        if end - begin != math.prod(self.shape) * DTYPES[self.dtype].itemsize:
            raise ValueError(f"damaged: its tensor {name} of shape {self.shape} can't fill the bytes {begin} to {end}")


def _check_apart(places: Mapping[str, _Place]) -> None:
    """Refuse tensors that share bytes, as the format does."""
    ends = sorted((place.data_offsets[0], place.data_offsets[1], name) for name, place in places.items())
    for (_, end, name), (begin, _, following) in itertools.pairwise(ends):
        if begin < end:
            raise ValueError(f"damaged: its tensors {name} and {following} share bytes")


def _tensor(data: Tensor, name: str, place: _Place) -> Tensor:
    """View a part of the data as a tensor."""
    begin, end = place.data_offsets
    dtype = DTYPES[place.dtype]
    if end > len(data):
        raise ValueError(f"truncated: its tensor {name} ends at byte {end:,} of the data, which has only {len(data):,}")
    part = data[begin:end]
    # The format does not promise the alignment that PyTorch needs to look at bytes as numbers.
    aligned = part if part.storage_offset() % dtype.itemsize == 0 else part.clone()
    return aligned.view(dtype).view(place.shape)
