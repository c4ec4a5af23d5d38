"""Each room of the library imports only what its table below allows. The sources are read, not run."""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parents[2] / "MedSAMSlicer"
LIBRARY = "MedSAMSlicerLib"
LONGEST_FILE = 400


@dataclass(frozen=True)
class Wall:
    """What a room may import beside itself and the standard library.

    :param at_import: rooms and packages that may be imported whenever the room is.
    :param deferred: further ones, imported only inside functions or for type checking.
    :param never_named: dotted names that need a running Slicer application, as regular expressions.
    """

    at_import: frozenset[str]
    deferred: frozenset[str] = frozenset()
    never_named: tuple[str, ...] = ()


def names(text: str) -> frozenset[str]:
    return frozenset(text.split())


APPLICATION = (r"slicer\.(mrmlScene|app|modules)\b", r"slicer\.util\.\w*Display\b")
EVERY_ROOM = names(
    "prompts model inference volume dataset evaluation training benchmark mrml store loading app headless cli"
)
WALLS = {
    "": Wall(names("")),
    "prompts": Wall(names("")),
    "store": Wall(names("")),
    "model": Wall(names("torch")),
    "inference": Wall(names("model prompts torch numpy")),
    "volume": Wall(names("prompts numpy")),
    "volume/bodies": Wall(names("prompts numpy"), deferred=names("SimpleITK")),
    "volume/dicom_segmentation": Wall(names("prompts numpy"), deferred=names("pydicom")),
    "volume/dicom_series": Wall(names("prompts numpy SimpleITK")),
    "volume/files": Wall(names("prompts numpy SimpleITK")),
    "volume/image_file": Wall(names("prompts numpy SimpleITK")),
    "volume/labels": Wall(names("prompts numpy SimpleITK")),
    "volume/metrics": Wall(names("prompts numpy SimpleITK")),
    "dataset": Wall(names("prompts volume store numpy")),
    "evaluation": Wall(names("prompts volume dataset numpy")),
    "training": Wall(names("prompts model inference volume dataset evaluation store loading torch numpy")),
    "benchmark": Wall(names("prompts model inference volume store loading torch numpy")),
    "training/__main__": Wall(names("cli")),
    "mrml": Wall(names("volume prompts numpy slicer vtk"), never_named=APPLICATION),
    "loading": Wall(names("store"), deferred=names("model inference")),
    "headless": Wall(names("volume mrml prompts numpy slicer slicer_core vtk")),
    # Light at import, so that `medsam-slicer models list` answers at once and without slicer-core.
    "cli": Wall(names("store"), deferred=EVERY_ROOM | names("numpy")),
    # A running Slicer: Qt and the application. Torch may not be installed yet.
    "app": Wall(
        names("mrml volume prompts store dataset evaluation numpy slicer qt ctk vtk"),
        deferred=names("loading inference model torch PyTorchUtils SampleData")
        | names("qSlicerSegmentationsEditorEffectsPythonQt SegmentEditorMedSAMLib"),
    ),
    "__main__": Wall(names("cli")),
    # What Slicer loads at its start: torch may not be installed yet.
    "module": Wall(names("numpy slicer qt vtk app"), deferred=EVERY_ROOM - names("cli headless") | names("numpy ctk")),
    # What the module imports at once: as light as the module itself.
    "app/console": Wall(names(""), deferred=names("mrml volume store loading inference")),
    "effect": Wall(
        names("numpy slicer qt vtk ctk SegmentEditorEffects SegmentEditorMedSAMLib"),
        deferred=EVERY_ROOM - names("cli headless") | names("qSlicerSegmentationsEditorEffectsPythonQt"),
    ),
}


def room_of(path: Path) -> str:
    """Name the entry of WALLS that a file is judged by: that of the file itself before that of its folder."""
    parts = path.relative_to(SOURCES).with_suffix("").parts
    if parts[0] != LIBRARY:
        return "effect" if parts[0].startswith("SegmentEditor") else "module"
    file = "/".join(parts[1:])
    if file in WALLS:
        return file
    return "" if file == "__init__" else parts[1]


def violations(source: str, room: str) -> list[str]:
    """List what a source of a room imports or names against the room's wall, with line numbers."""
    wall = WALLS[room]
    own = room.split("/")[0]
    found = []
    for node, deferred in _nodes(ast.parse(source)):
        allowed = wall.at_import | wall.deferred if deferred else wall.at_import
        for name in _imported(node):
            if name != own and name not in allowed and name not in sys.stdlib_module_names:
                found.append(
                    f"line {node.lineno}: {room or LIBRARY} must not import {name}{'' if deferred else ' at import'}"
                )
        for pattern in wall.never_named:
            found += [f"line {node.lineno}: {name}" for name in _named(node) if re.fullmatch(pattern, name)]
    return found


def _nodes(tree: ast.AST, deferred: bool = False):
    """Walk a tree, telling for each node whether it runs later than the import of its file, or never."""
    for node in ast.iter_child_nodes(tree):
        yield node, deferred
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for part, later in ((node.body, True), (node.orelse, deferred)):
                yield from ((child, later) for child in part)
                for child in part:
                    yield from _nodes(child, later)
        else:
            yield from _nodes(node, deferred or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)))


def _imported(node: ast.AST) -> list[str]:
    """Name the rooms and packages that an import statement reaches."""
    if isinstance(node, ast.Import):
        return [_room_or_package(alias.name) for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    if node.level:
        return [f"'{'.' * node.level}{node.module or ''}' (write imports absolute)"]
    if node.module == LIBRARY:
        return [alias.name for alias in node.names if not alias.name.startswith("__")]
    return [_room_or_package(str(node.module))]


def _room_or_package(dotted: str) -> str:
    root, *rest = dotted.split(".")
    if root == LIBRARY:
        return rest[0] if rest else f"{LIBRARY} (name its room)"
    return root


def _named(node: ast.AST) -> list[str]:
    """Spell the dotted names that an expression or an import uses."""
    if isinstance(node, ast.Attribute):
        return [ast.unparse(node)]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return []


SECTIONS = sorted((SOURCES / LIBRARY / "app").glob("*_section.py"))


@pytest.mark.parametrize("path", SECTIONS, ids=lambda path: path.stem)
def test_no_section_of_the_panel_knows_the_panel_or_calls_another_section(path):
    # (The lower part of "training" holds the upper one, "dataset".)
    others = "|".join(each.stem.removesuffix("_section") for each in SECTIONS)
    source = path.read_text(encoding="utf-8")
    assert not re.search(r"app\.panel\b", source)
    assert re.findall(rf"panel\.(?:{others})\.", source) == []


FILES = sorted(SOURCES.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCES).as_posix())
def test_file_imports_only_what_its_room_may(path):
    room = room_of(path)
    assert room in WALLS, f"the room {room!r} has no wall: add it to WALLS"
    assert violations(path.read_text(encoding="utf-8"), room) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCES).as_posix())
def test_file_is_one_concept_long(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("model", "import numpy"),
        ("model", "from MedSAMSlicerLib.inference.predictor import Predictor"),
        ("inference", "def f():\n    import slicer"),
        ("volume", "if True:\n    import torch.nn.functional as F"),
        ("volume", "from MedSAMSlicerLib import model"),
        ("volume", "from MedSAMSlicerLib.volume import files\nimport SimpleITK"),
        ("volume", "from ..model import build_model"),
        ("volume", "import MedSAMSlicerLib"),
        ("volume", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch"),
        ("volume/files", "import slicer"),
        ("mrml", "import qt"),
        ("mrml", "from slicer import vtkMRMLScene, mrmlScene"),
        ("mrml", "def f():\n    return slicer.modules.volumes.logic()"),
        ("mrml", "slicer.util.errorDisplay('no')"),
        ("mrml", "try:\n    import torch\nexcept ImportError:\n    pass"),
        ("store", "import numpy as np"),
        ("loading", "from MedSAMSlicerLib.model import load_checkpoint"),
        ("cli", "from MedSAMSlicerLib.volume.files import read_volume"),
        ("cli", "import torch"),
        ("cli", "def f():\n    import torch"),
        ("cli", "if TYPE_CHECKING:\n    pass\nelse:\n    import numpy"),
        ("module", "from MedSAMSlicerLib.inference.predictor import Predictor"),
        ("module", "class Logic:\n    import torch"),
        ("module", "import PyTorchUtils"),
    ],
)
def test_breach_of_a_wall_is_found(room, source):
    assert len(violations(source, room)) == 1


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("prompts", "from __future__ import annotations\nimport math"),
        ("inference", "import numpy as np\nfrom MedSAMSlicerLib.model import MedSAM\nfrom torch import nn"),
        ("volume/files", "import SimpleITK as sitk\nfrom MedSAMSlicerLib.volume.geometry import AXES"),
        ("mrml", "from vtk.util.numpy_support import vtk_to_numpy\nimport slicer.util\nscene = node.GetScene()"),
        (
            "cli",
            "from MedSAMSlicerLib import __version__\ndef f():\n    from MedSAMSlicerLib.volume.files import Volume",
        ),
        ("cli", "if TYPE_CHECKING:\n    from MedSAMSlicerLib.inference.predictor import Predictor"),
        (
            "module",
            "import qt\nclass Logic:\n    def f(self):\n        from MedSAMSlicerLib.loading import load_predictor",
        ),
    ],
)
def test_import_inside_the_walls_is_accepted(room, source):
    assert violations(source, room) == []
