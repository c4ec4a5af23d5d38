"""What is remembered from one Slicer to the next: the model, the device, the site's dataset, and the like."""

from __future__ import annotations

import slicer

_DEFAULTS: dict[str, str] = {
    "model": "lite",
    "device": "auto",
    "cacheMebibytes": "1024",
    "diskCache": "false",
    "keepOnCancel": "true",
    "siteDataset": "",
    "trainingRun": "",
}


def setting(name: str) -> str:
    """Read a setting of the user's, or its default; a plain text."""
    return str(slicer.app.settings().value(f"MedSAM/{name}", _DEFAULTS[name]))


def remember(name: str, value: str) -> None:
    """Write a setting of the user's."""
    if name not in _DEFAULTS:
        raise ValueError(f"There is no setting {name!r}: choose one of {', '.join(_DEFAULTS)}.")
    slicer.app.settings().setValue(f"MedSAM/{name}", value)
