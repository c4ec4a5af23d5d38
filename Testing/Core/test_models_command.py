from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from Core.file_server import FileServer
from MedSAMSlicerLib.cli import models, progress
from MedSAMSlicerLib.cli.progress import ProgressBar
from MedSAMSlicerLib.store.catalog import Weights
from MedSAMSlicerLib.store.weights import WeightsMissing, WeightsStore

CONTENT = b"weights " * 250_000
Command = Callable[..., int]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def run(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run `medsam-slicer models ...` on a catalog with weights that can be fetched and weights that cannot."""
    lite = Weights(
        "lite", "LiteMedSAM", "lite", "lite", "Apache-2.0", "lite.pth", "https://example.org/lite",
        (server.serve("/lite.pth", CONTENT),), len(CONTENT), hashlib.sha256(CONTENT).hexdigest(),
    )  # fmt: skip
    medsam = Weights("vit_b", "MedSAM ViT-B", "vit_b", "medsam", "MIT", "medsam.pth", "https://example.org/vit_b")
    monkeypatch.setenv("MEDSAM_SLICER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(models, "WeightsStore", functools.partial(WeightsStore, catalog=(lite, medsam)))

    def run_command(*arguments: str) -> int:
        parser = argparse.ArgumentParser()
        models.add_parser(parser.add_subparsers())
        parsed = parser.parse_args(["models", *arguments])
        code: int = parsed.run(parsed)
        return code

    return run_command


@pytest.fixture
def lite_file(tmp_path: Path) -> Path:
    return tmp_path / "home" / "weights" / "lite.pth"


def test_list_shows_what_is_known_and_what_is_here(
    run: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run("list") == 0
    header, lite, medsam, *_, folder = capsys.readouterr().out.splitlines()
    assert header.split() == ["NAME", "MODEL", "SIZE", "LICENSE", "STATE", "SOURCE"]
    assert lite.split()[:6] == ["lite", "LiteMedSAM", "2.0", "MB", "Apache-2.0", "absent"]
    assert lite.split()[6].startswith("127.0.0.1")
    assert medsam.endswith("MIT         absent  by hand: https://example.org/vit_b")
    assert folder == f"Folder: {tmp_path / 'home' / 'weights'}"

    run("fetch", "lite", "--yes")
    capsys.readouterr()
    run("list")
    assert " present " in capsys.readouterr().out.splitlines()[1]


def test_fetch_says_what_from_where_and_where_to(
    run: Command, server: FileServer, capsys: pytest.CaptureFixture[str], lite_file: Path
) -> None:
    assert run("fetch", "lite", "--yes") == 0
    out, err = capsys.readouterr()
    for fact in ("LiteMedSAM", "2.0 MB", "Apache-2.0", "https://example.org/lite", server.host, str(lite_file)):
        assert fact in out
    assert "100 % 2.0/2.0 MB" in err
    assert lite_file.read_bytes() == CONTENT


def test_fetch_refuses_where_nobody_can_be_asked(
    run: Command,
    server: FileServer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert run("fetch", "lite") == 2
    assert "--yes" in capsys.readouterr().err
    assert server.requests == []


@pytest.mark.parametrize(
    ("answer", "code"), [("y\n", 0), ("Yes\n", 0), ("n\n", 1), ("\n", 1)], ids=["y", "Yes", "n", "enter"]
)
def test_fetch_downloads_only_after_a_yes(
    run: Command, lite_file: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    assert run("fetch", "lite") == code
    assert lite_file.exists() == (code == 0)


def test_fetch_of_weights_that_are_here_asks_nobody(
    run: Command, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("fetch", "lite", "--yes")
    server.requests.clear()
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert run("fetch", "lite") == 0
    assert server.requests == []


def test_fetch_of_weights_without_a_source_tells_how_to_import_them(run: Command) -> None:
    with pytest.raises(WeightsMissing, match=r"medsam\.pth from https://example.org/vit_b .* models import vit_b FILE"):
        run("fetch", "vit_b", "--yes")


def test_import_brings_a_file_and_remove_takes_it_away(run: Command, tmp_path: Path, lite_file: Path) -> None:
    (tmp_path / "mine.pth").write_bytes(CONTENT)
    assert run("import", "lite", str(tmp_path / "mine.pth")) == 0
    assert lite_file.read_bytes() == CONTENT
    assert run("remove", "lite") == 0
    assert not lite_file.exists()


def test_verify_fails_when_something_is_damaged(
    run: Command, capsys: pytest.CaptureFixture[str], lite_file: Path
) -> None:
    run("fetch", "lite", "--yes")
    assert run("verify") == 0
    status = lite_file.stat()
    lite_file.write_bytes(CONTENT[:-1] + b"\0")
    os.utime(lite_file, ns=(status.st_atime_ns, status.st_mtime_ns))
    capsys.readouterr()
    assert run("verify") == 1
    out = capsys.readouterr().out
    assert "lite: DAMAGED" in out
    assert "vit_b: absent" in out


@pytest.mark.parametrize("arguments", [("fetch", "huge", "--yes"), ("remove", "huge"), ("import", "huge", "file")])
def test_an_unknown_name_lists_the_known_ones(run: Command, arguments: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="'huge': choose one of lite, vit_b"):
        run(*arguments)


def test_the_command_needs_no_package_but_the_standard_library() -> None:
    code = (
        "import sys, MedSAMSlicerLib.cli.models, MedSAMSlicerLib.store.samples\n"
        "print({'torch', 'numpy', 'SimpleITK', 'slicer', 'vtk'} & set(sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    finished = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (finished.stdout, finished.stderr) == ("set()\n", "")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A clock that the test sets, in seconds."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def set_clock(seconds: float) -> None:
        now[0] = 1000.0 + seconds

    return set_clock


def test_the_bar_rewrites_one_line_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, clock: Callable[[float], None]
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with ProgressBar(80, "liver", "slices") as bar:
        bar.update(0)
        clock(10)
        bar.update(20)
        clock(40)
        bar.update(80)
    first, middle, last = terminal.getvalue().removeprefix("\r").split("\r")
    assert first == "liver [........................]   0 % 0/80 slices"
    assert middle == "liver [######..................]  25 % 20/80 slices, 2.0 slices/s, 0:30 left"
    assert last == "liver [########################] 100 % 80/80 slices, 2.0 slices/s, 0:00 left\n"


def test_the_bar_counts_bytes_in_megabytes_and_only_what_came_since_the_resume(
    monkeypatch: pytest.MonkeyPatch, clock: Callable[[float], None]
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with ProgressBar(0, "vit_h", "B") as bar:
        bar.update(1_000_000_000, 9_001_000_000)
        clock(1)
        bar.update(1_001_000_000, 9_001_000_000)
    assert terminal.getvalue().endswith("1001.0/9001.0 MB, 1.0 MB/s, 2:13:20 left\n")


def test_the_bar_wipes_the_end_of_a_longer_line(
    monkeypatch: pytest.MonkeyPatch, clock: Callable[[float], None]
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with ProgressBar(100, "a", "slices") as bar:
        bar.update(10)
        clock(1)
        bar.update(11)
        clock(2)
        bar.update(5)
    *_, longer, shorter = terminal.getvalue().rstrip("\n").split("\r")
    assert shorter.rstrip().endswith("5/100 slices")
    assert len(shorter) == len(longer)


def test_the_bar_writes_a_line_for_every_tenth_into_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar(1000, "liver", "slices") as bar:
        for done in range(1001):
            bar.update(done)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("]")[1].split()[0] for line in lines] == [str(10 * tenth) for tenth in range(11)]


def test_the_bar_ends_its_line_when_the_task_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with contextlib.suppress(RuntimeError), ProgressBar(80, "liver", "slices") as bar:
        bar.update(1)
        raise RuntimeError("out of memory")
    assert terminal.getvalue().endswith("\n")
