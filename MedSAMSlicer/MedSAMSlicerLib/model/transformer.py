"""SAM's two-way transformer: prompt tokens and image tokens attend to each other."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from MedSAMSlicerLib.model.layers import Linear, MLPBlock, products


class TwoWayTransformer(nn.Module):
    """Refine prompt tokens (queries) and image tokens (keys) together.

    Reference: facebookresearch/segment-anything, modeling/transformer.py. Image tokens may come with a batch of 1 that
    all prompts share: they take the prompts' batch size only where the results differ.
    """

    def __init__(self, depth: int, embedding_dim: int, num_heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TwoWayAttentionBlock(embedding_dim, num_heads, mlp_dim, skip_first_layer_pe=index == 0)
            for index in range(depth)
        )
        self.final_attn_token_to_image = TokenToImageAttention(embedding_dim, num_heads, downsample_rate=2)
        self.norm_final_attn = nn.LayerNorm(embedding_dim)

    def forward(self, image_tokens: Tensor, image_pe: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the refined prompt tokens (N, T, C) and image tokens (N, hw, C).

        :param image_tokens: (1, hw, C) or (N, hw, C).
        :param image_pe: their positional encoding, (1, hw, C).
        :param tokens: (N, T, C).
        """
        queries, keys = tokens, image_tokens
        for layer in self.layers:
            queries, keys = layer(queries, keys, tokens, image_pe)
        attention = self.final_attn_token_to_image(queries + tokens, keys + image_pe, keys)
        return self.norm_final_attn(queries + attention), keys


class TwoWayAttentionBlock(nn.Module):
    """Attend among queries, from queries to keys, transform the queries, attend from keys to queries.

    :param skip_first_layer_pe: the first block's queries are their own positional encoding.
    """

    def __init__(self, embedding_dim: int, num_heads: int, mlp_dim: int, skip_first_layer_pe: bool) -> None:
        super().__init__()
        self.self_attn = Attention(embedding_dim, num_heads)
        self.norm1 = nn.LayerNorm(embedding_dim)
        self.cross_attn_token_to_image = TokenToImageAttention(embedding_dim, num_heads, downsample_rate=2)
        self.norm2 = nn.LayerNorm(embedding_dim)
        self.mlp = MLPBlock(embedding_dim, mlp_dim, nn.ReLU())
        self.norm3 = nn.LayerNorm(embedding_dim)
        self.norm4 = nn.LayerNorm(embedding_dim)
        self.cross_attn_image_to_token = ImageToTokenAttention(embedding_dim, num_heads, downsample_rate=2)
        self.skip_first_layer_pe = skip_first_layer_pe

    def forward(self, queries: Tensor, keys: Tensor, query_pe: Tensor, key_pe: Tensor) -> tuple[Tensor, Tensor]:
        """Return new queries (N, T, C) and keys (N, hw, C)."""
        if self.skip_first_layer_pe:
            queries = self.norm1(self.self_attn(queries, queries, queries))
        else:
            q = queries + query_pe
            queries = self.norm1(queries + self.self_attn(q, q, queries))
        k = keys + key_pe
        queries = self.norm2(queries + self.cross_attn_token_to_image(queries + query_pe, k, keys))
        queries = self.norm3(queries + self.mlp(queries))
        keys = self.norm4(self.cross_attn_image_to_token(k, queries + query_pe, queries).add_(keys))
        return queries, keys


class Attention(nn.Module):
    """Attend with several heads.

    :param downsample_rate: how much narrower than the embedding the attention is.
    """

    def __init__(self, embedding_dim: int, num_heads: int, downsample_rate: int = 1) -> None:
        super().__init__()
        inner_dim = embedding_dim // downsample_rate
        self.num_heads = num_heads
        self._scale = (inner_dim // num_heads) ** -0.5
        self.q_proj = Linear(embedding_dim, inner_dim)
        self.k_proj = Linear(embedding_dim, inner_dim)
        self.v_proj = Linear(embedding_dim, inner_dim)
        self.out_proj = Linear(inner_dim, embedding_dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend from q (N, T, C) to k and v (N, S, C): (N, T, C)."""
        q, k, v = (self._heads(x).transpose(1, 2) for x in (self.q_proj(q), self.k_proj(k), self.v_proj(v)))
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        """Part the last axis into heads: (..., heads, D)."""
        return x.unflatten(-1, (self.num_heads, -1))

    def _outward(self, tokens: Tensor, weight: Tensor) -> Tensor:
        """Multiply what the heads have of T tokens, (N, T, heads * D), with their parts of a weight (heads * D, C).

        As t . (W x) = (W' t) . x, the thousands of image tokens on the other side need not be projected: a product with
        T * heads = 56 vectors takes the place of one with heads * D = 128 and of the attention itself.

        :return: (N, T * heads, C).
        """
        parts = weight.unflatten(0, (self.num_heads, -1))
        return torch.einsum("nthd,hdc->nthc", self._heads(tokens), parts).flatten(1, 2)


class TokenToImageAttention(Attention):
    """Attend from a few tokens to many."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend from q (N, T, C) to k and v (N or 1, S, C): (N, T, C)."""
        # The keys' bias adds the same to all logits of a query, which changes nothing.
        logits = products(self._outward(self.q_proj(q) * self._scale, self.k_proj.weight), k.transpose(1, 2))
        mixed = products(logits.softmax(dim=2), v).unflatten(1, (q.shape[1], -1))
        values = torch.einsum("nthc,chd->nthd", mixed, self._heads(self.v_proj.weight.t())).flatten(2)
        # Weights that sum up to 1 leave the values' bias as it is.
        return self.out_proj(values + self.v_proj.bias)


class ImageToTokenAttention(Attention):
    """Attend from many tokens to a few."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend from q (N or 1, S, C) to k and v (N, T, C): (N, S, C)."""
        keys = self.k_proj(k) * self._scale
        logits = products(self._outward(keys, self.q_proj.weight), q.transpose(1, 2))
        logits = logits.add_(self._outward(keys, self.q_proj.bias[:, None]))
        weights = logits.unflatten(1, (k.shape[1], -1)).softmax(dim=1).flatten(1, 2)
        values = self._outward(self.v_proj(v), self.out_proj.weight.t())
        return products(weights.transpose(1, 2), values, self.out_proj.bias)
