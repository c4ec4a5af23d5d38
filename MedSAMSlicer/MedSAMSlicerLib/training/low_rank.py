"""Low-rank matrices beside the weights of the image encoder's attention: what the depth adapter trains."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from MedSAMSlicerLib.model import Network
from MedSAMSlicerLib.model.adapter import Adapter


class LowRank(nn.Module):
    """Add the product of two narrow matrices to a weight (Hu et al., "LoRA", ICLR 2022); at first it is 0.

    :param weight: (R, C), which stays as it is.
    :param random: for the start of one of the two.
    """

    def __init__(self, weight: Tensor, rank: int, random: torch.Generator) -> None:
        super().__init__()
        rows, columns = weight.shape
        self.up = nn.Parameter(torch.zeros(rows, rank))
        self.down = nn.Parameter(torch.randn(rank, columns, generator=random) * columns**-0.5)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the changed weight."""
        return weight + self.up @ self.down


def add_low_rank(model: Network, rank: int, seed: int) -> None:
    """Put low-rank matrices beside the joint projection to queries, keys and values of every attention, in place."""
    random = torch.Generator().manual_seed(seed)
    for name, module in list(model.image_encoder.named_modules()):
        if name.endswith("attn.qkv") and isinstance(module, nn.Linear):
            parametrize.register_parametrization(module, "weight", LowRank(module.weight, rank, random))


def adapter_of(model: Network, base: Network, name: str, sha256: str) -> Adapter:
    """Take what was trained out of a model with low-rank matrices, in half precision.

    :param base: the model as it was before, for the changes to the mask decoder.
    :param name: of the base, as a user gives it; ``sha256`` of its file.
    """
    low_rank = {
        f"{path.removesuffix('.parametrizations.weight.0')}.weight": (_half(module.up), _half(module.down))
        for path, module in model.named_modules()
        if isinstance(module, LowRank)
    }
    before = base.state_dict()
    added = {
        key: _half(parameter.detach().cpu() - before[key])
        for key, parameter in model.named_parameters()
        if key in before and parameter.requires_grad
    }
    return Adapter((name, sha256), low_rank, added)


def _half(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().half()
