"""A strict stand-in for Slicer's GUI layer, so that widgets and effects run and are tested without the application.

Real are Qt (PySide6, offscreen), the scene and all MRML nodes, `slicer.util`, the segment editor's logic with undo,
masking and overwriting, the slice and 3-D views with their mouse interaction. Made here, after Slicer's and CTK's own
headers and Python sources (each file names its own), are PythonQt's ways on PySide6, the widgets of ctk and qMRML, the
base classes of scripted modules and effects, the parameter node wrapper and the application. Strict: what Slicer does
not have, or what PythonQt would only print (an exception in a slot), fails the test.

Use::

    # conftest.py
    from slicer_gui.fixtures import gui

    def test_the_module_segments(gui):
        gui.load_module(Path("MedSAMSlicer.py"))      # as at Slicer's start; then `gui.start_up()` if it matters
        widget = gui.open_module("MedSAMSlicer")      # the Python widget; widget.ui has the controls
        gui.dialogs.answer(gui.qt.QMessageBox.Ok)     # the answers to the next dialogs
        widget.ui.applyButton.click()
        gui.pump(until=lambda: widget.done)           # runs Qt's loop; fails on exceptions in slots and threads
        gui.dialogs.take()                            # the dialogs shown; those not taken fail the test
        gui.mouse("Red").drag((100, 100), (150, 140)) # real VTK events in the real view; see `Mouse`
        gui.picture("Red"), widget.parent.grab()      # what a view and the panel look like
        gui.take_errors()                             # exceptions in slots that the test expects

    def test_the_effect_fills_a_box(gui):
        effect.self().register()                      # or gui.start_up(), if the module registers it then
        editor = gui.segment_editor(segmentation, volume)
        editor.setActiveEffectByName("MedSAM")        # from now on it gets the events of all views
        editor.activeEffect().self()                  # the Python effect; editor.undo(), editor.redo()

`import qt`, `slicer.app` and so on work only while a test uses `gui`. Settings go to the test's own folder.
"""

from __future__ import annotations

import os

# Before Qt starts: no display, and enums that compare with integers as PythonQt's do.
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("PYSIDE6_OPTION_PYTHON_ENUM", "0x02")
