"""SAM 2's image encoder: the maps of a trunk's stages brought to one number of channels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from MedSAMSlicerLib.model.hiera import Hiera


class PyramidEncoder(nn.Module):
    """Embed images at three resolutions (facebookresearch/sam2, modeling/backbones/image_encoder.py)."""

    def __init__(self, trunk: Hiera, channels: int = 256) -> None:
        super().__init__()
        self.trunk = trunk
        self.neck = FpnNeck(trunk.dims, channels)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Embed images (B, 3, S, S) as (B, channels, S / n, S / n), n = 4, 8 and 16."""
        return self.neck(self.trunk(images))


class FpnNeck(nn.Module):
    """Project every map by a 1 x 1 convolution, and add the coarsest one to the next (Lin et al., 2017).

    ``convs`` begins with the coarsest map's.

    :param dims: channels of the maps, the finest first.
    """

    def __init__(self, dims: Sequence[int], channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Sequential() for _ in dims)
        for conv, dim in zip(self.convs, reversed(dims), strict=True):
            conv.add_module("conv", nn.Conv2d(dim, channels, kernel_size=1))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Map (B, dims, …), the finest first, to maps with one number of channels, without the coarsest one."""
        coarsest, *finer = (conv(x) for conv, x in zip(self.convs, reversed(maps), strict=True))
        finer[0] = finer[0] + F.interpolate(coarsest.float(), scale_factor=2, mode="nearest").to(coarsest.dtype)
        return finer[::-1]
