from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from Core.file_server import FileServer
from MedSAMSlicerLib.store import download as download_module
from MedSAMSlicerLib.store import samples as samples_module
from MedSAMSlicerLib.store.catalog import SAMPLES, PypiFile, Sample
from MedSAMSlicerLib.store.download import DownloadError
from MedSAMSlicerLib.store.samples import SampleMissing, fetch_samples, sample_path

CT, LABELS = b"ct " * 5000, b"labels " * 1000
ARCHIVE_NAME = "totalsegmentator-2.18.0.tar.gz"
REMAINS = ["ct.nii.gz", "labels.nii.gz"]


def sample(name: str, content: bytes) -> Sample:
    return Sample(name, name, len(content), hashlib.sha256(content).hexdigest())


def archive_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """An index with the archive of two samples, and of a file that wants to lie elsewhere."""
    samples = (sample("ct.nii.gz", CT), sample("labels.nii.gz", LABELS))
    archive = archive_of(
        {"../../escaped": b"!", samples[0].member: CT, "totalsegmentator-2.18.0/a": b"a", samples[1].member: LABELS}
    )
    release = PypiFile("totalsegmentator", ARCHIVE_NAME, len(archive), hashlib.sha256(archive).hexdigest())
    monkeypatch.setattr(samples_module, "SAMPLES", samples)
    monkeypatch.setattr(samples_module, "SAMPLE_ARCHIVE", release)
    monkeypatch.setattr(download_module, "RETRY_PAUSES_S", ())
    monkeypatch.setenv("no_proxy", "*")
    with FileServer() as running:
        monkeypatch.setenv("PIP_INDEX_URL", running.serve_index("totalsegmentator", ARCHIVE_NAME, archive))
        yield running


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_the_samples_are_the_ct_and_the_mr_each_with_its_labels() -> None:
    names = [sample.name for sample in SAMPLES]
    assert names == ["example_ct_sm.nii.gz", "example_seg.nii.gz", "example_mr_sm.nii.gz", "example_seg_mr.nii.gz"]


def test_fetching_leaves_the_samples_and_nothing_else_of_the_archive(server: FileServer, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    paths = fetch_samples(folder=folder)
    assert [path.read_bytes() for path in paths] == [CT, LABELS]
    assert visible(folder) == REMAINS
    assert not (tmp_path / "escaped").exists()
    assert sample_path("ct.nii.gz", folder) == paths[0]


def test_samples_that_are_here_need_no_network(server: FileServer, tmp_path: Path) -> None:
    fetch_samples(folder=tmp_path)
    server.files.clear()
    server.requests.clear()
    assert fetch_samples(folder=tmp_path)[1] == sample_path("labels.nii.gz", tmp_path)
    assert server.requests == []


def test_samples_lie_in_the_folder_of_the_store(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDSAM_SLICER_HOME", str(tmp_path))
    fetch_samples()
    assert sample_path("ct.nii.gz") == tmp_path / "samples" / "ct.nii.gz"


def test_a_damaged_sample_is_refused_and_fetched_anew(server: FileServer, tmp_path: Path) -> None:
    fetch_samples(folder=tmp_path)
    (tmp_path / "ct.nii.gz").write_bytes(CT[:-1] + b"\0")
    with pytest.raises(SampleMissing, match=r"ct\.nii\.gz is damaged .* medsam-slicer demo"):
        sample_path("ct.nii.gz", tmp_path)
    fetch_samples(folder=tmp_path)
    assert sample_path("ct.nii.gz", tmp_path).read_bytes() == CT


def test_an_absent_sample_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(SampleMissing, match=r"example_ct_sm\.nii\.gz is absent .* medsam-slicer demo"):
        sample_path("example_ct_sm.nii.gz", tmp_path)


def test_an_unknown_sample_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'brain': choose one of example_ct_sm\.nii\.gz"):
        sample_path("brain", tmp_path)


def test_an_archive_put_into_the_folder_by_hand_is_used(server: FileServer, tmp_path: Path) -> None:
    archive = server.files[f"/packages/ab/cd/{ARCHIVE_NAME}"].content
    server.files.clear()
    with pytest.raises(DownloadError, match=f"put {ARCHIVE_NAME} into"):
        fetch_samples(folder=tmp_path)
    (tmp_path / ARCHIVE_NAME).write_bytes(archive)
    fetch_samples(folder=tmp_path)
    assert visible(tmp_path) == REMAINS
