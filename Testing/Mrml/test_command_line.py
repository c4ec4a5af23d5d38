"""The program as a whole: help, exit codes, and what it never does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import MedSAMSlicerLib
from MedSAMSlicerLib.cli import evaluate
from MedSAMSlicerLib.cli.main import main

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(MedSAMSlicerLib.__file__).parents[1])}
EVALUATE = ["evaluate", "--prediction", "a.nrrd", "--reference", "b.nrrd"]


def program(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "MedSAMSlicerLib", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.run(command, env=ENVIRONMENT, text=True, check=False, **pipes)


def test_the_package_is_a_program_that_explains_itself():
    result = program("--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("usage: medsam-slicer")
    for command in ("segment", "evaluate", "models", "demo"):
        assert f"    {command} " in result.stdout


def test_help_and_an_error_cost_no_heavy_import():
    code = (
        "import sys; from MedSAMSlicerLib.cli.main import main\n"
        "try: main(['segment', '--help'])\n"
        "except SystemExit: pass\n"
        "main(['segment', '--volume', 'v.nrrd', '--box', '1', '--output', 'o.xyz'])\n"
        "heavy = {'torch', 'SimpleITK', 'slicer', 'vtk', 'vtkmodules'}\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & heavy))"
    )
    result = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "command", [("segment",), ("evaluate",), ("models",), ("models", "fetch"), ("demo",)], ids=" ".join
)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--help"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: medsam-slicer {' '.join(command)}")


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"medsam-slicer {MedSAMSlicerLib.__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["paint"], ["evaluate"], ["--verbose", *EVALUATE]])
def test_wrong_usage_has_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("usage: medsam-slicer")


def fails_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int:
    def run(args: object) -> int:
        raise error

    monkeypatch.setattr(evaluate, "run", run)
    return main(EVALUATE)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("first line\n   and second"), "first line and second"),
        (PermissionError(13, "Permission denied", "/data/CT.nrrd"), "/data/CT.nrrd: Permission denied"),
        (RuntimeError(), "RuntimeError"),
        (ModuleNotFoundError("PyTorch is not installed."), "PyTorch is not installed."),
        (MemoryError(), "there is not enough memory: close other programs, or crop the volume"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_error_is_one_line_and_exit_code_1(error, text, monkeypatch, capsys):
    assert fails_with(error, monkeypatch) == 1
    assert capsys.readouterr().err == f"medsam-slicer: error: {text}\n"


def test_ctrl_c_has_its_own_exit_code_and_shows_no_traceback(monkeypatch, capsys):
    assert fails_with(KeyboardInterrupt(), monkeypatch) == 130
    assert capsys.readouterr().err == "\nmedsam-slicer: interrupted; no file is half-written\n"


def test_a_defect_of_the_program_is_not_disguised_as_the_users_error(monkeypatch):
    with pytest.raises(ZeroDivisionError):
        fails_with(ZeroDivisionError(), monkeypatch)


def test_a_reader_that_leaves_early_is_no_error(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    result = program("models", "list", stdout=writing)
    os.close(writing)
    assert result.returncode == 1
    assert result.stderr == ""


def test_output_that_finds_no_room_is_an_error_in_one_line():
    with Path("/dev/full").open("w") as full:
        result = program("models", "list", stdout=full)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("medsam-slicer: error: ")
    assert "No space left on device" in line
