"""What Docs/Tutorial.md has a user type in the Python console, line by line."""

from __future__ import annotations

import re
from pathlib import Path

import slicer
import slicer.util

from box_predictor import BoxPredictor
from panel_user import MODULE_FILE

TUTORIAL = Path(__file__).parents[2] / "Docs" / "Tutorial.md"


def test_every_line_runs_on_the_sample_with_its_boxes(gui, samples, monkeypatch):
    module = gui.load_module(MODULE_FILE)
    gui.start_up()
    predictor = BoxPredictor()
    monkeypatch.setattr(module.MedSAMSlicerLogic, "loadPredictor", lambda *args, **options: predictor)
    (sample,) = (each for each in slicer.modules.sampleDataSources["MedSAM"] if each.sampleName == "MedSAMCTAbdomen")
    sample.customDownloader(sample)
    names = {"slicer": slicer}
    for block in re.findall(r"```python\n(.*?)```", TUTORIAL.read_text(encoding="utf-8"), re.DOTALL):
        exec(block, names)
    content = names["segmentationNode"].GetSegmentation()
    made = [content.GetSegment(segment_id).GetName() for segment_id in content.GetSegmentIDs()]
    assert made == ["spleen", "spleen", "right kidney", "left kidney", "left kidney", "left kidney"]
