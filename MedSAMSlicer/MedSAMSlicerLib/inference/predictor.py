"""One slice and boxes in, masks out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from MedSAMSlicerLib.inference.device import choose_device, choose_precision, free_memory, full_precision
from MedSAMSlicerLib.inference.recipes import RECIPES, Recipe
from MedSAMSlicerLib.inference.restoration import Restoration
from MedSAMSlicerLib.model import Network
from MedSAMSlicerLib.model.mask_decoder import Window
from MedSAMSlicerLib.prompts import Box

# Boxes that are decoded in one batch; each takes 16 MiB on a CPU and 22 to 26 MiB on an H100.
_BOXES_ON_CPU = 16
_BOXES_ON_GPU = 64
# Slices that a GPU encodes in one batch at most: with more an H100 is no faster, and the next box waits for them. What
# each is reckoned with, in bytes: on an H100 LiteMedSAM took 194 MiB and ViT-B 142 MiB, but ViT-B in single precision,
# as on older cards, and ViT-H take more.
_AHEAD, _MEMORY_PER_SLICE = 4, 512 << 20
# Embeddings may take one part in so many of the memory that is free once the model is there.
_EMBEDDINGS_PART = 4


@dataclass(frozen=True)
class Embedding:
    """What the image encoder makes of a slice.

    :param tensor: float32 (1, C, h, w) on the device of the predictor that made it.
    :param size: the slice's (rows, columns).
    """

    tensor: Tensor
    size: tuple[int, int]

    @property
    def nbytes(self) -> int:
        """Size of the tensor in bytes."""
        return self.tensor.numel() * self.tensor.element_size()


@dataclass(frozen=True)
class Prediction:
    """One mask per box.

    :param probabilities: float32 (N, rows, columns) in [0, 1]; the mask is where they exceed 0.5.
    :param iou: float32 (N,), the model's own estimate of the masks' IoU with the truth. LiteMedSAM was trained to give
        it; MedSAM ViT-B was not, so that its estimate means nothing.
    """

    probabilities: np.ndarray
    iou: np.ndarray


class Predictor:
    """Segment slices with a model, preprocessed as its weights demand.

    :param model: taken over: it is moved to the device and prepared for inference, after which it can't be trained or
        saved. Give a copy to keep the model.
    :param device: see `device.choose_device`.
    :param precision: of the image encoder, see `device.choose_precision`; all else is computed in single precision.
    """

    def __init__(self, model: Network, *, device: str = "auto", precision: str = "auto") -> None:
        self.device = choose_device(device)
        # LiteMedSAM is fast enough, and its masks in bfloat16 agree with the others by a mean Dice of 0.988 only.
        single = precision == "auto" and model.architecture == "lite"
        self.precision = choose_precision("float32" if single else precision, self.device)
        self.model = model.prepare_for_inference().to(self.device)
        self.model.image_encoder.to(self.precision)
        self.source = dict(model.source)
        self.recipe = RECIPES[model.preprocessing](model.image_size)
        # What embeddings may take on the device, in bytes; None where that is the computer's own memory.
        self.room = free_memory(self.device) // _EMBEDDINGS_PART if self.device.type == "cuda" else None

    @property
    def ahead(self) -> int:
        """Return how many slices are best encoded in advance, in one batch, while the caller does something else.

        A GPU of NVIDIA's computes meanwhile, as many as fit into its memory; elsewhere it is none.
        """
        return min(free_memory(self.device) // _MEMORY_PER_SLICE, _AHEAD) if self.device.type == "cuda" else 0

    @cached_property
    def key(self) -> str:
        """Digest of the weights and their preprocessing, which no other model shares: 32 hexadecimal digits."""
        digest = hashlib.blake2b(f"{self.model.architecture} {self.model.preprocessing}".encode(), digest_size=16)
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def encode(self, image: np.ndarray) -> Embedding:
        """Embed a slice, which takes most of the time; any number of boxes can then be decoded.

        :param image: uint8 (rows, columns) or, in color, (rows, columns, 3).
        :raises ValueError: if the image is anything else.
        """
        return self.encode_all([image])[0]

    @torch.inference_mode()
    @full_precision()
    def encode_all(self, images: Sequence[np.ndarray]) -> list[Embedding]:
        """Embed slices, of any sizes, in one batch; see `encode`. Nothing here waits for a GPU to be done."""
        for image in images:
            _check(image)
        pixels = torch.from_numpy(np.concatenate([image.reshape(-1) for image in images]))
        # A GPU resizes faster than the CPU, and slices' bytes get there sooner than the model's input would.
        pixels = pixels.to(self.device) if self.device.type == "cuda" else pixels
        parts = pixels.split([image.size for image in images])
        inputs = [self.recipe.prepare(part.view(image.shape)) for part, image in zip(parts, images, strict=True)]
        batch = inputs[0][None] if len(inputs) == 1 else torch.stack(inputs)
        tensor = self.model.encode(batch.to(self.device, self.precision)).float()
        # A part of the batch would keep all of it.
        tensors = [tensor] if len(inputs) == 1 else [each.clone() for each in tensor.split(1)]
        return [Embedding(each, (image.shape[0], image.shape[1])) for each, image in zip(tensors, images, strict=True)]

    @torch.inference_mode()
    @full_precision()
    def decode(self, embedding: Embedding, boxes: Sequence[Box], window: Window | None = None) -> Prediction:
        """Predict one mask per box.

        :param embedding: of this model, on whatever device it was made.
        :param boxes: in pixels of the embedded slice.
        :param window: rows and columns of the slice, to which the masks are confined, and only there computed.
        :raises ValueError: if there is no box.
        """
        if not boxes:
            raise ValueError("There is no box to segment: give at least one.")
        scaled = self.recipe.scale_boxes(boxes, embedding.size).to(self.device)
        tensor = embedding.tensor.to(self.device)
        part = None if window is None else tuple((span.start, span.stop) for span in window)
        needed, restoration = way_back(self.recipe, embedding.size, 4 * tensor.shape[-1], part, self.device)
        batches = scaled.split(_BOXES_ON_CPU if self.device.type == "cpu" else _BOXES_ON_GPU)
        decoded = [self.model.decode(tensor, batch, window=needed) for batch in batches]
        probabilities = torch.cat([restoration(logits) for logits, _ in decoded])
        iou = torch.cat([iou[:, 0] for _, iou in decoded])
        if self.device.type == "cpu":
            return Prediction(probabilities.numpy(), iou.numpy())
        # At once, as the host waits for the device each time.
        values = torch.cat([probabilities.flatten(), iou]).cpu().numpy()
        return Prediction(values[: -len(iou)].reshape(probabilities.shape), values[-len(iou) :])

    @property
    def side(self) -> int:
        """Return the side of the model's square input, in pixels."""
        return self.recipe.image_size

    def features(self, embedding: Embedding) -> tuple[np.ndarray, tuple[float, float]]:
        """Return what the encoder makes of each place of a slice.

        :return: float32 (256, h, w), the first place at the slice's first pixel and padding behind the slice; and how
            many places a pixel of the slice is long, along rows and columns.
        """
        # Finer maps may follow.
        values = embedding.tensor[0, :256].cpu().numpy()
        rows, columns = self.recipe.scale(embedding.size)
        stride = self.recipe.image_size / values.shape[1]
        return values, (rows / stride, columns / stride)

    def pack(self, embedding: Embedding) -> np.ndarray:
        """Turn an embedding into an array, float32 (C, h, w), to keep it on disk."""
        return embedding.tensor[0].cpu().numpy()

    def unpack(self, values: np.ndarray, size: tuple[int, int]) -> Embedding:
        """Undo `pack`.

        :param values: (C, h, w) of any precision.
        :param size: the slice's (rows, columns).
        :raises ValueError: if another model has made them.
        """
        shape = self.model.embedding_shape
        if values.shape != shape:
            raise ValueError(f"An embedding of this model has {shape} values, not {values.shape}.")
        return Embedding(torch.from_numpy(values.astype(np.float32))[None].to(self.device), size)

    def box_around(self, mask: np.ndarray) -> Box | None:
        """Find the box, in slice pixels, with which a mask prompts the next slice; None for an empty mask.

        :param mask: bool (rows, columns).
        """
        return self.recipe.box_around(mask)


# A structure has one or two windows; one that is followed has another in every slice.
@lru_cache(maxsize=32)
@torch.inference_mode(False)
def way_back(
    recipe: Recipe,
    size: tuple[int, int],
    side: int,
    window: tuple[tuple[int, int], ...] | None,
    device: torch.device,
) -> tuple[Window | None, Restoration]:
    """Return what a window needs of the embedding, and the way back from there, on the device where it is needed."""
    needed, restoration = None, recipe.restoration(size, side)
    if window is not None:
        rows, columns = (slice(*span) for span in window)
        needed, restoration = restoration.within((rows, columns))
    return needed, restoration.to(device)


def _check(image: np.ndarray) -> None:
    if image.dtype != np.uint8:
        raise ValueError(f"The image holds {image.dtype}: window it to 0–255 and convert it to uint8.")
    if image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)) or not image.size:
        remedy = "drop the alpha channel" if image.shape[2:] == (4,) else "give one slice"
        raise ValueError(f"The image has the shape {image.shape}: {remedy}, as (rows, columns) or (rows, columns, 3).")
