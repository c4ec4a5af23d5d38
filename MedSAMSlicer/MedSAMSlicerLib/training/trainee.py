"""A model in training: which of its parameters change, and what is taken out of it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from MedSAMSlicerLib.model import MedSAM, MedSAM2, Network, save_checkpoint
from MedSAMSlicerLib.model.checkpoint import save_adapter
from MedSAMSlicerLib.model.object_decoder import ObjectDecoder
from MedSAMSlicerLib.model.transformer import TokenToImageAttention
from MedSAMSlicerLib.training.losses import WITH_IOU
from MedSAMSlicerLib.training.low_rank import LowRank, adapter_of, add_low_rank
from MedSAMSlicerLib.training.recipe import Recipe


class Trainee(nn.Module):
    """Train what a recipe's depth says, and keep the rest of the model as it is.

    Always frozen are the prompt encoder and the parts of the mask decoder that a box never asks (the three alternative
    masks, and the estimate of the IoU where the base model never learned it). Of MedSAM2, which takes the alternatives
    where a slice has no box, frozen are what belongs to the embeddings, the memory, and the judgment whether the
    structure is there at all, as all samples show it. Batch norms keep their statistics: those
    of a few slices of one site would replace the ones of a million.

    :param base: the model to start from, which is not changed.
    :param name: of the base, as a user gives it; ``sha256`` of its file.
    """

    def __init__(self, base: Network, recipe: Recipe, name: str, sha256: str) -> None:
        super().__init__()
        self.base, self.recipe, self.name, self.sha256 = [base], recipe, name, sha256
        self.model = copy.deepcopy(base).eval().requires_grad_(False)
        if recipe.depth == "adapter":
            add_low_rank(self.model, recipe.rank, recipe.seed)
            for module in self.model.modules():
                if isinstance(module, LowRank):
                    module.requires_grad_(True)
        elif recipe.depth == "full":
            self.model.image_encoder.requires_grad_(True)
        if recipe.depth != "adapter" or recipe.train_decoder:
            assert isinstance(self.model, MedSAM | MedSAM2)
            decoder = self.model.mask_decoder.requires_grad_(True)
            if isinstance(decoder, ObjectDecoder):
                for part in (decoder.conv_s0, decoder.conv_s1, decoder.obj_score_token, decoder.pred_obj_score_head):
                    part.requires_grad_(False)
            else:
                decoder.output_hypernetworks_mlps[1:].requires_grad_(False)
            decoder.iou_prediction_head.requires_grad_(self.with_iou)
            for module in decoder.modules():
                if isinstance(module, TokenToImageAttention):
                    # It counts for nothing (see there), and gets no gradient.
                    module.k_proj.bias.requires_grad_(False)

    @property
    def with_iou(self) -> bool:
        """Whether the estimate of the IoU is trained as well."""
        return self.model.architecture in WITH_IOU

    @property
    def from_embeddings(self) -> bool:
        """Whether the image encoder stays as it is, so that its embeddings can be kept."""
        return self.recipe.depth == "decoder"

    def forward(self, inputs: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Predict the masks of samples: logits (N, M, h, w) and the estimate of their IoU (N, M).

        :param inputs: embeddings (N, C, h, w), or preprocessed slices (N, 3, S, S) where the encoder is trained.
        :param boxes: (N, 4) in pixels of the preprocessed slices.
        """
        return self.model.masks_to_train(inputs if self.from_embeddings else self.model.encode(inputs), boxes)

    def trained(self) -> dict[str, Tensor]:
        """Return the parameters that change, by name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    @torch.no_grad()
    def restore(self, trained: dict[str, Tensor]) -> None:
        """Put back what `trained` returned in another process."""
        for name, parameter in self.trained().items():
            parameter.copy_(trained[name])

    def result(self) -> Network:
        """Return a copy of the model as its file will give it back: on the CPU, adapters merged."""
        (base,) = self.base
        if self.recipe.depth != "adapter":
            return copy.deepcopy(self.model).cpu()
        result = copy.deepcopy(base)
        adapter = adapter_of(self.model, base, self.name, self.sha256)
        result.load_state_dict(adapter.merged_into(base.state_dict()))
        return result

    def save(self, path: Path, card: dict[str, Any]) -> None:
        """Write the file that the model menu and the command line take, whole or not at all.

        :param card: what the file tells about itself, as JSON can hold it.
        :raises OSError: if it can't be written; an older file stays.
        """
        if self.recipe.depth == "adapter":
            (base,) = self.base
            save_adapter(adapter_of(self.model, base, self.name, self.sha256), base, path, **card)
        else:
            save_checkpoint(self.model, path, **card)
