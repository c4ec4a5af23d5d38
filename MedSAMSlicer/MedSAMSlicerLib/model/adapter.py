"""Adapters: what a site's fine-tuning changes in a base model, in a file that holds only this."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Adapter:
    """Changes to a model's parameters (Hu et al., "LoRA", ICLR 2022, for those of low rank).

    :param base: the name of the model that they belong to, and the SHA-256 of its file.
    :param low_rank: parameter (R, C) -> two factors (R, r) and (r, C), whose product is added.
    :param added: parameter -> what is added to it, of its own shape.
    """

    base: tuple[str, str]
    low_rank: Mapping[str, tuple[Tensor, Tensor]]
    added: Mapping[str, Tensor]

    def merged_into(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the parameters of the base model with the changes, in its own precision.

        :raises ValueError: if these are the parameters of another architecture.
        """
        merged = dict(state)
        changes = {name: up.float() @ down.float() for name, (up, down) in self.low_rank.items()}
        changes |= {name: tensor.float() for name, tensor in self.added.items()}
        for name, change in changes.items():
            if name not in state or state[name].shape != change.shape:
                raise ValueError(f"it changes {name}, {tuple(change.shape)}, which the base model does not have")
            merged[name] = (state[name] + change).to(state[name].dtype)
        return merged

    def to_content(self) -> dict[str, Any]:
        """Return what `from_content` reads, as torch.save takes it."""
        return {"base": list(self.base), "low_rank": dict(self.low_rank), "added": dict(self.added)}

    @classmethod
    def from_content(cls, content: Any) -> Adapter:
        """Read an adapter as it lies in a file.

        :raises ValueError: if it is none.
        """
        try:
            name, sha256 = content["base"]
            pairs = {str(key): (up, down) for key, (up, down) in content["low_rank"].items()}
            added = {str(key): tensor for key, tensor in content["added"].items()}
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise ValueError("a damaged adapter") from error
        if not all(isinstance(tensor, Tensor) for tensor in (*added.values(), *sum(pairs.values(), ()))):
            raise ValueError("a damaged adapter")
        return cls((str(name), str(sha256)), pairs, added)
