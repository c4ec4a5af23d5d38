"""``SegmentEditorEffects``: the base class of effects that are written in Python.

Names, signatures and behavior as in Slicer Modules/Loadable/Segmentations/EditorEffects/Python/SegmentEditorEffects/
AbstractScriptedSegmentEditorEffect.py; nothing is copied from it.
"""

from __future__ import annotations

from collections.abc import Sequence

import slicer

__all__ = ["AbstractScriptedSegmentEditorEffect"]


class AbstractScriptedSegmentEditorEffect:
    """An effect; reaches its C++ side by ``self.scriptedEffect``."""

    def __init__(self, scriptedEffect) -> None:
        self.scriptedEffect = scriptedEffect

    def register(self) -> None:
        """Offer the effect to segment editors that are made from now on; a second one of its name is ignored."""
        slicer.qSlicerSegmentEditorEffectFactory.instance().registerEffect(self.scriptedEffect)

    def cleanup(self) -> None:
        """Called before the effect is deleted, to disconnect its signals."""

    def rasToXy(self, ras: Sequence[float], viewWidget) -> list[int]:
        point = self.scriptedEffect.rasToXy(_vector(ras), viewWidget)
        return [point.x(), point.y()]

    def xyzToRas(self, xyz: Sequence[float], viewWidget) -> list[float]:
        return _list(self.scriptedEffect.xyzToRas(_vector(xyz), viewWidget))

    def xyToRas(self, xy: Sequence[int], viewWidget) -> list[float]:
        return _list(self.scriptedEffect.xyToRas(_point(xy), viewWidget))

    def xyzToIjk(self, xyz: Sequence[float], viewWidget, image, parentTransformNode=None) -> list[int]:
        return _indices(self.scriptedEffect.xyzToIjk(_vector(xyz), viewWidget, image, parentTransformNode))

    def xyToIjk(self, xy: Sequence[int], viewWidget, image, parentTransformNode=None) -> list[int]:
        return _indices(self.scriptedEffect.xyToIjk(_point(xy), viewWidget, image, parentTransformNode))


def _point(xy: Sequence[int]):
    import qt

    return qt.QPoint(xy[0], xy[1])


def _vector(values: Sequence[float]):
    import qt

    return qt.QVector3D(values[0], values[1], values[2])


def _list(vector) -> list[float]:
    return [vector.x(), vector.y(), vector.z()]


def _indices(vector) -> list[int]:
    return [int(value) for value in _list(vector)]
