"""A specialist for comparison: a small U-Net that learns a site's labels from the same cases and is given no box."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from MedSAMSlicerLib.dataset.case import LoadedCase
from MedSAMSlicerLib.evaluation.report import Specialist
from MedSAMSlicerLib.evaluation.scores import stack_of
from MedSAMSlicerLib.inference.device import choose_device
from MedSAMSlicerLib.volume.geometry import slice_of
from MedSAMSlicerLib.volume.metrics import agreement

# Side of the slices that the network sees, and its channels from the finest to the coarsest map.
_SIDE = 192
_CHANNELS = (16, 32, 64, 128)
_BATCH = 8
_RATE = 1e-3


def train_specialist(
    train: Sequence[LoadedCase],
    test: Sequence[LoadedCase],
    seconds: float,
    *,
    device: str = "auto",
    seed: int = 2023,
    progress: Callable[[float], object] = lambda share: None,
) -> Specialist:
    """Train a U-Net (Ronneberger et al., MICCAI 2015) on all slices of cases for a time, and measure it on others.

    Slices are windowed as for the promptable model, mirrored at random, and brightened by a random power. A label that
    a case does not have counts for nothing there, as nobody knows whether it was looked for.

    :param progress: called with the share of the time that is over; may raise to give up.
    :raises ValueError: if there is no case to train on.
    """
    if not train:
        raise ValueError("There is no case to train the specialist on: assign patients to the training split.")
    labels = sorted({label for loaded in train for label in loaded.labels})
    slices = [_Slices.of(loaded, labels) for loaded in train]
    chosen = choose_device(device)
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    network = UNet(len(labels)).to(chosen).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=_RATE)
    start, share = time.monotonic(), 0.0
    while share < 1:
        progress(share)
        for group in optimizer.param_groups:
            group["lr"] = _RATE * (1 - 0.9 * share)
        images, masks, known = (part.to(chosen) for part in _drawn(slices, random))
        optimizer.zero_grad()
        _loss(network(images), masks, known).backward()
        optimizer.step()
        share = min((time.monotonic() - start) / max(seconds, 1e-9), 1.0)
    spent = time.monotonic() - start
    network.eval()
    dice = {}
    for loaded in test:
        stack = stack_of(loaded)
        found = _segmented(network, _Slices.of(loaded, labels).images, stack.shape, chosen)
        for label in set(loaded.labels) & set(labels):
            mask = np.moveaxis(found[:, labels.index(label)], 0, 2 - stack.axis)
            dice[loaded.case.id, label] = agreement(mask, loaded.labels[label], loaded.volume.spacing).dice
    return Specialist(dice, spent)


class UNet(nn.Module):
    """Map slices (N, 1, S, S) in 0..1 to logits (N, labels, S, S), S a multiple of 8."""

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            _block(before, after) for before, after in zip((1, *_CHANNELS), _CHANNELS, strict=False)
        )
        pairs = list(itertools.pairwise(_CHANNELS))[::-1]
        self.up = nn.ModuleList(_block(fine + coarse, fine) for fine, coarse in pairs)
        self.head = nn.Conv2d(_CHANNELS[0], labels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Go down to the coarsest map and up again, joined with the finer ones on the way."""
        finer = []
        for number, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if number else x)
            finer.append(x)
        for block, fine in zip(self.up, finer[-2::-1], strict=True):
            x = block(torch.cat([F.interpolate(x, scale_factor=2), fine], dim=1))
        return self.head(x)


@dataclass(frozen=True)
class _Slices:
    """All slices of a case as the network sees them.

    :param images: float32 (N, S, S) in 0..1; ``masks`` uint8 (N, labels, S, S).
    :param known: float32 (labels,), 1 for the labels that the case has.
    :param labelled: numbers of the slices that a label is in.
    """

    images: Tensor
    masks: Tensor
    known: Tensor
    labelled: np.ndarray

    @classmethod
    def of(cls, loaded: LoadedCase, labels: Sequence[str]) -> _Slices:
        stack = stack_of(loaded)
        images, masks = [], []
        nothing = torch.zeros(stack.shape)
        for index in range(len(stack)):
            image = torch.from_numpy(np.ascontiguousarray(stack.image(index))).float() / 255
            images.append(_resized(image if image.ndim == 2 else image.mean(dim=2), "bilinear"))
            planes = [
                torch.from_numpy(slice_of(loaded.labels[label], stack.axis, index).astype(np.float32))
                if label in loaded.labels
                else nothing
                for label in labels
            ]
            masks.append(torch.stack([_resized(plane, "nearest") for plane in planes]).to(torch.uint8))
        drawn = torch.stack(masks)
        known = torch.tensor([float(label in loaded.labels) for label in labels])
        return cls(torch.stack(images), drawn, known, np.flatnonzero(drawn.flatten(1).any(dim=1).numpy()))


def _block(before: int, after: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (before, after):
        layers += [nn.Conv2d(channels, after, 3, padding=1), nn.GroupNorm(8, after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _resized(plane: Tensor, mode: str) -> Tensor:
    kind = {"align_corners": False, "antialias": True} if mode == "bilinear" else {}
    return F.interpolate(plane[None, None], (_SIDE, _SIDE), mode=mode, **kind)[0, 0]


def _drawn(slices: Sequence[_Slices], random: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Draw a batch: every case the same chance, and every other slice from those that a label is in."""
    images, masks, known = [], [], []
    for number in range(_BATCH):
        case = slices[int(random.integers(len(slices)))]
        drawn = case.labelled if number % 2 and case.labelled.size else np.arange(len(case.images))
        index = int(random.choice(drawn))
        image, mask = case.images[index] ** float(np.exp(random.uniform(-0.3, 0.3))), case.masks[index]
        for axis in (-1, -2):
            if random.random() < 0.5:
                image, mask = image.flip(axis), mask.flip(axis)
        images.append(image)
        masks.append(mask)
        known.append(case.known)
    return torch.stack(images)[:, None], torch.stack(masks).float(), torch.stack(known)


def _loss(logits: Tensor, masks: Tensor, known: Tensor) -> Tensor:
    """Soft Dice of the whole batch and cross-entropy, of the labels that are known."""
    weights = known[:, :, None, None]
    entropy = (F.binary_cross_entropy_with_logits(logits, masks, reduction="none") * weights).mean()
    found = logits.sigmoid() * weights
    overlap = 2 * (found * masks).sum((0, 2, 3)) + 1
    return entropy + (1 - overlap / (found.sum((0, 2, 3)) + (masks * weights).sum((0, 2, 3)) + 1)).mean()


@torch.no_grad()
def _segmented(network: UNet, images: Tensor, shape: tuple[int, int], device: torch.device) -> np.ndarray:
    """Segment slices (N, S, S): bool (N, labels, rows, columns)."""
    found = []
    for batch in images[:, None].split(_BATCH):
        logits = F.interpolate(network(batch.to(device)), shape, mode="bilinear", align_corners=False)
        found.append((logits > 0).cpu().numpy())
    return np.concatenate(found)
