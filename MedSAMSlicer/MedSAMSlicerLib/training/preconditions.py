"""What is refused before a run begins, as it would fail or mislead after hours."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

from MedSAMSlicerLib.dataset.case import Case
from MedSAMSlicerLib.dataset.checks import check
from MedSAMSlicerLib.dataset.site import SiteDataset
from MedSAMSlicerLib.loading import find_weights, load_model
from MedSAMSlicerLib.model import MedSAM2, Network
from MedSAMSlicerLib.store.weights import WeightsStore


def check_dataset(dataset: SiteDataset, train: list[Case], held: list[Case]) -> None:
    """Refuse a dataset that can't be trained on, or was found wrong."""
    for split, cases in (("train", train), ("validation", held)):
        if not cases:
            raise ValueError(f"{dataset.folder} has no case for {split}: run medsam-slicer dataset split first.")
    errors = [finding for finding in check(dataset) if finding.level == "error"]
    if errors:
        texts = "; ".join(f"{finding.case_id or 'dataset'}: {finding.text}" for finding in errors[:5])
        more = f"; and {len(errors) - 5} more" if len(errors) > 5 else ""
        raise ValueError(f"{dataset.folder} can't be trained on: {texts}{more}")


def load_base(name: str, depth: str, store: WeightsStore) -> tuple[Path, Network]:
    """Load the model to start from, and tell its file.

    :raises ValueError: if there is none of this name, an adapter would get an adapter, or more than the mask decoder of
        MedSAM2 or SAM 2.1 is to be trained.
    """
    path, _ = find_weights(name, store)
    base = load_model(name, store)
    if isinstance(base, MedSAM2) and depth != "decoder":
        raise ValueError(
            f"{path} holds {base.architecture}, of which only the mask decoder can be fine-tuned: "
            f"give the depth decoder instead of {depth}."
        )
    if depth == "adapter" and base.metadata.get("recipe", {}).get("depth") == "adapter":
        origin = base.metadata["base"]["name"]
        raise ValueError(f"{path} is an adapter of {origin!r}: give {origin!r} as the base, or the depth decoder.")
    return path, base


def check_output(output: Path, base_path: Path, base: Network) -> None:
    """Refuse to write the tuned model over the one that it is made from, or over that one's own base.

    :raises ValueError: if it is so.
    """
    origin = base_path.with_name(Path(str(base.metadata.get("base", {}).get("name", base_path.name))).name)
    for path in (base_path, origin):
        if output.exists() and path.exists() and output.samefile(path):
            raise ValueError(f"The output {output} is the model {path} that is trained from: give it another path.")


def check_room(folder: Path, model: Network, count: int) -> None:
    """Refuse to keep more embeddings than the disk has room for.

    :param count: of the slices, every variant counted.
    :raises OSError: if there is too little.
    """
    needed = count * math.prod(model.embedding_shape) * 2
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise OSError(
            f"The embeddings of the slices take up to {needed / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB are "
            "free: free some disk space, give another folder, or fewer variants."
        )
