"""Section Inputs of the module: which volume, and through which window the model sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import qt
from slicer.i18n import tr as _

from MedSAMSlicerLib.app.window_preview import WindowPreview
from MedSAMSlicerLib.mrml.windows import modality_of, window_of
from MedSAMSlicerLib.volume.intensity import CT_WINDOWS

if TYPE_CHECKING:
    from MedSAMSlicerLib.app.host import Host


class InputsSection:
    """Keeps the window's list and its preview in step with the parameters."""

    def __init__(self, panel: Host) -> None:
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
        self._line = qt.QLineEdit()
        combo.setLineEdit(self._line)
        self._line.connect("editingFinished()", self._choose_typed)

    def update(self) -> None:
        """Show what the parameters say."""
        parameters, ui = self._panel.parameters, self._panel.ui
        volume = parameters.inputVolume
        if not self._line.hasFocus():
            self._show_window()
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

    def _show_window(self) -> None:
        combo, window = self._panel.ui.windowComboBox, self._panel.parameters.window
        index = combo.findData(window)
        if index >= 0:
            combo.setCurrentIndex(index)
        else:
            combo.setEditText(window)

    def _choose_typed(self) -> None:
        combo = self._panel.ui.windowComboBox
        text = combo.currentText.strip()
        # (What the list has, the combo box itself chooses.)
        if self._panel.parameters is not None and text and combo.findText(text) < 0:
            self._choose(text)

    def _choose(self, window: str) -> None:
        """Take a window over if the volume can be seen through it, and say why not."""
        parameters = self._panel.parameters
        if parameters is None or window == parameters.window:
            return
        try:
            if parameters.inputVolume is not None:
                window_of(parameters.inputVolume, window)
            parameters.window = window
        except ValueError as error:
            self._panel.tell(str(error), error=True)
        self._show_window()


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
