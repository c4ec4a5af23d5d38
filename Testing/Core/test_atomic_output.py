"""A file is written whole or not at all, and the older one is kept until then."""

from __future__ import annotations

from pathlib import Path

import pytest

from MedSAMSlicerLib.volume.files import atomic_output


def write_half(path: Path, error: BaseException) -> None:
    with atomic_output(path) as temporary:
        assert temporary.suffixes == path.suffixes
        temporary.write_text("half")
        (temporary.parent / "sidecar").write_text("half")
        raise error


@pytest.mark.parametrize("error", [RuntimeError("disk"), KeyboardInterrupt()], ids=["error", "Ctrl-C"])
def test_a_write_that_fails_or_is_interrupted_leaves_nothing_and_keeps_the_older_file(tmp_path, error):
    path = tmp_path / "out.seg.nrrd"
    with pytest.raises(type(error)):
        write_half(path, error)
    assert list(tmp_path.iterdir()) == []
    path.write_text("older")
    with pytest.raises(type(error)):
        write_half(path, error)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "older"


@pytest.mark.parametrize("content", [None, ""], ids=["nothing", "an empty file"])
def test_a_writer_that_silently_writes_nothing_is_an_error_and_keeps_the_older_file(tmp_path, content):
    path = tmp_path / "out.png"
    path.write_text("older")
    writing = atomic_output(path)
    temporary = writing.__enter__()
    if content is not None:
        temporary.write_text(content)
    with pytest.raises(OSError, match=r"out\.png could not be written: is the disk full"):
        writing.__exit__(None, None, None)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "older"


def test_a_write_that_ends_well_replaces_the_older_file_and_makes_its_folder(tmp_path):
    path = tmp_path / "a" / "b" / "out.json"
    for text in ("first", "second"):
        with atomic_output(path) as temporary:
            temporary.write_text(text)
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]
