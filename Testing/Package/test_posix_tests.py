"""What is skipped on Windows is what needs a POSIX system, and nothing else is."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from posix_tests import NEEDS_POSIX, missing_on_windows

TESTING = Path(__file__).resolve().parents[1]
# How a test that Windows can't run is told from the others.
POSIX = re.compile(
    r"RLIMIT|SIGKILL|SIGXFSZ|send_signal\(signal\.SIGINT|\.chmod\(|symlink_to|\"bash\"|/dev/|/proc/|os\.fork|mkfifo"
)


def statements(path: Path) -> dict[str, str]:
    """Read what a file defines: name -> source."""
    text = path.read_text(encoding="utf-8")
    named = {}
    for node in ast.parse(text).body:
        name = node.targets[0].id if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) else ""
        named[getattr(node, "name", name)] = ast.get_source_segment(text, node) or ""
    return named


def needing_posix(path: Path) -> list[str]:
    """List the tests of a file whose source, or that of what they use of the file, needs POSIX."""
    named = statements(path)
    words = {name: set(re.findall(r"\w+", source)) for name, source in named.items()}
    needing = {name for name, source in named.items() if POSIX.search(source)} - {""}
    while more := {name for name in named if name and name not in needing and words[name] & needing}:
        needing |= more
    return sorted(name for name in needing if name.startswith("test_"))


@pytest.mark.parametrize("path", sorted(TESTING.glob("*/test_*.py")), ids=lambda path: path.name)
def test_every_test_that_needs_posix_is_named(path):
    if path == Path(__file__):
        return
    unnamed = [name for name in needing_posix(path) if not missing_on_windows(f"{path.name}::{name}")]
    assert unnamed == []


def test_every_name_is_that_of_a_test():
    files = {path.name: path for path in TESTING.glob("*/test_*.py")}
    inputs = (TESTING / "Mrml" / "bad_input.py").read_text(encoding="utf-8")
    for name in NEEDS_POSIX:
        file, _, test = name.partition("::")
        assert file in files, name
        function, _, parameter = test.partition("[")
        assert not function or function in statements(files[file]), name
        assert not parameter or f'"{parameter.rstrip("]")}",' in inputs, name


def test_a_parameter_or_a_file_is_found_in_the_name_of_a_test():
    bad = "Testing/Mrml/test_bad_input.py::test_bad_input_is_answered_in_one_line_and_changes_nothing"
    assert missing_on_windows(f"{bad}[symbolic link]")
    assert missing_on_windows(f"{bad}[hard link]") is None
    assert missing_on_windows("Testing/Gui/test_training_section.py::test_anything[x/y]")
    assert missing_on_windows("Testing/Core/test_download.py::test_a_file_is_fetched") is None
