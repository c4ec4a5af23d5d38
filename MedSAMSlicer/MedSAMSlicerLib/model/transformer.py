"""SAM's two-way transformer: prompt tokens and image tokens attend to each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from MedSAMSlicerLib.model.layers import Linear, products


class TwoWayTransformer(nn.Module):
    """Refine prompt tokens (queries) and image tokens (keys) together.

    Reference: facebookresearch/segment-anything, modeling/transformer.py. Image tokens go in parts, with some of the
    prompts each: on a GPU, and for training, there is one part. On a CPU under inference mode every prompt has its own,
    as the image tokens of several, 4 MiB each at every step, outgrow its cache.

    :param mlp: makes the two linear layers of a block, which SAM and SAM 2 name differently.
    """

    def __init__(self, depth: int, embedding_dim: int, num_heads: int, mlp: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TwoWayAttentionBlock(embedding_dim, num_heads, mlp(), skip_first_layer_pe=index == 0)
            for index in range(depth)
        )
        self.final_attn_token_to_image = TokenToImageAttention(embedding_dim, num_heads, downsample_rate=2)
        self.norm_final_attn = nn.LayerNorm(embedding_dim)

    def forward(self, image_tokens: Tensor, image_pe: Tensor, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the refined prompt tokens (N, T, C), and the image tokens of all prompts in parts (n, hw, C).

        :param image_tokens: (N, hw, C), or (1, hw, C) that all prompts share.
        :param image_pe: their positional encoding, (1, hw, C).
        :param tokens: (N, T, C).
        """
        alone = tokens.device.type == "cpu" and torch.is_inference_mode_enabled()
        parts = len(tokens) if alone else 1
        queries, keys, asked = tokens, _parts(image_tokens, parts), _parts(image_tokens + image_pe, parts)
        for layer in self.layers:
            queries, keys = layer(queries, keys, tokens, asked)
            asked = [part + image_pe for part in keys]
        attention = self.final_attn_token_to_image(queries + tokens, asked, keys)
        return self.norm_final_attn(queries + attention), keys


def _parts(image_tokens: Tensor, number: int) -> list[Tensor]:
    """Part the image tokens of N prompts, or share those that all have, (1, hw, C)."""
    return [image_tokens] * number if len(image_tokens) == 1 else list(image_tokens.chunk(number))


class TwoWayAttentionBlock(nn.Module):
    """Attend among queries, from queries to keys, transform the queries, attend from keys to queries.

    :param skip_first_layer_pe: the first block's queries are their own positional encoding.
    """

    def __init__(self, embedding_dim: int, num_heads: int, mlp: nn.Module, skip_first_layer_pe: bool) -> None:
        super().__init__()
        self.self_attn = Attention(embedding_dim, num_heads)
        self.norm1 = nn.LayerNorm(embedding_dim)
        self.cross_attn_token_to_image = TokenToImageAttention(embedding_dim, num_heads, downsample_rate=2)
        self.norm2 = nn.LayerNorm(embedding_dim)
        self.mlp = mlp
        self.norm3 = nn.LayerNorm(embedding_dim)
        self.norm4 = nn.LayerNorm(embedding_dim)
        self.cross_attn_image_to_token = ImageToTokenAttention(embedding_dim, num_heads, downsample_rate=2)
        self.skip_first_layer_pe = skip_first_layer_pe

    def forward(
        self, queries: Tensor, keys: list[Tensor], query_pe: Tensor, asked: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Return new queries (N, T, C) and keys, parts (n, hw, C).

        :param keys: parts (n or 1, hw, C).
        :param asked: the same with their positional encoding.
        """
        if self.skip_first_layer_pe:
            queries = self.norm1(self.self_attn(queries, queries, queries))
        else:
            q = queries + query_pe
            queries = self.norm1(queries + self.self_attn(q, q, queries))
        queries = self.norm2(queries + self.cross_attn_token_to_image(queries + query_pe, asked, keys))
        queries = self.norm3(queries + self.mlp(queries))
        attention = self.cross_attn_image_to_token(asked, queries + query_pe, queries)
        return queries, [self.norm4(part + seen) for part, seen in zip(keys, attention, strict=True)]


class Attention(nn.Module):
    """Attend with several heads.

    :param downsample_rate: how much narrower than the embedding the attention is.
    :param kv_dim: channels of keys and values, by default those of the queries.
    """

    def __init__(self, embedding_dim: int, num_heads: int, downsample_rate: int = 1, kv_dim: int | None = None) -> None:
        super().__init__()
        inner_dim = embedding_dim // downsample_rate
        self.num_heads = num_heads
        self._scale = (inner_dim // num_heads) ** -0.5
        self.q_proj = Linear(embedding_dim, inner_dim)
        self.k_proj = Linear(kv_dim or embedding_dim, inner_dim)
        self.v_proj = Linear(kv_dim or embedding_dim, inner_dim)
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

    def forward(self, q: Tensor, k: list[Tensor], v: list[Tensor]) -> Tensor:  # type: ignore[override]
        """Attend from q (N, T, C) to k and v, parts (n or 1, S, C): (N, T, C)."""
        # The keys' bias adds the same to all logits of a query, which changes nothing.
        queries = self._outward(self.q_proj(q) * self._scale, self.k_proj.weight).chunk(len(k))
        mixed = torch.cat(
            [
                products(products(asking, keys.transpose(1, 2)).softmax(dim=2), values)
                for asking, keys, values in zip(queries, k, v, strict=True)
            ]
        ).unflatten(1, (q.shape[1], -1))
        values = torch.einsum("nthc,chd->nthd", mixed, self._heads(self.v_proj.weight.t())).flatten(2)
        # Weights that sum up to 1 leave the values' bias as it is.
        return self.out_proj(values + self.v_proj.bias)


class ImageToTokenAttention(Attention):
    """Attend from many tokens to a few."""

    def forward(self, q: list[Tensor], k: Tensor, v: Tensor) -> Iterator[Tensor]:  # type: ignore[override]
        """Attend from q, parts (n or 1, S, C), to k and v (N, T, C): parts (n, S, C)."""
        k = self.k_proj(k) * self._scale
        keys = self._outward(k, self.q_proj.weight)
        bias = self._outward(k, self.q_proj.bias[:, None])
        values = self._outward(self.v_proj(v), self.out_proj.weight.t())
        parts = (each.chunk(len(q)) for each in (keys, bias, values))
        for asking, seen, offset, content in zip(q, *parts, strict=True):
            logits = products(seen, asking.transpose(1, 2)).add_(offset)
            weights = logits.unflatten(1, (k.shape[1], -1)).softmax(dim=1).flatten(1, 2)
            yield products(weights.transpose(1, 2), content, self.out_proj.bias)
