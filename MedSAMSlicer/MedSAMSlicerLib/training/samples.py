"""Samples: a slice as it may look, an expert's mask in it, and a box as a user may draw it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from MedSAMSlicerLib.inference.recipes import Recipe as Preprocessing
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.training.boxes import drawn_box, tight_box, widened_box
from MedSAMSlicerLib.training.embeddings import EmbeddingFiles, read_embedding
from MedSAMSlicerLib.training.outlines import Outline, Outlines
from MedSAMSlicerLib.training.recipe import Recipe
from MedSAMSlicerLib.training.turns import order_of, turns_per_epoch
from MedSAMSlicerLib.training.variation import Variation
from MedSAMSlicerLib.volume.box_track import bounds


@dataclass(frozen=True)
class Sample:
    """What the model is asked, and what it should answer.

    :param mask: bool (rows, columns), changed as the slice is.
    :param box: in slice pixels.
    """

    outline: Outline
    variation: Variation
    mask: np.ndarray
    box: Box


@dataclass(frozen=True)
class Prepared:
    """A sample as the model takes it.

    :param tensor: float32 (3, S, S), or the embedding, float16 (256, h, w).
    :param box: float32 (4,) in pixels of the preprocessed slice.
    """

    sample: Sample
    tensor: Tensor
    box: Tensor


class Samples:
    """The samples of every epoch, by seed, epoch and position alone, whoever asks and in which order.

    :param recipe: its depth tells whether slices look like one of a few kept variants, or like nothing before.
    """

    def __init__(self, outlines: Outlines, recipe: Recipe) -> None:
        self.outlines = outlines
        self.recipe = recipe
        count = recipe.samples_per_epoch or _worth(outlines.all, recipe.slices_per_structure)
        turns = turns_per_epoch([outline.groups for outline in outlines.all], count)
        self._turns = turns
        self._kept = [Variation.numbered(number, recipe.seed) for number in range(recipe.variants)]

    def of_epoch(self, epoch: int, multiple: int = 1) -> list[int]:
        """List the outlines of an epoch in order, as indices; see `turns.order_of`."""
        return order_of(epoch, self._turns, self.recipe.seed, multiple).tolist()

    def draw(self, epoch: int, position: int, outline: Outline) -> Sample:
        """Draw the sample at a position of an epoch.

        Of the variants whose embeddings are kept, the first epoch takes the plain slices only, and each further one
        another variant as well, so that the time to encode them is spread.
        """
        random = np.random.default_rng([self.recipe.seed, epoch, position])
        if self.recipe.depth == "decoder":
            variation = self._kept[int(random.integers(min(epoch + 1, len(self._kept))))]
        else:
            variation = Variation.drawn(random)
        mask = variation.of_mask(outline.mask)
        if not mask.any():
            # Turned out of the slice.
            variation, mask = Variation(), outline.mask
        return Sample(outline, variation, mask, self._box(outline, variation, mask, random))

    def _box(self, outline: Outline, variation: Variation, mask: np.ndarray, random: np.random.Generator) -> Box:
        """Draw a box of one of the recipe's kinds; around the mask itself where that kind is not to be had."""
        recipe, edges = self.recipe, None
        kind = random.random()
        if kind < recipe.region_boxes:
            edges = variation.of_box(outline.region, outline.size)
        elif (kind := kind - recipe.region_boxes) < recipe.neighbor_boxes and outline.neighbors:
            neighbor = outline.neighbors[random.integers(len(outline.neighbors))]
            edges = variation.of_box(neighbor, outline.size)
            if edges is not None:
                return widened_box(edges, outline.size, random)
        elif 0 <= kind - recipe.neighbor_boxes < recipe.tight_boxes:
            return tight_box(cast(Box, bounds(mask)))
        return drawn_box(edges or cast(Box, bounds(mask)), outline.size, random)

    def image(self, sample: Sample) -> np.ndarray:
        """Return the slice of a sample: uint8 (rows, columns) or (rows, columns, 3)."""
        return sample.variation.of_slice(*self.outlines.slice(sample.outline.case_id, sample.outline.index))


class Feed(Dataset[list[Prepared]]):
    """Prepare the samples of an epoch that one process trains on.

    :param positions: in the epoch's order, one list per step.
    :param embeddings: where those of the depth decoder are kept; None to give preprocessed slices.
    :param device: that the model is trained on. A GPU of NVIDIA's preprocesses slices in far less time than a CPU.
    """

    def __init__(
        self,
        samples: Samples,
        epoch: int,
        order: Sequence[int],
        positions: Sequence[Sequence[int]],
        preprocessing: Preprocessing,
        embeddings: EmbeddingFiles | None,
        device: torch.device | None = None,
    ) -> None:
        self._device = device if device and device.type == "cuda" and embeddings is None else None
        self._samples, self._epoch, self._order, self._positions = samples, epoch, order, positions
        self._preprocessing, self._embeddings = preprocessing, embeddings
        self._paths: dict[tuple[str, int, Variation], Path] = {}

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, step: int) -> list[Prepared]:
        return [self._prepared(sample) for sample in self.drawn(step)]

    def drawn(self, step: int) -> list[Sample]:
        """Draw the samples of a step."""
        outlines = self._samples.outlines.all
        return [
            self._samples.draw(self._epoch, position, outlines[self._order[position]])
            for position in self._positions[step]
        ]

    def missing(self) -> list[np.ndarray]:
        """List the slices, uint8, whose embeddings are not on disk yet, each once."""
        if self._embeddings is None:
            return []
        found: dict[Path, np.ndarray] = {}
        for step in range(len(self)):
            for sample in self.drawn(step):
                path = self._path(sample)
                if path not in found and not path.exists():
                    found[path] = self._samples.image(sample)
        return list(found.values())

    def loader(self, workers: int) -> Iterable[list[Prepared]]:
        """Return what yields the steps in order, prepared by this process or by others beside it."""
        batches = DataLoader(self, batch_size=None, num_workers=workers)
        return batches if self._device is None else map(self._on_device, batches)

    def _on_device(self, batch: list[Prepared]) -> list[Prepared]:
        """Preprocess slices, uint8, on the GPU: all bytes get there in one go."""
        pixels = torch.cat([each.tensor.reshape(-1) for each in batch]).to(self._device)
        parts = pixels.split([each.tensor.numel() for each in batch])
        return [
            replace(each, tensor=self._preprocessing.prepare(part.view(each.tensor.shape)))
            for each, part in zip(batch, parts, strict=True)
        ]

    def _path(self, sample: Sample) -> Path:
        key = (sample.outline.case_id, sample.outline.index, sample.variation)
        if key not in self._paths:
            self._paths[key] = cast(EmbeddingFiles, self._embeddings).path(self._samples.image(sample))
        return self._paths[key]

    def _prepared(self, sample: Sample) -> Prepared:
        size = (sample.mask.shape[0], sample.mask.shape[1])
        box = self._preprocessing.scale_boxes([sample.box], size)[0]
        if self._embeddings is None:
            image = torch.from_numpy(np.ascontiguousarray(self._samples.image(sample)))
            return Prepared(sample, image if self._device else self._preprocessing.prepare(image), box)
        kept = read_embedding(self._path(sample))
        if kept is None:
            raise OSError(
                f"The embedding {self._path(sample)} has vanished or is damaged: delete it, and start the run again."
            )
        return Prepared(sample, torch.from_numpy(kept[0]), box)


def _worth(outlines: Sequence[Outline], most: int) -> int:
    """Count slices, of each structure as many as count at most; 0 for all."""
    structures = Counter((outline.case_id, outline.label) for outline in outlines)
    return sum(min(count, most or count) for count in structures.values())
