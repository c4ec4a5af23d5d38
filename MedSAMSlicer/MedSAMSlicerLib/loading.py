"""From a model's name to a predictor: the one place where the store and the networks meet."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from MedSAMSlicerLib.store.catalog import WEIGHTS, Weights
from MedSAMSlicerLib.store.folder import sha256_of
from MedSAMSlicerLib.store.weights import WeightsStore

if TYPE_CHECKING:
    from MedSAMSlicerLib.inference.predictor import Predictor
    from MedSAMSlicerLib.model import Network

# These differ in the size of the images alone, which no file tells.
_SAME_NETWORK = {"medsam2", "sam2_tiny"}


def load_predictor(model: str = "lite", device: str = "auto", store: WeightsStore | None = None) -> Predictor:
    """Load a model, ready to predict; one that remembers slices becomes a `TrackingPredictor`.

    :param model: the name of known weights ("lite", "vit_b", ...), which must have been fetched or imported, or the
        path of a checkpoint (see `model.checkpoint.load_checkpoint`); an adapter is merged into its base model.
    :param device: "auto", "cuda", "mps" or "cpu".
    :raises WeightsMissing: if the weights of this name aren't on this computer; the text says how to get them.
    :raises ValueError: if there is no model of this name and no such file, or the checkpoint or the device is wrong.
    :raises ModuleNotFoundError: if PyTorch is not installed.
    """
    return predictor_of(load_model(model, store), device)


def predictor_of(network: Network, device: str = "auto") -> Predictor:
    """Make a predictor of a model, which takes it over; see `load_predictor`."""
    from MedSAMSlicerLib.inference.predictor import Predictor
    from MedSAMSlicerLib.inference.tracking_predictor import TrackingPredictor
    from MedSAMSlicerLib.model import MedSAM2

    if isinstance(network, MedSAM2):
        return TrackingPredictor(network, device=device)
    return Predictor(network, device=device)


def load_model(model: str = "lite", store: WeightsStore | None = None) -> Network:
    """Load a model as it can be trained and saved: on the CPU, in eval mode. See `load_predictor`."""
    store = store or WeightsStore()
    path, known = find_weights(model, store)
    network = _load(path, store, known.architecture if known is not None else None)
    if known is not None:
        network.preprocessing = known.preprocessing
    # (The name of a file, not its path, which may tell who works where.)
    name = known.name if known is not None else path.name
    network.source = {"Model": name, "ModelSHA256": store.checksum(path) or sha256_of(path), **network.source}
    return network


def import_weights(name: str, path: Path, store: WeightsStore | None = None) -> Path:
    """Take over a file that the user has downloaded, see `WeightsStore.import_file`.

    Where the publisher states no checksum, the file is first loaded, as data, and its network recognized.

    :raises ValueError: if it is another file.
    """
    store = store or WeightsStore()

    def recognize(weights: Weights) -> None:
        found = _load(path, store, None).architecture
        if found != weights.architecture and {found, weights.architecture} != _SAME_NETWORK:
            raise ValueError(f"{path} holds a network {found!r}, not {weights.title}: get {weights.filename} again.")

    return store.import_file(name, path, recognize)


def _load(path: Path, store: WeightsStore, architecture: str | None) -> Network:
    try:
        from MedSAMSlicerLib.model import load_checkpoint
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ModuleNotFoundError(
            "PyTorch is not installed. In Slicer, install the extension 'PyTorch' and let its module 'PyTorch Util' "
            "install it; elsewhere run: pip install torch",
            name="torch",
        ) from error
    bases: dict[str, str] = {}

    def find_base(name: str, sha256: str) -> Path:
        bases.update(Base=Path(name).name, BaseSHA256=sha256)
        return _base_of(path, store, name, sha256)

    network = load_checkpoint(path, find_base, architecture)
    network.source = bases
    return network


def find_weights(model: str, store: WeightsStore) -> tuple[Path, Weights | None]:
    """Find the file of a model, and its entry in the catalog if it has one. See `load_predictor`."""
    known = next((weights for weights in WEIGHTS if weights.name == model), None)
    if known is not None:
        return store.path(model), known
    if Path(model).is_file():
        return Path(model), store.identify(Path(model))
    names = ", ".join(weights.name for weights in WEIGHTS)
    raise ValueError(f"The model {model!r} is unknown: give one of {names}, or the path of a checkpoint file.")


def file_state(model: str) -> tuple[int, int] | None:
    """Return size and time of a model's file, which change when a new training overwrites it; None for a mere name."""
    with contextlib.suppress(OSError):
        status = Path(model).stat()
        return status.st_size, status.st_mtime_ns
    return None


def _base_of(adapter: Path, store: WeightsStore, name: str, sha256: str) -> Path:
    """Find the base model of an adapter: in the store, or a file of this name beside the adapter.

    :raises WeightsMissing: if it belongs to the store and isn't there.
    :raises ValueError: if it isn't there, or is another file than the adapter was trained with.
    """
    beside = adapter.with_name(Path(name).name)
    if any(weights.name == name for weights in store.catalog):
        path = store.path(name)
    elif beside.is_file():
        path = beside
    else:
        raise ValueError(f"{adapter} is an adapter of the model {name!r}, which isn't here: put this file beside it.")
    found = sha256_of(path)
    if found != sha256:
        raise ValueError(
            f"{adapter} is an adapter of a model {name!r} with the SHA-256 {sha256}, but {path} has {found}: "
            "get the file that it was trained with, or fine-tune this one."
        )
    return path
