"""Section Inputs of the module: which volume, and through which window the model sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import qt
from slicer.i18n import tr as _

from MedSAMSlicerLib.app.window_preview import WindowPreview
from MedSAMSlicerLib.mrml.windows import modality_of
from MedSAMSlicerLib.volume.intensity import CT_WINDOWS

if TYPE_CHECKING:
    from MedSAMSlicerLib.app.panel import Panel


class InputsSection:
    """Keeps the window's list and its preview in step with the parameters."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel
        self._preview = WindowPreview()
        self._described: object = None
        combo = panel.ui.windowComboBox
        combo.setInsertPolicy(qt.QComboBox.NoInsert)
        combo.addItem(_("Automatic"), "auto")
        for name, (level, width) in CT_WINDOWS.items():
            combo.addItem(
                _("CT {name} (level {level}, width {width})").format(name=name, level=level, width=width), name
            )
        combo.addItem(_("MR percentiles"), "mr")
        combo.addItem(_("Full range"), "full")
        combo.connect("activated(int)", lambda index: self._choose(combo.itemData(index)))
        line = qt.QLineEdit()
        combo.setLineEdit(line)
        line.connect("editingFinished()", self._choose_typed)

    def update(self) -> None:
        """Show what the parameters say."""
        parameters, ui = self._panel.parameters, self._panel.ui
        volume = parameters.inputVolume
        index = ui.windowComboBox.findData(parameters.window)
        if index >= 0:
            ui.windowComboBox.setCurrentIndex(index)
        else:
            ui.windowComboBox.setEditText(parameters.window)
        if volume is not self._described:
            self._described = volume
            ui.modalityLabel.setText(_describe(volume))
        problem = self._preview.show(volume if parameters.previewWindow else None, parameters.window)
        if problem:
            self._panel.tell(problem, error=True)

    def close(self) -> None:
        """Give the views back as they were."""
        self._preview.show(None, "auto")
        self._described = None

    def _choose_typed(self) -> None:
        combo = self._panel.ui.windowComboBox
        text = combo.currentText.strip()
        if combo.findText(text) < 0 and text:
            self._choose(text)

    def _choose(self, window: str) -> None:
        if self._panel.parameters is not None:
            self._panel.parameters.window = window


def _describe(volume: object) -> str:
    """Say what kind of image a volume seems to be."""
    if volume is None:
        return ""
    try:
        modality = modality_of(volume)
    except ValueError as error:
        return str(error)
    return {
        "ct": _("CT (Hounsfield units): Automatic is the abdomen window."),
        "mr": _("MRI: Automatic is the range between the 0.5 and 99.5 percentile."),
        "display": _("Image of bytes or colors: Automatic is its full range."),
    }[modality]
