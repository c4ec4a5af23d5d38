"""Set up and run MedSAMSlicer from this folder; needs nothing but Python: `python start.py demo`.

Everything goes into the virtual environment `.venv` beside this file. Delete that folder to start over.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = VENV / "installed.json"  # what the last complete installation was made from
PROMPT = "medsam-slicer"
OLDEST_PYTHON, NEWEST_PYTHON = (3, 10), (3, 13)
TORCH_FOR_CPU = "https://download.pytorch.org/whl/cpu/"

USAGE = """\
usage: python start.py COMMAND [ARGUMENTS]

  demo [OPTIONS]      fetch the model and two sample scans, segment them, and write pictures
  run ARGUMENTS       run the command line: python start.py run --help
  test [OPTIONS]      run the tests (the options are those of pytest)
  lint                check the code with ruff and mypy
"""
EXTRAS = {"demo": {"slicer"}, "run": {"slicer"}, "test": {"slicer", "test"}, "lint": {"slicer", "test"}}


def main(arguments: list[str]) -> int:
    """Prepare the environment for a command, run it, and return its exit code."""
    if arguments and arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    if not arguments or arguments[0] not in EXTRAS:
        print(USAGE, end="", file=sys.stderr)
        return 2
    command, *options = arguments
    try:
        check_python()
        install(EXTRAS[command])
    except SetupError as error:
        print(f"start.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("start.py: interrupted; run the same command again to go on.", file=sys.stderr)
        return 130
    return run(command, options)


class SetupError(Exception):
    """Say why the environment cannot be prepared, and what to do about it."""


def check_python() -> None:
    """Refuse a Python that the packages do not support or that cannot make virtual environments."""
    if not OLDEST_PYTHON <= sys.version_info[:2] <= NEWEST_PYTHON:
        raise SetupError(
            f"Python {platform.python_version()} is not supported. Run start.py with Python "
            f"{'.'.join(map(str, OLDEST_PYTHON))} to {'.'.join(map(str, NEWEST_PYTHON))} (https://www.python.org/downloads)."
        )
    if not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
        version = "{}.{}".format(*sys.version_info)
        raise SetupError(
            f"this Python cannot make virtual environments. On Debian or Ubuntu run "
            f"'sudo apt install python{version}-venv' and try again."
        )


def install(extras: set[str]) -> None:
    """Install this checkout with its extras into `.venv`, unless that is already so."""
    python = venv_python()
    fingerprint = installation_fingerprint()
    stamp = json.loads(STAMP.read_text(encoding="utf-8")) if STAMP.exists() else {}
    if python.exists() and stamp.get("fingerprint") == fingerprint:
        if extras <= set(stamp["extras"]):
            return
        extras = extras | set(stamp["extras"])
    STAMP.unlink(missing_ok=True)
    make_environment()
    options = ["-c", str(ROOT / "constraints.txt"), *torch_source()]
    print("Installing PyTorch, 3D Slicer's core and the rest into .venv (once, some minutes) ...", flush=True)
    target = f"{ROOT}[{','.join(sorted(extras))}]"
    code = call([python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", *options, "-e", target])
    if code:
        raise SetupError(
            f"pip could not install the packages (exit code {code}, reason above). Check the network "
            f"and the free disk space and run the same command again; if that does not help, delete {VENV} first."
        )
    STAMP.write_text(json.dumps({"fingerprint": fingerprint, "extras": sorted(extras)}), encoding="utf-8")


def make_environment() -> None:
    """Create `.venv`, or make it again when it is ours and its Python is gone or not the one running."""
    settings = VENV / "pyvenv.cfg"
    found = settings.read_text(encoding="utf-8") if settings.exists() else ""
    if venv_python().exists() and "\nversion = {}.{}.".format(*sys.version_info) in found:
        return
    if VENV.exists():
        if f"prompt = {PROMPT!r}" not in found:
            raise SetupError(f"{VENV} is not from start.py and does not fit this Python: move it away and try again.")
        print("Replacing .venv, whose Python is another one ...", flush=True)
        shutil.rmtree(VENV)
    print(f"Creating .venv with Python {platform.python_version()} ...", flush=True)
    if call([sys.executable, "-m", "venv", "--prompt", PROMPT, VENV]):
        shutil.rmtree(VENV, ignore_errors=True)
        raise SetupError(f"the virtual environment {VENV} could not be made (reason above).")


def installation_fingerprint() -> str:
    """Digest what decides about the installation; the folder counts, as an environment cannot be moved."""
    parts = [
        (ROOT / "pyproject.toml").read_bytes(),
        (ROOT / "constraints.txt").read_bytes(),
        "{}.{}".format(*sys.version_info).encode(),
        str(ROOT).encode(),
    ]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def torch_source() -> list[str]:
    """Name PyTorch's own index on Linux without an NVIDIA GPU, where PyPI's file brings gigabytes of CUDA along."""
    if platform.system() != "Linux" or shutil.which("nvidia-smi"):
        return []
    try:
        urllib.request.urlopen(TORCH_FOR_CPU, timeout=10).close()
    except OSError:
        print(f"{TORCH_FOR_CPU} cannot be reached: taking PyTorch from where pip finds it.", flush=True)
        return []
    return ["--extra-index-url", TORCH_FOR_CPU]


def venv_python() -> Path:
    """Return the interpreter of `.venv`, which works without activation."""
    return VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def run(command: str, options: list[str]) -> int:
    """Run a command of USAGE inside `.venv` and return its exit code."""
    python = venv_python()
    if command == "test":
        return call([python, "-m", "pytest", *options], cwd=ROOT)
    if command == "lint":
        checks = [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]]
        return max([call([python, "-m", *check], cwd=ROOT) for check in checks])
    if command == "demo":
        print("The demo fetches LiteMedSAM and two sample scans once, about 75 MB in all.", flush=True)
        options = ["demo", "--yes", *options]
    return call([python, "-m", "MedSAMSlicerLib", *options])


def call(command: list[str | Path], cwd: Path | None = None) -> int:
    """Run a program and return its exit code as a shell would; Ctrl-C reaches it too, so wait for its answer."""
    with subprocess.Popen(command, cwd=cwd) as process:
        while True:
            try:
                code = process.wait()
                return code if code >= 0 else 128 - code
            except KeyboardInterrupt:
                continue


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
