from __future__ import annotations

import errno
import hashlib
import io
import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from Core.file_server import FileServer
from MedSAMSlicerLib.store import lock, web
from MedSAMSlicerLib.store.download import DownloadError, download
from MedSAMSlicerLib.store.folder import StorageError, store_folder
from MedSAMSlicerLib.store.lock import exclusive

CONTENT = random.Random(0).randbytes(600_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
DOWNLOAD_IN_A_PROCESS = """
import sys
from pathlib import Path
from MedSAMSlicerLib.store.download import download
download([sys.argv[1]], Path(sys.argv[2]), size=int(sys.argv[3]), sha256=sys.argv[4])
"""


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in the store."""
    monkeypatch.setenv("MEDSAM_SLICER_HOME", str(tmp_path))
    return tmp_path / "folder" / "weights.pth"


def part_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def put_part(target: Path, content: bytes) -> None:
    target.parent.mkdir()
    part_of(target).write_bytes(content)


def fetch(*sources: str, target: Path) -> None:
    download(sources, target, size=len(CONTENT), sha256=SHA256)


def start_process(address: str, target: Path, prelude: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", prelude + DOWNLOAD_IN_A_PROCESS, address, str(target), str(len(CONTENT)), SHA256],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        text=True,
    )


def refused_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/weights.pth"


def test_download_writes_the_file_and_nothing_else_that_shows(server: FileServer, target: Path) -> None:
    seen: list[tuple[int, int]] = []
    download(
        [server.serve("/f", CONTENT)],
        target,
        size=len(CONTENT),
        sha256=SHA256,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir() if not path.name.startswith(".")] == ["weights.pth"]
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen)


def test_download_asks_nobody_when_the_sound_file_is_there(server: FileServer, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(CONTENT)
    fetch(server.serve("/f", CONTENT), target=target)
    assert server.requests == []


def test_download_replaces_a_damaged_file(server: FileServer, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(b"\0" * len(CONTENT))
    fetch(server.serve("/f", CONTENT), target=target)
    assert target.read_bytes() == CONTENT


def test_download_resumes_with_only_the_missing_bytes(server: FileServer, target: Path) -> None:
    put_part(target, CONTENT[:400_000])
    fetch(server.serve("/f", CONTENT), target=target)
    assert server.ranges("/f") == ["bytes=400000-"]
    assert target.read_bytes() == CONTENT


def test_download_continues_after_each_broken_connection(server: FileServer, target: Path) -> None:
    fetch(server.serve("/f", CONTENT, cuts=[100_000, 200_000]), target=target)
    assert server.ranges("/f") == [None, "bytes=100000-", "bytes=300000-"]
    assert target.read_bytes() == CONTENT


def test_download_continues_where_a_killed_process_stopped(server: FileServer, target: Path) -> None:
    address = server.serve("/f", CONTENT, stalls_after=250_000)
    with start_process(address, target) as process:
        deadline = time.monotonic() + 60
        while not (part_of(target).exists() and part_of(target).stat().st_size > 0) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
    held = part_of(target).stat().st_size
    assert 0 < held <= 250_000
    server.serve("/f", CONTENT)
    fetch(address, target=target)
    assert server.ranges("/f") == [None, f"bytes={held}-"]
    assert target.read_bytes() == CONTENT


def test_download_starts_again_when_the_server_ignores_the_range(server: FileServer, target: Path) -> None:
    put_part(target, CONTENT[:400_000])
    fetch(server.serve("/f", CONTENT, supports_range=False), target=target)
    assert server.ranges("/f") == ["bytes=400000-"]
    assert target.read_bytes() == CONTENT


def test_download_starts_again_when_the_part_is_longer_than_the_file(server: FileServer, target: Path) -> None:
    put_part(target, CONTENT + b"more")
    fetch(server.serve("/f", CONTENT), target=target)
    assert server.ranges("/f") == [None]
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("length", [400_000, len(CONTENT)])
def test_download_starts_again_when_the_part_was_rotten(server: FileServer, target: Path, length: int) -> None:
    put_part(target, b"\0" * length)
    fetch(server.serve("/f", CONTENT), target=target)
    assert server.ranges("/f")[-1] is None
    assert target.read_bytes() == CONTENT


def test_download_gives_up_after_a_few_broken_connections_and_keeps_the_part(server: FileServer, target: Path) -> None:
    with pytest.raises(DownloadError, match="connection breaks after 4,000 of 600,000 bytes"):
        fetch(server.serve("/f", CONTENT, cuts=[1000] * 9), target=target)
    assert len(server.requests) == 4
    assert part_of(target).read_bytes() == CONTENT[:4000]


def test_download_never_leaves_a_file_with_a_wrong_checksum(server: FileServer, target: Path) -> None:
    wrong = b"\0" * len(CONTENT)
    with pytest.raises(DownloadError) as caught:
        fetch(server.serve("/f", wrong), target=target)
    assert SHA256 in str(caught.value)
    assert hashlib.sha256(wrong).hexdigest() in str(caught.value)
    assert not target.exists()
    assert not part_of(target).exists()
    assert len(server.requests) == 1


def test_download_refuses_a_file_of_another_length_before_reading_it(server: FileServer, target: Path) -> None:
    put_part(target, CONTENT[:400_000])
    page = b"<html>Please log in</html>"
    with pytest.raises(DownloadError, match="offers 26 bytes instead of 600,000"):
        fetch(server.serve("/f", page, supports_range=False), target=target)
    assert part_of(target).read_bytes() == CONTENT[:400_000]


@pytest.mark.parametrize(("content", "word"), [(CONTENT[:5000], "fewer"), (CONTENT + CONTENT, "more")])
def test_download_drops_what_a_server_of_undeclared_length_sends_wrongly(
    server: FileServer, target: Path, content: bytes, word: str
) -> None:
    with pytest.raises(DownloadError, match=f"sends {word} than 600,000 bytes"):
        fetch(server.serve("/f", content, declares_length=False), target=target)
    assert not target.exists()
    assert not part_of(target).exists()


def test_download_accepts_a_server_that_declares_no_length(server: FileServer, target: Path) -> None:
    fetch(server.serve("/f", CONTENT, declares_length=False), target=target)
    assert target.read_bytes() == CONTENT


def test_download_takes_the_next_source_when_one_fails(server: FileServer, target: Path) -> None:
    fetch(refused_address(), f"{server.address}/missing", server.serve("/f", CONTENT), target=target)
    assert target.read_bytes() == CONTENT
    assert [request.path for request in server.requests] == ["/missing", "/f"]


def test_download_names_every_source_with_its_reason_and_the_remedy(
    server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "TIMEOUT_S", 0.2)
    refused, missing = refused_address(), f"{server.address}/missing"
    silent = server.serve("/silent", CONTENT, stalls_after=0)
    with pytest.raises(DownloadError) as caught:
        download(
            [refused, missing, silent, "ftp://127.0.0.1/f", "http://host.invalid/f"],
            target,
            size=len(CONTENT),
            sha256=SHA256,
            remedy="Fetch it by hand.",
        )
    text = str(caught.value)
    assert f"{refused}: the host refuses the connection" in text
    assert f"{missing}: the server answers 404 Not Found" in text
    assert f"{silent}: no answer within 0.2 s" in text
    assert "ftp://127.0.0.1/f: only http and https" in text
    assert "http://host.invalid/f: the host is not found" in text
    assert text.endswith("Fetch it by hand.")


def test_download_asks_a_busy_server_again(server: FileServer, target: Path) -> None:
    address = server.serve("/f", status=503)
    with pytest.raises(DownloadError, match="answers 503"):
        fetch(address, target=target)
    assert len(server.requests) == 4


def test_download_that_the_user_cancels_keeps_its_part(server: FileServer, target: Path) -> None:
    def cancel_half_way(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download([server.serve("/f", CONTENT)], target, size=len(CONTENT), sha256=SHA256, progress=cancel_half_way)
    held = part_of(target).stat().st_size
    assert held > len(CONTENT) // 2
    fetch(f"{server.address}/f", target=target)
    assert target.read_bytes() == CONTENT


def test_a_full_disk_is_named_and_the_download_continues_when_there_is_room(server: FileServer, target: Path) -> None:
    address = server.serve("/f", CONTENT)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
    with start_process(address, target, prelude=limit) as process:
        _, errors = process.communicate(timeout=60)
    assert "StorageError: No room left to write" in errors
    assert "MEDSAM_SLICER_HOME" in errors
    held = part_of(target).read_bytes()
    assert held == CONTENT[: len(held)]
    fetch(address, target=target)
    assert server.ranges("/f")[-1] == f"bytes={len(held)}-"
    assert target.read_bytes() == CONTENT


def test_a_full_disk_ends_the_download_at_once(
    server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FullDisk(io.BytesIO):
        def write(self, content: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    really_open = Path.open
    monkeypatch.setattr(
        Path, "open", lambda path, mode="r": FullDisk() if path.suffix == ".part" else really_open(path, mode)
    )
    other = server.serve("/other", CONTENT)
    with pytest.raises(StorageError, match=r"No room left to write .*weights\.pth\.part"):
        fetch(server.serve("/f", CONTENT), other, target=target)
    assert [request.path for request in server.requests] == ["/f"]


def test_a_folder_that_cannot_be_written_is_named_with_the_remedy(server: FileServer, target: Path) -> None:
    target.parent.write_bytes(b"")
    with pytest.raises(StorageError, match=r"Cannot write .*weights\.pth .* set MEDSAM_SLICER_HOME to another folder"):
        fetch(server.serve("/f", CONTENT), target=target)
    assert server.requests == []


def test_processes_that_want_the_same_file_fetch_it_once(server: FileServer, target: Path) -> None:
    address = server.serve("/f", CONTENT)
    processes = [start_process(address, target) for _ in range(3)]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert target.read_bytes() == CONTENT
    assert server.ranges("/f") == [None]


def test_waiting_for_another_download_ends_with_a_clear_error(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE_S", 0.0)
    with (
        exclusive(target),
        pytest.raises(TimeoutError, match=r"Another process has held .*weights\.pth for 0 minutes: wait for it"),
        exclusive(target),
    ):
        pass


def test_waiting_for_another_download_can_be_cancelled(target: Path) -> None:
    def cancel(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with exclusive(target), pytest.raises(KeyboardInterrupt):
        download(["http://host.invalid/f"], target, size=1, sha256=SHA256, progress=cancel)


def test_the_store_lies_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MEDSAM_SLICER_HOME", str(tmp_path))
    assert store_folder() == tmp_path


@pytest.mark.parametrize(
    ("platform", "variable", "below"),
    [
        ("linux", "XDG_CACHE_HOME", "medsam-slicer"),
        ("win32", "LOCALAPPDATA", "medsam-slicer"),
        ("darwin", "HOME", "Library/Caches/medsam-slicer"),
    ],
)
def test_the_store_lies_in_the_cache_folder_of_the_platform(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, platform: str, variable: str, below: str
) -> None:
    monkeypatch.delenv("MEDSAM_SLICER_HOME", raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv(variable, str(tmp_path))
    assert store_folder() == tmp_path / below
