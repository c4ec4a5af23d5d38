"""Embeddings on disk: a slice that was encoded once is not encoded again, in this run or a later one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from MedSAMSlicerLib.inference.predictor import Embedding, Predictor
from MedSAMSlicerLib.store.folder import replacing
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache, Slice


@dataclass(frozen=True)
class EmbeddingFiles:
    """Where embeddings are kept, which processes that only read them are told.

    :param encoder_key: digest of the image encoder and its preprocessing.
    """

    folder: Path
    encoder_key: str

    def path(self, image: np.ndarray) -> Path:
        """Name the file of a slice's embedding."""
        digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=20)
        digest.update(f"{image.shape} {image.dtype} {self.encoder_key}".encode())
        return self.folder / f"{digest.hexdigest()}.npy"


class StoredEmbeddings(EmbeddingCache):
    """Embeddings by content: the bytes of the windowed slice and the image encoder that saw it.

    The key leaves the mask decoder out, so that models of the depth decoder share their base model's embeddings. They
    are kept in half precision, 2 MiB each: the masks stay the same but for a pixel now and then.

    :param folder: of the files; any number of processes may share it.
    :param encoder: a predictor with the image encoder of all predictors that will be given.
    """

    def __init__(self, folder: Path, encoder: Predictor) -> None:
        super().__init__(budget=0, found_budget=0)
        self._encoder = encoder
        model = encoder.model
        digest = hashlib.blake2b(f"{model.architecture} {model.preprocessing}".encode(), digest_size=16)
        for name, tensor in sorted(model.image_encoder.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        self.files = EmbeddingFiles(folder, digest.hexdigest())

    def keep(self, image: np.ndarray) -> None:
        """Encode a slice, unless its embedding is on disk already."""
        self.embedding(self._encoder, image)

    def embedding(self, encoder: Any, image: np.ndarray | Slice) -> Embedding:
        """Read the embedding of a slice, or encode it and write it.

        :raises StorageError: if it can't be written.
        """
        image = image.pixels() if isinstance(image, Slice) else image
        path = self.files.path(image)
        kept = read_embedding(path)
        if kept is None or kept.shape != (1, *self._encoder.model.embedding_shape):
            kept = encoder.encode(image).tensor.half().cpu().numpy()
            with replacing(path) as draft, draft.open("wb") as file:
                np.save(file, kept)
        return Embedding(torch.from_numpy(kept).to(encoder.device).float(), (image.shape[0], image.shape[1]))


def read_embedding(path: Path) -> np.ndarray | None:
    """Read an embedding, float16 (1, 256, h, w); None if there is none, or a damaged one."""
    try:
        return np.load(path)
    except (FileNotFoundError, ValueError, EOFError):
        return None
