"""Stand-ins for what `MedSAMSlicer.py` takes from the application and slicer-core does not have.

They are strict: an attribute that Slicer's own class does not have, or that the module should not need, is an error.
"""

from __future__ import annotations

import importlib.util
import sys
import types
import unittest
from pathlib import Path

MODULE_FILE = Path(__file__).parents[1] / "MedSAMSlicer" / "MedSAMSlicer.py"


class Parent:
    """Stands in for qSlicerScriptedLoadableModule."""

    __slots__ = ("acknowledgementText", "categories", "contributors", "dependencies", "helpText", "title")


class ScriptedLoadableModule:
    def __init__(self, parent: Parent) -> None:
        self.parent = parent


class ScriptedLoadableModuleWidget:
    """Only its existence; widgets are tested in Slicer."""


class ScriptedLoadableModuleLogic:
    def __init__(self, parent: object = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Logic")


class ScriptedLoadableModuleTest(unittest.TestCase):
    """As in Slicer, a unittest case."""


def load_module_file() -> types.ModuleType:
    """Execute `MedSAMSlicer.py` as Slicer does, with the stand-ins in place only while it is executed."""
    base = types.ModuleType("slicer.ScriptedLoadableModule")
    for each in (
        ScriptedLoadableModule,
        ScriptedLoadableModuleWidget,
        ScriptedLoadableModuleLogic,
        ScriptedLoadableModuleTest,
    ):
        setattr(base, each.__name__, each)
    translation = types.ModuleType("slicer.i18n")
    translation.tr = lambda text: text  # type: ignore[attr-defined]
    translation.translate = lambda context, text: text  # type: ignore[attr-defined]
    stand_ins = {base.__name__: base, translation.__name__: translation, "qt": types.ModuleType("qt")}
    absent = {name for name in stand_ins if name not in sys.modules}
    sys.modules.update({name: stand_ins[name] for name in absent})
    try:
        spec = importlib.util.spec_from_file_location("MedSAMSlicer", MODULE_FILE)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        for name in absent:
            del sys.modules[name]
    return module
