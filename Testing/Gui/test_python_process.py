"""Commands of the library beside Slicer: they find the library whatever PythonSlicer does with its environment."""

from __future__ import annotations

import sys


def test_the_library_is_found_where_the_launcher_sets_pythonpath_itself(gui, tmp_path, monkeypatch):
    from MedSAMSlicerLib.app import python_process

    launcher = tmp_path / "Slicer" / "bin" / "PythonSlicer"
    launcher.parent.mkdir(parents=True)
    launcher.write_text(f'#!/bin/sh\nPYTHONPATH=/nowhere exec "{sys.executable}" "$@"\n')
    launcher.chmod(0o755)
    monkeypatch.setenv("SLICER_HOME", str(tmp_path / "Slicer"))
    package = tmp_path / "a folder" / "made_up"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text("import sys\nfrom made_up import __name__\nprint(__name__, sys.argv[1:])\n")
    monkeypatch.setattr(python_process, "_MODULE_FOLDER", package.parent)
    process = python_process.PythonProcess("made_up", ["--name=our scanner", "-c"], tmp_path / "output.txt")
    gui.pump(until=lambda: not process.running)
    assert python_process.last_words(process.output) == "made_up ['--name=our scanner', '-c']"
    assert process.succeeded
