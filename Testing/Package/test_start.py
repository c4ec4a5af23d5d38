"""The bootstrap start.py; programs are recorded instead of run, so that nothing is installed."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def start(tmp_path, monkeypatch):
    """start.py of a made-up checkout; its list `called` holds the programs that it ran, `codes` their exit codes."""
    for name in ("start.py", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    spec = importlib.util.spec_from_file_location("start_of_a_checkout", tmp_path / "start.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.called, module.codes = [], {}

    def call(command, cwd=None):
        words = [str(word) for word in command]
        module.called.append(words)
        kind = words[2]
        if kind == "venv" and not module.codes.get("venv"):
            python = module.venv_python()
            python.parent.mkdir(parents=True)
            python.touch()
            settings = f"home = x\nversion = {sys.version_info[0]}.{sys.version_info[1]}.0\nprompt = 'medsam-slicer'\n"
            (module.VENV / "pyvenv.cfg").write_text(settings, encoding="utf-8")
        return module.codes.get(kind, 0)

    monkeypatch.setattr(module, "call", call)
    monkeypatch.setattr(module, "torch_source", list)
    return module


def programs(start) -> list[str]:
    """Name what was run since the last question: venv, pip, pytest, ..."""
    kinds = [words[2] for words in start.called]
    start.called.clear()
    return kinds


def test_first_command_installs_with_the_tested_versions_and_the_next_one_does_not(start):
    assert start.main(["demo"]) == 0
    installation = start.called[1]
    assert installation[installation.index("-c") + 1] == str(start.ROOT / "constraints.txt")
    assert installation[-1] == f"{start.ROOT}[slicer]"
    assert programs(start) == ["venv", "pip", "MedSAMSlicerLib"]
    assert start.main(["run", "models", "list"]) == 0
    assert programs(start) == ["MedSAMSlicerLib"]


def test_tests_add_their_packages_and_the_demo_needs_no_more_after_them(start):
    start.main(["demo"])
    start.main(["test"])
    assert start.called[-2][-1].endswith("[slicer,test]")
    programs(start)
    start.main(["demo"])
    assert programs(start) == ["MedSAMSlicerLib"]


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_changed_requirements_are_installed(start, name):
    start.main(["demo"])
    programs(start)
    with (start.ROOT / name).open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    start.main(["demo"])
    assert programs(start) == ["pip", "MedSAMSlicerLib"]


def test_failed_installation_runs_nothing_and_is_tried_again(start, capsys):
    start.codes["pip"] = 1
    assert start.main(["demo"]) == 1
    assert programs(start) == ["venv", "pip"]
    assert "network" in capsys.readouterr().err
    start.codes["pip"] = 0
    assert start.main(["demo"]) == 0
    assert programs(start) == ["pip", "MedSAMSlicerLib"]


def test_failed_update_of_an_installation_is_tried_again(start):
    start.main(["demo"])
    start.codes["pip"] = 1
    start.main(["test"])
    start.codes["pip"] = 0
    programs(start)
    start.main(["demo"])
    assert programs(start) == ["pip", "MedSAMSlicerLib"]


def test_environment_that_cannot_be_made_is_reported_and_leaves_nothing(start, capsys):
    start.codes["venv"] = 1
    assert start.main(["demo"]) == 1
    assert programs(start) == ["venv"]
    assert not start.VENV.exists()
    assert "could not be made" in capsys.readouterr().err


def test_environment_of_a_removed_python_is_made_again(start):
    start.main(["demo"])
    start.venv_python().unlink()
    programs(start)
    assert start.main(["demo"]) == 0
    assert programs(start) == ["venv", "pip", "MedSAMSlicerLib"]


def test_environment_of_the_user_is_never_deleted(start, capsys):
    start.VENV.mkdir()
    settings = start.VENV / "pyvenv.cfg"
    settings.write_text("home = x\nversion = 3.1.0\n", encoding="utf-8")
    assert start.main(["demo"]) == 1
    assert settings.exists()
    assert "move it away" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "kind"), [("demo", "MedSAMSlicerLib"), ("run", "MedSAMSlicerLib"), ("test", "pytest")]
)
def test_options_and_exit_code_pass_through(start, command, kind):
    start.codes[kind] = 3
    assert start.main([command, "--option", "a b"]) == 3
    assert start.called[-1][-2:] == ["--option", "a b"]


def test_demo_consents_to_its_downloads_after_naming_them(start, capsys):
    start.main(["demo", "--out", "x"])
    assert start.called[-1][2:] == ["MedSAMSlicerLib", "demo", "--yes", "--out", "x"]
    assert "LiteMedSAM" in capsys.readouterr().out


def test_lint_runs_every_check_and_fails_when_one_does(start):
    start.codes["ruff"] = 1
    assert start.main(["lint"]) == 1
    assert programs(start)[-3:] == ["ruff", "ruff", "mypy"]


@pytest.mark.parametrize("version", [(3, 9, 18), (3, 14, 0)])
def test_unsupported_python_is_refused_with_the_supported_ones(start, monkeypatch, capsys, version):
    monkeypatch.setattr(sys, "version_info", version)
    assert start.main(["demo"]) == 1
    assert start.called == []
    assert "3.10 to 3.13" in capsys.readouterr().err


def test_missing_ensurepip_is_explained(start, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ensurepip" else object())
    assert start.main(["demo"]) == 1
    assert re.search(r"apt install python3\.\d+-venv", capsys.readouterr().err)


def test_unknown_command_shows_the_usage(start, capsys):
    assert start.main(["paint"]) == 2
    assert "python start.py COMMAND" in capsys.readouterr().err


def test_supported_pythons_are_those_of_the_package(start):
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (major, oldest), (_, newest) = start.OLDEST_PYTHON, start.NEWEST_PYTHON
    assert f'requires-python = ">={major}.{oldest},<{major}.{newest + 1}"' in pyproject
