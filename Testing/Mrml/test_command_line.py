"""The program as a whole: help, exit codes, and what it never does."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest

import MedSAMSlicerLib
from MedSAMSlicerLib import loading
from MedSAMSlicerLib.cli import evaluate
from MedSAMSlicerLib.cli.main import main
from MedSAMSlicerLib.volume.files import write_labelmap
from MedSAMSlicerLib.volume.image_file import quiet

# The library and the stand-ins for tests; buffered, as a user's Python is.
ENVIRONMENT = os.environ | {
    "PYTHONPATH": f"{Path(MedSAMSlicerLib.__file__).parents[1]}:{Path(__file__).parents[1]}",
    "PYTHONUNBUFFERED": "",
}
EVALUATE = ["evaluate", "--prediction", "a.nrrd", "--reference", "b.nrrd"]
LIVER = ("5", "6", "2", "20", "15", "7")


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
        (
            PermissionError(13, "Permission denied", "/data/CT.nrrd"),
            "/data/CT.nrrd: Permission denied: ask for the right to use it, or give another path",
        ),
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
    assert capsys.readouterr().err == "medsam-slicer: interrupted; no file is half-written\n"


def test_a_defect_of_the_program_is_not_disguised_as_the_users_error(monkeypatch, capsys):
    assert fails_with(ZeroDivisionError("by\nzero"), monkeypatch) == 1
    text = "a defect of the program (ZeroDivisionError: by zero): run it again with --debug and report it"
    assert capsys.readouterr().err == f"medsam-slicer: error: {text}\n"


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


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], simple_ct_file: Path):
    """Ask for an output that can't be, and return the one line of the error; a model must not have been loaded."""

    def load(*args: object) -> None:
        raise AssertionError("The model was loaded.")

    def ask(output: Path) -> str:
        assert main(["segment", "--volume", str(simple_ct_file), "--box", *LIVER, "--output", str(output)]) == 1
        (line,) = capfd.readouterr().err.splitlines()
        return line

    monkeypatch.setattr(loading, "load_predictor", load)
    return ask


def test_an_output_in_a_file_is_refused_before_the_model_is_loaded(refused, simple_ct_file):
    line = refused(simple_ct_file / "o.seg.nrrd")
    assert line.startswith("medsam-slicer: error: ")
    assert f"The output folder {simple_ct_file} can't be written to (Not a directory): give another one." in line


def test_an_output_that_is_a_folder_is_refused_before_the_model_is_loaded(refused, tmp_path):
    (tmp_path / "results.nrrd").mkdir()
    assert "results.nrrd is a folder: give the path of a file" in refused(tmp_path / "results.nrrd")


def test_a_read_only_folder_is_refused_before_the_model_is_loaded(refused, out, monkeypatch):
    def refuse(*, dir: Path) -> None:
        assert dir == out
        raise OSError(errno.EROFS, "Read-only file system", str(dir / "tmp"))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    line = refused(out / "o.seg.nrrd")
    assert f"The output folder {out} can't be written to (Read-only file system): give another one" in line


def test_a_command_that_fails_makes_no_folder(simple_ct_file, tmp_path):
    arguments = ["segment", "--volume", str(simple_ct_file), "--box", "99", "0", "0", "99", "9", "9"]
    assert main([*arguments, "--output", str(tmp_path / "new" / "o.seg.nrrd")]) == 1
    assert not (tmp_path / "new").exists()


FULL_DISK = """
import resource, sys
from box_predictor import BoxPredictor
from MedSAMSlicerLib import loading
from MedSAMSlicerLib.cli.main import main

predictor = BoxPredictor()
predictor.device = "cpu"
loading.load_predictor = lambda model, device: predictor
resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400))
sys.exit(main())
"""


@pytest.mark.parametrize("ending", [".seg.nrrd", ".nrrd", ".nii.gz", ".nii", ".mha"])
def test_a_full_disk_leaves_nothing_and_keeps_the_older_file(simple_ct_file, out, ending):
    path = out / f"o{ending}"
    path.write_text("older")
    # Many boxes make any of the files longer than what the disk still takes.
    boxes = [str(number) for n in range(40) for number in (n % 20, n % 17, n % 7, n % 20 + 9, n % 17 + 5, n % 7 + 2)]
    options = ("--volume", simple_ct_file, "--output", path, "--box", *boxes)
    # Without -B, Python would cut its own compiled files off too, and keep them so.
    command = [sys.executable, "-B", "-c", FULL_DISK, "segment", *options]
    result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith("medsam-slicer: error: ")
    assert path.name in last
    assert list(out.iterdir()) == [path]
    assert path.read_text() == "older"


def test_debug_shows_where_an_error_comes_from(simple_ct_file, out, capfd):
    arguments = ["segment", "--volume", str(out / "none.nrrd"), "--box", *LIVER, "--output", str(out / "o.seg.nrrd")]
    assert main(["--debug", *arguments]) == 1
    err = capfd.readouterr().err
    assert err.startswith("Traceback (most recent call last):")
    assert "read_volume" in err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--box", *LIVER, "--roi", "R.mrk.json"],
        ["--box", *LIVER[:5], "seven"],
        ["--box", *LIVER, "--axis", "x"],
        ["--box", *LIVER, "--propagation", "video"],
        ["--box", *LIVER, "--device", "tpu"],
        ["--box"],
    ],
    ids=["neither box nor ROI", "box and ROI", "no number", "axis", "propagation", "device", "box without numbers"],
)
def test_wrong_usage_has_its_own_exit_code_and_shows_the_usage(simple_ct_file, out, capfd, arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["segment", "--volume", str(simple_ct_file), "--output", str(out / "o.seg.nrrd"), *arguments])
    assert stopped.value.code == 2
    assert capfd.readouterr().err.startswith("usage: medsam-slicer segment")
    assert list(out.iterdir()) == []


SLOW_MODEL = """
import signal, sys, time
from box_predictor import BoxPredictor
from MedSAMSlicerLib import loading
from MedSAMSlicerLib.cli.main import main

class SlowPredictor(BoxPredictor):
    device = "cpu"
    def encode(self, image):
        if len(self.encoded) == 2:
            print("encoding", flush=True)
            time.sleep(60)
        return super().encode(image)

loading.load_predictor = lambda model, device: SlowPredictor()
# A shell starts its background jobs, and so the tests in one, with Ctrl-C switched off.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main())
"""


def test_ctrl_c_in_the_middle_leaves_no_file_and_keeps_the_older_one(simple_ct_file, out):
    older = out / "o.seg.nrrd"
    older.write_text("older")
    files = ("--volume", simple_ct_file, "--output", older, "--json", out / "o.json", "--snapshot", out / "o.png")
    command = [sys.executable, "-c", SLOW_MODEL, "segment", *files, "--box", *LIVER]
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "encoding\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "medsam-slicer: interrupted; no file is half-written"
    assert "Traceback" not in err
    assert list(out.iterdir()) == [older]
    assert older.read_text() == "older"


def test_the_program_itself_prints_one_line_and_nothing_of_itk_or_vtk(a_ct, out, tmp_path):
    path = tmp_path / "cut.nii.gz"
    write_labelmap(path, a_ct, np.eye(4))
    path.write_bytes(path.read_bytes()[:-100])
    for volume in (path, tmp_path / "none.nrrd"):
        options = ("--volume", volume, "--box", *LIVER, "--output", out / "o.nrrd")
        command = [sys.executable, "-m", "MedSAMSlicerLib", "segment", *options]
        result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        assert result.returncode == 1
        (line,) = result.stderr.splitlines()
        assert line.startswith(f"medsam-slicer: error: {volume}")
        assert list(out.iterdir()) == []


SLOW_IMPORT = """
import time
print("importing", flush=True)
for _ in range(20):
    time.sleep(0.05)
print("imported", flush=True)
"""


def test_ctrl_c_during_an_import_lets_it_end_and_is_one_line(simple_ct_file, out, tmp_path):
    """Native libraries crash, or are found half-loaded, when their import is broken off."""
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "torch.py").write_text(SLOW_IMPORT)
    files = ("--volume", simple_ct_file, "--output", out / "o.seg.nrrd", "--box", *LIVER)
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import runpy; runpy.run_module('MedSAMSlicerLib', run_name='__main__')"
    )
    model = tmp_path / "model.pth"
    model.write_bytes(b"no model yet")
    path = f"{tmp_path / 'first'}:{ENVIRONMENT['PYTHONPATH']}"
    environment = ENVIRONMENT | {"PYTHONPATH": path, "MEDSAM_SLICER_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", code, "segment", *files, "--model", model]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        printed, err = process.communicate(timeout=60)
    assert printed == "imported\n"
    assert process.returncode == 130
    assert err == "medsam-slicer: interrupted; no file is half-written\n"


def test_a_closed_standard_output_is_no_error_and_no_file_takes_its_number(simple_ct_file, tmp_path):
    command = f"{sys.executable} -m MedSAMSlicerLib models list >&- 2>{tmp_path / 'err'}"
    result = subprocess.run(["bash", "-c", command], env=ENVIRONMENT, check=False)
    assert (result.returncode, (tmp_path / "err").read_text()) == (0, "")
    command = f"{sys.executable} -m MedSAMSlicerLib evaluate --prediction none --reference none >&- 2>&-"
    assert subprocess.run(["bash", "-c", command], env=ENVIRONMENT, check=False).returncode == 1


def test_paths_beyond_ascii_work_where_the_locale_has_none(a_ct, tmp_path):
    path = tmp_path / "Łódź.nrrd"
    write_labelmap(path, (a_ct > 0).astype(np.uint8), np.eye(4))
    command = [sys.executable, "-m", "MedSAMSlicerLib", "evaluate", "--prediction", path, "--reference", path]
    environment = ENVIRONMENT | {"LC_ALL": "C", "PYTHONUTF8": "0"}
    result = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (0, b"")
    assert b"1.000" in result.stdout


@pytest.mark.filterwarnings("ignore:a tensor is odd")
def test_what_libraries_say_is_shown_with_debug_only(monkeypatch, capfd):
    def run(args: object) -> int:
        os.write(2, b"WARNING: In vtkFile.cxx, line 1\n")
        with quiet():
            os.write(2, b"GDCM found an odd element\n")
        warnings.warn("a tensor is odd", UserWarning, stacklevel=1)
        logging.getLogger("pydicom").warning("an element is odd")
        sys.stderr.write("our own words\n")
        return 0

    monkeypatch.setattr(evaluate, "run", run)
    assert main(EVALUATE) == 0
    assert capfd.readouterr().err == "our own words\n"
    os.write(2, b"as before\n")
    assert capfd.readouterr().err == "as before\n"
    assert main(["--debug", *EVALUATE]) == 0
    err = capfd.readouterr().err
    assert "vtkFile.cxx" in err
    assert "GDCM found an odd element" in err


@pytest.mark.parametrize("arguments", [("--data", ""), ("--data=",)])
def test_an_argument_that_a_shell_has_left_empty_is_not_the_folder_one_is_in(capsys, arguments):
    with pytest.raises(SystemExit) as end:
        main(["dataset", "list", *arguments])
    assert end.value.code == 2
    assert "an argument is empty: is a variable of the shell not set?" in capsys.readouterr().err
