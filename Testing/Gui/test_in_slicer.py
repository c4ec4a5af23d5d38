"""The tests that a desktop Slicer runs (Testing/InSlicer), run here too: so they are known to pass before that."""

from __future__ import annotations

import importlib.util
import unittest
from pathlib import Path

import pytest

from panel_user import MODULE_FILE

FOLDER = Path(__file__).parents[1] / "InSlicer"


@pytest.mark.parametrize("name", ["MedSAMSlicerModuleTest", "MedSAMSlicerPanelTest"])
def test_they_pass_in_the_stand_in_for_slicer(gui, lite_weights, name):
    gui.load_module(MODULE_FILE)
    gui.start_up()
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(getattr(module, name)).run(result)
    assert result.testsRun >= 5
    assert result.wasSuccessful(), "\n".join(trace for _, trace in result.failures + result.errors)
