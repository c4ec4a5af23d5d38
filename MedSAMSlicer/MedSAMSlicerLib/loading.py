"""From a model's name to a predictor: the one place where the store and the networks meet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from MedSAMSlicerLib.store.catalog import WEIGHTS
from MedSAMSlicerLib.store.weights import WeightsStore

if TYPE_CHECKING:
    from MedSAMSlicerLib.inference.predictor import Predictor


def load_predictor(model: str = "lite", device: str = "auto", store: WeightsStore | None = None) -> Predictor:
    """Load a model, ready to predict.

    :param model: the name of known weights ("lite", "vit_b", ...), which must have been fetched or imported, or the
        path of a checkpoint (see `model.checkpoint.load_checkpoint`).
    :param device: "auto", "cuda", "mps" or "cpu".
    :raises WeightsMissing: if the weights of this name aren't on this computer; the text says how to get them.
    :raises ValueError: if there is no model of this name and no such file, or the checkpoint or the device is wrong.
    :raises ModuleNotFoundError: if PyTorch is not installed.
    """
    store = store or WeightsStore()
    known = next((weights for weights in WEIGHTS if weights.name == model), None)
    if known is not None:
        path = store.path(model)
    elif Path(model).is_file():
        path = Path(model)
        known = store.identify(path)
    else:
        names = ", ".join(weights.name for weights in WEIGHTS)
        raise ValueError(f"The model {model!r} is unknown: give one of {names}, or the path of a checkpoint file.")
    try:
        from MedSAMSlicerLib.inference.predictor import Predictor
        from MedSAMSlicerLib.model import load_checkpoint
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ModuleNotFoundError(
            "PyTorch is not installed. In Slicer, install the extension 'PyTorch' and let its module 'PyTorch Util' "
            "install it; elsewhere run: pip install torch",
            name="torch",
        ) from error
    network = load_checkpoint(path)
    if known is not None:
        network.preprocessing = known.preprocessing
    return Predictor(network, device=device)
