"""What the gates of Slicer's Extensions Index would say of this extension (its scripts/check_description_files.py).

Asked of the files here instead of the network: an address is taken for what lies at its path in this tree.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
(DESCRIPTION,) = (path for path in ROOT.glob("*.json"))
CMAKE = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
LARGEST_REPOSITORY = 100_000_000
# Slicer's slicer-extension-catalog-entry-schema-v1.0.2.json: type of each property; the first three are required.
SCHEMA_URL = "https://raw.githubusercontent.com/Slicer/Slicer/main/Schemas/slicer-extension-catalog-entry-schema-v1.0."
PROPERTIES = {
    **{"$schema": str, "category": str, "scm_url": str},
    **{"scm_revision": str, "scm_type": str, "build_dependencies": list, "dicom_support_rule": str},
    **{"build_subdirectory": str, "enabled": bool, "tier": int},
}
REQUIRED = list(PROPERTIES)[:3]
# Made by tools, and not part of a clone.
NOT_CLONED = {".venv", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", "build", "dist", "medsam-demo"}


@pytest.fixture
def entry() -> dict[str, object]:
    return json.loads(DESCRIPTION.read_text(encoding="utf-8"))


def cloned_files() -> list[Path]:
    """List the files of a clone."""
    return [
        path
        for path in ROOT.rglob("*")
        if path.is_file()
        and not {part for part in path.relative_to(ROOT).parts if part in NOT_CLONED or part.endswith(".egg-info")}
        and path.relative_to(ROOT).parts[0] not in (".git", "shared")
    ]


def addresses(variable: str) -> list[str]:
    """Read the addresses of a variable as the gate does, which wants them on one line."""
    found = re.findall(rf'set\s*\({variable}\s*"([^"\n]+)"[ ]*\)', CMAKE, re.IGNORECASE)
    assert len(found) == 1, f"{variable} is not set once, on one line"
    return found[0].split()


def test_the_description_fits_the_schema(entry):
    assert re.fullmatch(re.escape(SCHEMA_URL) + r"[12]\.json#", entry["$schema"])
    assert set(REQUIRED) <= set(entry) <= set(PROPERTIES)
    for name, value in entry.items():
        assert type(value) is PROPERTIES[name], name
    assert 1 <= entry["tier"] <= 5
    assert entry["category"] == "Segmentation"
    assert entry["build_dependencies"] == re.findall(r"\w+", re.search(r'EXTENSION_DEPENDS "([^"]*)"', CMAKE)[1])


def test_names_of_extension_description_project_and_repository_belong_together(entry):
    name = DESCRIPTION.stem
    assert re.findall(r"project\s*\(\s*([^\s\)]+)", CMAKE, re.IGNORECASE)[0] == name
    assert not name.lower().startswith("slicer")
    assert entry["scm_url"].rsplit("/", 1)[1] == f"Slicer{name}"
    assert f'set(EXTENSION_HOMEPAGE "{entry["scm_url"]}")' in CMAKE
    assert f'Homepage = "{entry["scm_url"]}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("variable", ["EXTENSION_ICONURL", "EXTENSION_SCREENSHOTURLS"])
def test_every_address_leads_to_a_picture_of_this_repository(entry, variable):
    here = entry["scm_url"].replace("github.com", "raw.githubusercontent.com") + f"/{entry['scm_revision']}/"
    for address in addresses(variable):
        assert address.startswith(here)
        assert (ROOT / address.removeprefix(here)).read_bytes().startswith(b"\x89PNG\r\n")


def test_the_description_is_one_or_two_sentences():
    (text,) = re.findall(r'^set\(EXTENSION_DESCRIPTION "([^"\n]+)"\)$', CMAKE, re.MULTILINE)
    assert 1 <= len(re.findall(r"\.(?:\s|$)", text)) <= 2


def test_there_is_a_license_under_a_name_that_is_looked_for_and_the_homepage_names_it():
    text = (ROOT / "LICENSE.txt").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "Apache-2.0" in README


def test_the_homepage_tells_name_picture_modules_samples_publication_and_removal():
    assert README.startswith(f"# {DESCRIPTION.stem} ")
    assert re.search(r"!\[[^\]]+\]\([^)]+\.png\)", README)
    for module in ("The module *MedSAM*", "The effect *MedSAM*", "The module *Sample Data*"):
        assert len(re.findall(rf"^- {re.escape(module)} [a-z]", README, re.MULTILINE)) == 1, module
    assert "## Cite" in README
    assert "Nature Communications" in README
    assert re.search(r"cache\s+remove all", README)


def test_all_lines_end_as_on_unix_and_the_repository_is_small():
    files = cloned_files()
    for path in files:
        content = path.read_bytes()
        assert b"\0" in content or b"\r\n" not in content, f"{path} has Windows' line ends"
    size = sum(path.stat().st_size for path in files)
    counted = subprocess.run(["git", "count-objects", "-v"], cwd=ROOT, capture_output=True, text=True)
    size += 1024 * sum(int(number) for number in re.findall(r"^size(?:-pack)?: (\d+)$", counted.stdout, re.MULTILINE))
    assert size < LARGEST_REPOSITORY


def at_file_scope(path: Path) -> list[str]:
    """List what a source does when it is imported, beyond imports, definitions and constants."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return [f"{path.relative_to(ROOT)}:{node.lineno} {ast.unparse(node)[:60]}" for node in done_in(body)]


def done_in(body: list[ast.stmt]) -> list[ast.stmt]:
    definitions = (ast.Import, ast.ImportFrom, ast.ClassDef, ast.FunctionDef, ast.Assign, ast.AnnAssign, ast.AugAssign)
    done: list[ast.stmt] = []
    for node in body:
        if isinstance(node, ast.If):
            done += done_in([*node.body, *node.orelse])
        elif not isinstance(node, definitions) and not (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        ):
            done.append(node)
    return done


def test_nothing_is_done_at_file_scope_of_what_slicer_loads():
    module = ROOT / "MedSAMSlicer"
    # Programs, and what only they load.
    outside = {"cli", "headless", "__main__.py"}
    sources = [path for path in module.rglob("*.py") if not outside & set(path.relative_to(module).parts)]
    assert len(sources) > 100
    assert [line for path in sources for line in at_file_scope(path)] == []
    # What Slicer looks through at its start has no constant that is computed, either.
    for path in [module / "MedSAMSlicer.py", *(module / "SegmentEditorMedSAMLib").glob("*.py")]:
        constants = [
            node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, (ast.Assign, ast.If))
        ]
        assert [node for each in constants for node in ast.walk(each) if isinstance(node, ast.Call)] == [], path
