"""Slices in, masks out, with a memory: what was found in one slice is found again in the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional as F

from MedSAMSlicerLib.inference.device import full_precision
from MedSAMSlicerLib.inference.predictor import Embedding, Predictor
from MedSAMSlicerLib.model import MedSAM2
from MedSAMSlicerLib.model.medsam2 import Finding, Memory
from MedSAMSlicerLib.prompts import Box


@dataclass(frozen=True)
class Sighting:
    """What was found in a slice, and what is remembered of it.

    :param probability: float32 (rows, columns) in [0, 1]; the mask is where it exceeds 0.5.
    :param iou: the model's own estimate of the mask's IoU with the truth.
    :param presence: its estimate of the probability that the structure is in the slice at all.
    """

    probability: np.ndarray
    iou: float
    presence: float
    memory: Memory


class TrackingPredictor(Predictor):
    """Segment slices with MedSAM2 or SAM 2.1, one by one as any predictor, or following a structure through them.

    Reference: bowang-lab/MedSAM2, sam2_video_predictor_npz.py, which also fills holes of up to 8 pixels in the logits
    where its CUDA extension is built; this does not.

    :param model: see `Predictor`.
    """

    def __init__(self, model: MedSAM2, *, device: str = "auto", precision: str = "auto") -> None:
        super().__init__(model, device=device, precision=precision)
        self.network = model

    @torch.inference_mode()
    @full_precision()
    def see_box(self, embedding: Embedding, box: Box) -> Sighting:
        """Find what a box points out.

        :param box: in pixels of the embedded slice.
        """
        scaled = self.recipe.scale_boxes([box], embedding.size).to(self.device)
        embedding = self._here(embedding)
        found = self.network.prompted(embedding.tensor, scaled)
        # What a user has prompted is remembered as a mask, what follows from it as probabilities.
        return self._sighting(embedding, found, (self.network.enlarged(found.logits) > 0).float())

    @torch.inference_mode()
    @full_precision()
    def see_mask(self, embedding: Embedding, mask: np.ndarray) -> Sighting:
        """Take a mask, bool (rows, columns), for what is there."""
        embedding = self._here(embedding)
        side = self.network.image_size
        pixels = torch.from_numpy(mask.astype(np.float32))[None, None]
        square = F.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
        # A structure that is thinner than a pixel of the model's input is kept where most of it is.
        square = ((square >= square.max().clamp(max=0.5)) & (square > 0)).float().to(self.device)
        return self._sighting(embedding, self.network.given(embedding.tensor, square), square)

    @torch.inference_mode()
    @full_precision()
    def follow(
        self, embedding: Embedding, keys: Sequence[tuple[int, Memory]], past: Sequence[Memory], length: int
    ) -> Sighting:
        """Find in a slice what is remembered of others.

        :param keys: memories of key slices, with the number of slices from there to here, negative if they lie ahead.
        :param past: memories of the slices right before this one, the nearest first.
        :param length: number of slices of the stack.
        """
        embedding = self._here(embedding)
        keys = [(distance, self._remembered_here(memory)) for distance, memory in keys]
        past = [self._remembered_here(memory) for memory in past]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._half):
            found = self.network.followed(embedding.tensor, keys, past, length)
        return self._sighting(embedding, found, None)

    def _sighting(self, embedding: Embedding, found: Finding, mask: torch.Tensor | None) -> Sighting:
        found = Finding(*(part.float() for part in (found.logits, found.iou, found.score, found.pointer)))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._half):
            memory = self.network.remembered(embedding.tensor, found, mask)
        restoration = self.recipe.restoration(embedding.size, found.logits.shape[-1]).to(self.device)
        probability = restoration(found.logits)[0]
        # At once, as the host waits for the device each time.
        values = torch.cat([probability.flatten(), found.iou.flatten(), found.score.sigmoid().flatten()]).cpu().numpy()
        return Sighting(values[:-2].reshape(probability.shape), float(values[-2]), float(values[-1]), memory)

    def _here(self, embedding: Embedding) -> Embedding:
        """Return an embedding on this predictor's device, wherever it was made."""
        return replace(embedding, tensor=embedding.tensor.to(self.device))

    def _remembered_here(self, memory: Memory) -> Memory:
        return Memory(memory.map.to(self.device), memory.pointer.to(self.device))

    @property
    def _half(self) -> bool:
        """Whether the memory is computed in half precision, as the official scripts do on a GPU."""
        return self.device.type == "cuda" and self.precision == torch.bfloat16
