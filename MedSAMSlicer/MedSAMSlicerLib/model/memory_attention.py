"""SAM 2's memory attention: what is remembered of other slices flows into the features of this one."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from MedSAMSlicerLib.model.layers import Linear
from MedSAMSlicerLib.model.rotary import axial_rotations, rotate
from MedSAMSlicerLib.model.sine_positions import sine_positions
from MedSAMSlicerLib.model.transformer import Attention


class MemoryAttention(nn.Module):
    """Condition the image tokens of a slice on memories (facebookresearch/sam2, modeling/memory_attention.py).

    :param side: of the image embedding.
    :param memory_dim: channels of memories.
    """

    positions: Tensor
    rotations: Tensor

    def __init__(self, side: int, dim: int = 256, memory_dim: int = 64, depth: int = 4) -> None:
        super().__init__()
        self.layers = nn.ModuleList(MemoryAttentionLayer(dim, memory_dim) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.register_buffer("positions", 0.1 * sine_positions(side, dim), persistent=False)
        self.register_buffer("rotations", axial_rotations(side, dim), persistent=False)

    def forward(self, tokens: Tensor, memory: Tensor, places: Tensor, unplaced: int) -> Tensor:
        """Return conditioned image tokens, as those given.

        :param tokens: (1, T, dim), T = side * side.
        :param memory: (1, M * T + unplaced, memory_dim): M maps of T tokens, then those that lie nowhere in the slice.
        :param places: the encoding of their positions in space and time, of the same shape.
        """
        tokens = tokens + self.positions
        asked = memory + places
        for layer in self.layers:
            tokens = layer(tokens, memory, asked, unplaced, self.rotations)
        return self.norm(tokens)


class MemoryAttentionLayer(nn.Module):
    """Attend among the tokens of a slice, from these to the memory, and transform."""

    def __init__(self, dim: int, memory_dim: int) -> None:
        super().__init__()
        self.self_attn = RotaryAttention(dim)
        self.cross_attn_image = RotaryAttention(dim, kv_dim=memory_dim)
        self.linear1 = Linear(dim, 8 * dim)
        self.linear2 = Linear(8 * dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor, memory: Tensor, asked: Tensor, unplaced: int, rotations: Tensor) -> Tensor:
        """Return new tokens (1, T, dim).

        :param asked: the memory with its positions.
        """
        normed = self.norm1(tokens)
        tokens = tokens + self.self_attn(normed, normed, normed, rotations)
        tokens = tokens + self.cross_attn_image(self.norm2(tokens), asked, memory, rotations, unplaced)
        return tokens + self.linear2(F.relu(self.linear1(self.norm3(tokens))))


class RotaryAttention(Attention):
    """Attend with one head and rotary positions.

    :param kv_dim: channels of keys and values, by default those of the queries.
    """

    def __init__(self, dim: int, kv_dim: int | None = None) -> None:
        super().__init__(dim, num_heads=1, kv_dim=kv_dim)

    def forward(  # type: ignore[override]
        self, q: Tensor, k: Tensor, v: Tensor, rotations: Tensor, unplaced: int = 0
    ) -> Tensor:
        """Attend from q (1, T, dim) to k and v (1, S, kv_dim), of which the last ``unplaced`` are not turned."""
        q, k, v = rotate(self.q_proj(q), rotations), self.k_proj(k), self.v_proj(v)
        placed = k.shape[1] - unplaced
        k = torch.cat([rotate(k[:, :placed], rotations), k[:, placed:]], dim=1)
        return self.out_proj(F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0])
