"""How a model is fine-tuned: every number that the result depends on, with defaults for each depth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

DEPTHS = {
    "decoder": "the mask decoder; the image encoder runs once per slice (minutes on a laptop)",
    "adapter": "small matrices in the image encoder's attention, and the mask decoder (a file of a few MB)",
    "full": "image encoder and mask decoder, as MedSAM itself was trained (needs a large GPU for ViT-B)",
}
PRECISIONS = ("auto", "float32")


@dataclass(frozen=True)
class Recipe:
    """Every hyper-parameter. The prompt encoder always stays frozen, as in the MedSAM paper.

    :param depth: what is trained, one of `DEPTHS`.
    :param patience: epochs without a better validation score after which training ends.
    :param batch: samples per step and process.
    :param accumulate: steps whose gradients are added up before the weights change.
    :param learning_rate: of AdamW at its height, after the warm-up; a cosine leads from there to 0.
    :param warmup: share of all steps in which the learning rate rises linearly.
    :param gradient_norm: to which gradients are clipped.
    :param samples_per_epoch: 0 for as many as there are labelled slices, counting each label.
    :param slices_per_structure: how many slices of a label of a case count in that number at most; 0 for all. Thin
        slices are alike, and with all of them an epoch has many more steps, by which patients who are left out lose
        (Testing/Benchmarks/README.md).
    :param region_boxes: share of the samples that are asked with the box of the whole structure, as a 3-D box shows it
        in every slice; ``neighbor_boxes`` with the box around the mask of a neighboring slice. With both the
        propagation asks; ``tight_boxes`` with the edges of the slice's own mask; the other samples have a box as users
        draw it around that mask. Boxes that are larger than the mask teach a model of few patients to shrink from its
        box, which cost one glioma of four 0.2 of its Dice (Testing/Benchmarks/README.md).
    :param variants: of each slice, plain one included, whose embeddings are kept on disk (depth decoder).
    :param rank: of the adapter's matrices.
    :param train_decoder: whether the depth adapter trains the mask decoder as well.
    :param precision: "auto" for half precision on a GPU (bfloat16 where it has it), or "float32".
    :param validated_structures: how many structures of the validation cases are segmented in 3-D after each epoch.
    :param validated_slices: of each of them, as if thicker slices had been taken; a structure in more is thinned out.
    :param left_out_below: number of patients below which each is left out in turn, see `folds.folds_of`.
    :param strengths: of the change that was learned, from the base model's weights (0) to the trained ones (1): the
        best of them is chosen with the epoch (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022).
    :param patient_tolerance: by how much the score of a patient who was left out may fall below the base model's.
    :param guarded_structures: how many structures of the sample cases tell what a model has forgotten.
    :param guard_tolerance: by how much the Dice on them may fall below the base model's.
    :param least_response: box response below which a model is deaf to its box and refused as best.
    """

    depth: str = "decoder"
    epochs: int = 20
    patience: int = 6
    batch: int = 8
    accumulate: int = 1
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    warmup: float = 0.05
    gradient_norm: float = 1.0
    samples_per_epoch: int = 0
    slices_per_structure: int = 0
    tight_boxes: float = 0.0
    region_boxes: float = 0.0
    neighbor_boxes: float = 0.0
    variants: int = 3
    rank: int = 8
    train_decoder: bool = True
    precision: str = "auto"
    seed: int = 2023
    validated_structures: int = 8
    validated_slices: int = 24
    left_out_below: int = 10
    strengths: tuple[float, ...] = (1.0, 0.5)
    patient_tolerance: float = 0.02
    guarded_structures: int = 4
    guard_tolerance: float = 0.05
    least_response: float = 0.5

    def __post_init__(self) -> None:
        if self.depth not in DEPTHS:
            raise ValueError(f"The depth {self.depth!r} is unknown: give one of {', '.join(DEPTHS)}.")
        if self.precision not in PRECISIONS:
            raise ValueError(f"The precision {self.precision!r} is unknown: give one of {', '.join(PRECISIONS)}.")
        counts = ("epochs", "patience", "batch", "accumulate", "variants", "rank")
        for name in (*counts, "validated_structures", "validated_slices", "guarded_structures"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: give 1 or more.")
        tolerances = ("patient_tolerance", "guard_tolerance", "least_response")
        for name in ("learning_rate", "gradient_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}: give a number above 0.")
        for name in (
            "weight_decay",
            "samples_per_epoch",
            "slices_per_structure",
            "seed",
            "left_out_below",
            *tolerances,
        ):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}: give 0 or more.")
        for name in ("learning_rate", "weight_decay", *tolerances):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)}: give a finite number.")
        if not self.strengths or not all(0 < strength <= 1 for strength in self.strengths):
            raise ValueError(f"The strengths {self.strengths} are wrong: give at least one above 0, at most 1.")
        shares = (self.tight_boxes, self.region_boxes, self.neighbor_boxes)
        if not 0 <= min(shares) <= sum(shares) <= 1:
            raise ValueError(f"The shares of boxes {shares} are wrong: give 0 or more each, together at most 1.")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup is {self.warmup}: give a share of all steps, 0 or more and less than 1.")

    @classmethod
    def of_depth(cls, depth: str, **changes: Any) -> Recipe:
        """Return the recipe of a depth, with changes to its defaults.

        The depth decoder has few epochs, as each fold goes through all of them, small steps and tight boxes: of what
        was tried on few patients this gained where something was to be gained, and cost no kind of box more than 0.001
        (Testing/Benchmarks/README.md). The depth full takes LiteMedSAM's own learning rate and batch
        (train_one_gpu.py, branch LiteMedSAM).
        """
        defaults: dict[str, dict[str, Any]] = {
            "decoder": {
                "epochs": 3,
                "batch": 4,
                "learning_rate": 3e-5,
                "tight_boxes": 1.0,
                "variants": 1,
                "strengths": (1.0,),
                "slices_per_structure": 16,
                "validated_slices": 16,
            },
            "adapter": {"learning_rate": 2e-4, "batch": 4},
            "full": {"learning_rate": 5e-5, "batch": 4},
        }
        return cls(**{"depth": depth, **defaults.get(depth, {}), **changes})
