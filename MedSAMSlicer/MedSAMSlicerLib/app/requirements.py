"""What must be on this computer before a model can run, and how it gets there: only when the user asks for it."""

from __future__ import annotations

import importlib
import importlib.util

import slicer
from slicer.i18n import tr as _

from MedSAMSlicerLib.store.weights import WeightsStore

_LEAST_TORCH = ">=2.2"


def missing_torch() -> str | None:
    """Say what of PyTorch will be installed, from where and under which license; None if it is there."""
    if importlib.util.find_spec("torch") is not None:
        return None
    text = _(
        "PyTorch is missing. It will be installed from pytorch.org by Slicer's extension PyTorch, in the version that "
        "fits this computer's graphics card: some hundred megabytes, with CUDA some gigabytes. License: BSD-3-Clause."
    )
    if importlib.util.find_spec("PyTorchUtils") is None:
        text += " " + _("The extension itself is missing too; after its installation Slicer has to be restarted.")
    return text


def missing_weights(model: str) -> str | None:
    """Say which weights will be fetched, from where, how large and under which license; None if they are there.

    :param model: a name of the catalog; a path needs nothing.
    """
    stored = next((each for each in WeightsStore().entries() if each.weights.name == model), None)
    if stored is None or stored.state == "present":
        return None
    weights = stored.weights
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


def install_torch() -> None:
    """Install PyTorch through its extension, and the extension first where it is missing.

    :raises RuntimeError: if that does not succeed; the text says what to do.
    """
    if importlib.util.find_spec("PyTorchUtils") is None:
        manager = slicer.app.extensionsManagerModel()
        if not manager.installExtensionFromServer("PyTorch"):
            raise RuntimeError(
                _("The extension PyTorch could not be installed: open the Extensions Manager and install it there.")
            )
        raise RuntimeError(_("The extension PyTorch is installed: restart Slicer, then press Install again."))
    utilities = importlib.import_module("PyTorchUtils").PyTorchUtilsLogic()
    if utilities.installTorch(askConfirmation=False, torchVersionRequirement=_LEAST_TORCH) is None:
        raise RuntimeError(_("PyTorch was not installed: see the Python console for the reason, then try again."))
    importlib.invalidate_caches()
