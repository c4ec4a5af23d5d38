"""What must be on this computer before a model can run, and how it gets there: only when the user asks for it."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from MedSAMSlicerLib.store.catalog import WEIGHTS
from MedSAMSlicerLib.store.weights import WeightsStore

_LEAST_TORCH = ">=2.2"


def missing_torch() -> str:
    """Say what of PyTorch will be installed, from where and under which license; empty if it is there."""
    if importlib.util.find_spec("torch") is not None:
        return ""
    text = _(
        "PyTorch is missing. It will be installed from pytorch.org by Slicer's extension PyTorch, in the version that "
        "fits this computer's graphics card: some hundred megabytes, with CUDA some gigabytes. License: BSD-3-Clause."
    )
    if _pytorch_utilities() is None:
        text += " " + _("The extension itself is missing too; after its installation Slicer has to be restarted.")
    return text


def read_torch() -> None:
    """Read PyTorch's libraries from the disk, which ``import torch`` would do while all of Python has to wait.

    A call through ctypes lets Python's other threads run, so that Slicer stays responsive. On Windows torch does so
    itself.
    """
    if "torch" in sys.modules or os.name == "nt":
        return
    torch = importlib.util.find_spec("torch")
    if torch is None or torch.origin is None:
        return
    libraries = Path(torch.origin).parent / "lib"
    open_library = ctypes.CDLL(None).dlopen
    open_library.argtypes, open_library.restype = [ctypes.c_char_p, ctypes.c_int], ctypes.c_void_p
    for library in (*libraries.glob("libtorch_python.so"), *libraries.glob("libtorch_python.dylib")):
        # Where this fails, the import will say why.
        open_library(os.fsencode(library), os.RTLD_NOW)


def missing_weights(model: str) -> str:
    """Say which weights will be fetched, from where, how large and under which license; empty if they are there.

    :param model: a name of the catalog, or the path of a file, which can only be missed.
    """
    weights = next((each for each in WEIGHTS if each.name == model), None)
    if weights is None:
        if Path(model).is_file():
            return ""
        return _("The model file {path} is gone: put it back, or choose another model.").format(path=model)
    (stored,) = WeightsStore(catalog=(weights,)).entries()
    if stored.state == "present":
        return ""
    if not weights.sources:
        return _(
            "{title} can't be downloaded automatically: get {filename} from {page}, then choose 'Use a file…'. "
            "License: {license}."
        ).format(title=weights.title, filename=weights.filename, page=weights.page, license=weights.license)
    return _("{title} will be downloaded from {source}: {size} MB. License: {license}.").format(
        title=weights.title,
        source=weights.sources[0],
        size=round((weights.size or 0) / 1e6),
        license=weights.license,
    )


def can_be_fetched(model: str) -> bool:
    """Return whether a model's weights can be downloaded without a person."""
    return any(weights.sources for weights in WEIGHTS if weights.name == model)


def can_be_imported(model: str) -> bool:
    """Return whether a model's weights can be taken from a file of the user's."""
    return any(weights.name == model for weights in WEIGHTS)


def install_torch() -> None:
    """Install PyTorch through its extension, and the extension first where it is missing.

    :raises RuntimeError: if PyTorch is not there afterwards; the text says what to do.
    """
    utilities = _pytorch_utilities()
    if utilities is None:
        # Asks for the installation, and for the restart.
        if not slicer.app.extensionsManagerModel().installExtensionFromServer("PyTorch"):
            raise RuntimeError(
                _("The extension PyTorch was not installed: try again, or install it in the Extensions Manager.")
            )
        raise RuntimeError(_("The extension PyTorch is installed now: restart Slicer, then press Install again."))
    if utilities.installTorch(askConfirmation=False, torchVersionRequirement=_LEAST_TORCH) is None:
        raise RuntimeError(_("PyTorch was not installed: see the Python console for the reason, then try again."))
    importlib.invalidate_caches()


def _pytorch_utilities() -> Any:
    """Return the logic of the PyTorch extension; None without the extension."""
    try:
        from PyTorchUtils import PyTorchUtilsLogic
    except ModuleNotFoundError:
        return None
    return PyTorchUtilsLogic()
