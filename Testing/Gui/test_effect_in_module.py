"""The Segment Editor effect and the module together, as Slicer loads them."""

from __future__ import annotations

import numpy as np
import slicer
import slicer.util

from effect_editor import BrightPredictor, EffectEditor, block, block_volume
from panel_user import MODULE_FILE


def test_after_the_start_the_effect_is_there_and_shares_the_embeddings_of_the_module(gui, monkeypatch):
    module = gui.load_module(MODULE_FILE)
    predictor = BrightPredictor()
    monkeypatch.setattr(module.MedSAMSlicerLogic, "loadPredictor", lambda self, model=None, device=None: predictor)
    gui.start_up()
    effects = slicer.qSlicerSegmentEditorEffectFactory.instance().registeredEffects()
    assert [effect.name for effect in effects] == ["MedSAM"]
    logic = slicer.util.getModuleLogic("MedSAMSlicer")
    editor = EffectEditor(gui, monkeypatch, predictor, block_volume(), logic)
    editor.draw_around(2, 9)
    assert np.array_equal(editor.proposed(), block())
    encoded = len(predictor.encoded)
    assert len(logic.session.cache) == encoded
    editor.gui.mouse("Red").key("Escape")
    editor.draw_around(2, 9)
    assert len(predictor.encoded) == encoded
    editor.close()
