"""The rank of this process among those that torchrun starts."""

from __future__ import annotations

import os


def rank_and_size() -> tuple[int, int]:
    """Return the number of this process, from 0, and how many there are: 0 and 1 without torchrun.

    :raises ValueError: if the environment variables RANK and WORLD_SIZE can't be meant so.
    """
    texts = [os.environ.get(name, default) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"))]
    # Nothing but digits: int() takes spaces and underscores, too.
    rank, size = (int(text) if text.isascii() and text.isdigit() else -1 for text in texts)
    if not 0 <= rank < size:
        raise ValueError(
            f"The environment has RANK={texts[0]} and WORLD_SIZE={texts[1]}: torchrun sets a rank from 0 to the size "
            "less 1; without it, unset both."
        )
    return rank, size
