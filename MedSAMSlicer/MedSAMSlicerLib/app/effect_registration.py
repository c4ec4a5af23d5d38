"""The Segment Editor effect MedSAM, made known to Segment Editor."""

from __future__ import annotations

from pathlib import Path

import slicer


def registerEditorEffect() -> None:
    """Register the effect; called again, it does nothing."""
    import qSlicerSegmentationsEditorEffectsPythonQt as effects

    # Before Slicer looks for it: it would execute the one file in the place of the package.
    import SegmentEditorMedSAMLib

    # Where Slicer keeps the object of an effect that was loaded.
    if hasattr(slicer, SegmentEditorMedSAMLib.__name__):
        return
    scriptedEffect = effects.qSlicerSegmentEditorScriptedEffect(None)
    scriptedEffect.setPythonSource((Path(SegmentEditorMedSAMLib.__file__).parent / "SegmentEditorEffect.py").as_posix())
    scriptedEffect.self().register()
