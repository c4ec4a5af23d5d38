"""What users get: the files that CMake installs for Slicer, and the package that pip installs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "MedSAMSlicer"
STUB = Path(__file__).parent / "SlicerStub"

SEGMENT_A_SLICE = """
import numpy as np
from MedSAMSlicerLib.inference.predictor import Predictor
from MedSAMSlicerLib.model import build_model
from MedSAMSlicerLib.prompts import Box
predictor = Predictor(build_model("tiny"), device="cpu")
image = np.arange(40 * 30, dtype=np.uint8).reshape(40, 30)
prediction = predictor.decode(predictor.encode(image), [Box(4, 5, 20, 30)])
assert prediction.probabilities.shape == (1, 40, 30), prediction.probabilities.shape
"""


def listed_files(name: str) -> set[str]:
    """Read a list of MedSAMSlicer/CMakeLists.txt."""
    text = (MODULE / "CMakeLists.txt").read_text(encoding="utf-8")
    found = re.search(rf"set\({name}\s+([^)]*)\)", text)
    assert found, f"MedSAMSlicer/CMakeLists.txt sets no {name}"
    return set(found[1].replace("${MODULE_NAME}", "MedSAMSlicer").split())


def module_files() -> set[str]:
    """List the files below MedSAMSlicer/ that make the module, without what tools leave there."""
    paths = (path.relative_to(MODULE) for path in MODULE.rglob("*") if path.is_file())
    made_by_tools = re.compile(r"(^|/)(__pycache__|[^/]*\.egg-info|\.[^/]*)(/|$)|^CMakeLists\.txt$")
    return {path.as_posix() for path in paths if not made_by_tools.search(path.as_posix())}


def cmake(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("cmake", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert program, "CMake is not installed: pip install cmake"
    return subprocess.run([program, *arguments], capture_output=True, text=True)


def configure(source: Path, build: Path) -> subprocess.CompletedProcess[str]:
    """Configure a source folder with the stand-in for Slicer; nothing is built, so no build program is needed."""
    return cmake(
        *("-S", source, "-B", build, "-G", "Unix Makefiles", f"-DSlicer_DIR={STUB}", "-DCMAKE_MAKE_PROGRAM=none"),
        f"-DCMAKE_TOOLCHAIN_FILE={STUB / 'NoCompiler.cmake'}",
    )


@pytest.fixture(scope="module")
def build(tmp_path_factory) -> Path:
    """The configured extension."""
    folder = tmp_path_factory.mktemp("build")
    result = configure(ROOT, folder)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="module")
def installed_modules(build, tmp_path_factory) -> Path:
    """Slicer's module folder after the extension was installed."""
    prefix = tmp_path_factory.mktemp("installed")
    result = cmake("--install", build, "--prefix", prefix)
    assert result.returncode == 0, result.stderr
    return prefix / "lib/Slicer-5.12/qt-scripted-modules"


def run_python(code: str, folder: Path) -> None:
    """Run code in a fresh Python that finds a folder's packages before any other."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_every_script_on_disk_is_listed_for_the_package_and_no_other():
    assert listed_files("MODULE_PYTHON_SCRIPTS") == {name for name in module_files() if name.endswith(".py")}


def test_every_resource_on_disk_is_listed_for_the_package_and_no_other():
    assert listed_files("MODULE_PYTHON_RESOURCES") == {name for name in module_files() if not name.endswith(".py")}


def test_every_test_for_slicer_is_registered(build):
    registered = {Path(line) for line in (build / "registered_tests.txt").read_text(encoding="utf-8").splitlines()}
    assert registered == {MODULE / "MedSAMSlicer.py", *(ROOT / "Testing" / "InSlicer").glob("*.py")}


def test_installed_tree_holds_exactly_the_module(installed_modules):
    installed = {path for path in installed_modules.rglob("*") if path.is_file()}
    assert {path.relative_to(installed_modules).as_posix() for path in installed} == module_files()


def test_installed_tree_imports_and_segments_a_slice(installed_modules):
    library = installed_modules / "MedSAMSlicerLib"
    modules = [
        ".".join(path.relative_to(installed_modules).with_suffix("").parts)
        for path in library.rglob("*.py")
        # "app" is made for a running Slicer, with Qt: Testing/Gui.
        if path.name not in ("__init__.py", "__main__.py") and path.parent.name != "app"
    ]
    imports = "\n".join(f"import {module}" for module in modules)
    check = f"import pathlib; assert pathlib.Path(MedSAMSlicerLib.__file__).parent == pathlib.Path({str(library)!r})"
    run_python("\n".join([imports, check, SEGMENT_A_SLICE]), installed_modules)


@pytest.mark.parametrize(
    ("commands", "complaint"),
    [
        ("slicerMacroBuildScriptedModule(NAME M SCRIPTS M.py Lib/missing.py)", "nonexistent file 'Lib/missing.py'"),
        ("slicerMacroBuildScriptedModule(NAME M SCRIPT M.py)", "SCRIPTS missing"),
        ("slicer_add_python_unittest(SCRIPT M.py ARGS x)", "unknown"),
        ("slicer_add_python_unittest(SCRIPT Lib/M.py)", "relative folder"),
    ],
)
def test_stand_in_for_slicer_is_strict(tmp_path, commands, complaint):
    (tmp_path / "M.py").touch()
    project = ["cmake_minimum_required(VERSION 3.20)", "project(M)", "find_package(Slicer REQUIRED)"]
    text = "\n".join([*project, "include(${Slicer_USE_FILE})", commands])
    (tmp_path / "CMakeLists.txt").write_text(text, encoding="utf-8")
    result = configure(tmp_path, tmp_path / "build")
    assert result.returncode != 0
    assert complaint in " ".join(result.stderr.split())


def test_every_package_of_the_library_is_found_by_setuptools():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    assert settings["packages"]["find"] == {"where": ["MedSAMSlicer"], "include": ["MedSAMSlicerLib*"]}
    folders_with_sources = {path.parent for path in (MODULE / "MedSAMSlicerLib").rglob("*.py")}
    assert [folder for folder in folders_with_sources if not (folder / "__init__.py").exists()] == []


def test_version_has_a_single_source():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in pyproject["project"]
    assert "version" in pyproject["project"]["dynamic"]
    package, attribute = pyproject["tool"]["setuptools"]["dynamic"]["version"]["attr"].rsplit(".", 1)
    source = (MODULE / package / "__init__.py").read_text(encoding="utf-8")
    assert re.findall(rf'^{attribute} = "(\d+\.\d+\.\d+)"$', source, re.MULTILINE)


@pytest.mark.parametrize(
    "code",
    [
        "import MedSAMSlicerLib",
        "import MedSAMSlicerLib.loading, MedSAMSlicerLib.store.samples, MedSAMSlicerLib.store.weights",
        "from MedSAMSlicerLib.cli.main import main; main(['models', 'list'])",
    ],
)
def test_light_parts_import_no_heavy_package(code, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDSAM_SLICER_HOME", str(tmp_path))
    heavy = "{'torch', 'SimpleITK', 'vtk', 'vtkmodules', 'slicer'}"
    run_python(f"{code}\nimport sys\nfound = {heavy} & set(sys.modules)\nassert not found, found", MODULE)
