"""What README and Docs say is there: their links, the commands and options, the keys, the models."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

from MedSAMSlicerLib import __version__
from MedSAMSlicerLib.cli.main import main
from MedSAMSlicerLib.store.catalog import WEIGHTS

ROOT = Path(__file__).resolve().parents[2]
TEXTS = [*ROOT.glob("*.md"), *ROOT.glob("Docs/*.md"), *ROOT.glob("Testing/*/README.md")]
# Two screens.
LONGEST_README = 110


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_and_picture_is_there(path):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (path.parent / link).exists()] == []


def test_every_picture_is_shown():
    shown = "".join(path.read_text(encoding="utf-8") for path in TEXTS)
    assert [path.name for path in (ROOT / "Docs").rglob("*.[ps][nv]g") if path.name not in shown] == []


def help_of(*words: str) -> str:
    told = io.StringIO()
    with contextlib.redirect_stdout(told), pytest.raises(SystemExit):
        main([*words, "--help"])
    return told.getvalue()


@pytest.fixture(scope="module")
def commands() -> dict[str, str]:
    """Return the help of each command, with that of its own commands: name -> text."""
    usages = {}
    for name in re.findall(r"^    (\w+) ", help_of(), re.MULTILINE):
        usages[name] = help_of(name)
        if "..." in usages[name].split("\n\n")[0]:
            inner = re.findall(r"^    (\w+)(?: |$)", usages[name], re.MULTILINE)
            usages[name] += "".join(help_of(name, each) for each in inner)
    return usages


def test_every_command_and_option_that_is_written_down_is_there(commands):
    unknown = []
    for path in TEXTS:
        for block in re.findall(r"```\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL):
            joined = re.sub(r"\\\n|\n {12,}", " ", block)
            for line in re.findall(r"^(?:medsam-slicer|python3 start\.py run) (.*)$", joined, re.MULTILINE):
                usage = commands.get(line.split()[0])
                unknown += [f"{path.name}: {line}"] * (usage is None)
                unknown += [f"{path.name}: {each}" for each in re.findall(r"--[a-z-]+", line) if each not in usage]
    assert unknown == []


def test_every_command_is_written_down(commands):
    listed = set(re.findall(r"^medsam-slicer (\w+)", text_of("Docs/CommandLine.md"), re.MULTILINE))
    assert listed == set(commands)


def test_the_keys_are_those_of_the_module():
    source = (ROOT / "MedSAMSlicer" / "MedSAMSlicerLib" / "app" / "shortcuts.py").read_text(encoding="utf-8")
    keys = set(re.findall(r'^ +\("([A-Z][^"]*)", ui\.', source, re.MULTILINE))
    table = text_of("Docs/Panel.md").split("## Keys")[1].split("##")[0]
    assert keys == set(re.findall(r"Shift\+\w", table))
    assert keys


@pytest.mark.parametrize("weights", WEIGHTS, ids=lambda weights: weights.name)
def test_every_model_is_told_with_its_license_and_checksum(weights):
    text = text_of("Docs/Models.md")
    (row,) = (line for line in text.splitlines() if f"`{weights.name}`" in line and "SHA" not in line and "|" in line
              and not re.fullmatch(r"\| `\w+` \| `[0-9a-f]{64}` \|", line))  # fmt: skip
    assert weights.license in row
    assert weights.sha256 is None or f"| `{weights.name}` | `{weights.sha256}` |" in text


def test_the_readme_takes_two_screens_and_the_version_is_one():
    assert len(text_of("README.md").splitlines()) <= LONGEST_README
    assert f"\nversion: {__version__}\n" in text_of("CITATION.cff")
