"""What lies on this computer: listed with its size, carried to another one without a network, and removed whole."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from Core.file_server import FileServer
from MedSAMSlicerLib import loading
from MedSAMSlicerLib.cli.main import main
from MedSAMSlicerLib.model import build_model
from MedSAMSlicerLib.store import inventory as inventory_module
from MedSAMSlicerLib.store import samples as samples_module
from MedSAMSlicerLib.store import transfer
from MedSAMSlicerLib.store.catalog import PypiFile, Sample, Weights
from MedSAMSlicerLib.store.inventory import InUseError, inventory, remove
from MedSAMSlicerLib.store.lock import exclusive
from MedSAMSlicerLib.store.weights import WeightsStore
from MedSAMSlicerLib.volume.embedding_store import EmbeddingStore

FOREIGN = ("benchmark/mine.npy", "models/races.run/mine.csv", "notes.txt", "samples/mine.nrrd", "tests/mine.py")
CONTENT, IMAGE = b"weights " * 250_000, b"ct " * 5000


@pytest.fixture
def home(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of weights with a checksum, weights without one, and one sample."""
    lite = Weights(
        "lite", "LiteMedSAM", "tiny", "lite", "Apache-2.0", "lite.pth", "https://example.org/lite",
        (server.serve("/lite.pth", CONTENT),), len(CONTENT), hashlib.sha256(CONTENT).hexdigest(),
    )  # fmt: skip
    by_hand = Weights("vit_b", "By hand", "tiny", "medsam", "MIT", "hand.pth", "https://example.org/vit_b")
    sample = Sample("ct.nii.gz", "CT", len(IMAGE), hashlib.sha256(IMAGE).hexdigest())
    catalog = (lite, by_hand)
    for module in (samples_module, inventory_module, transfer):
        monkeypatch.setattr(module, "SAMPLES", (sample,))
        monkeypatch.setattr(module, "SAMPLE_ARCHIVE", PypiFile("none", "none.tar.gz", 1, "0" * 64))
    monkeypatch.setattr(WeightsStore.__init__, "__defaults__", (None, catalog))
    monkeypatch.setattr(inventory, "__defaults__", (catalog,))
    monkeypatch.setattr(loading, "WEIGHTS", catalog)
    monkeypatch.setenv("MEDSAM_SLICER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def filled(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The same with a bit of everything in it, and a file of somebody else's."""
    assert main(["models", "fetch", "lite", "--yes"]) == 0
    torch.save(build_model("tiny").state_dict(), tmp_path / "by-hand.pth")
    assert main(["models", "import", "vit_b", str(tmp_path / "by-hand.pth")]) == 0
    (tmp_path / "stick").mkdir()
    (tmp_path / "stick" / "ct.nii.gz").write_bytes(IMAGE)
    assert main(["cache", "import", str(tmp_path / "stick")]) == 0
    EmbeddingStore(home / "slices").put(b"k" * 20, np.zeros((2, 3, 4)))
    ours = ("models/ours.pth", "models/ours.run/settings.json", f"benchmark/{'0' * 40}.npy")
    for path in (*ours, *FOREIGN):
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_bytes(b"x" * 1000)
    capsys.readouterr()
    return home


def listed(capsys: pytest.CaptureFixture[str]) -> dict[str, int]:
    capsys.readouterr()
    assert main(["cache", "list", "--json"]) == 0
    kept = json.loads(capsys.readouterr().out)["kept"]
    return {f"{each['kind']} {each['name']}": each["bytes"] for each in kept}


def test_all_that_is_kept_is_listed_with_its_size_and_place(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = listed(capsys)
    assert list(found) == [
        "weights lite", "weights vit_b", "samples samples", "embeddings embeddings", "models ours", "runs ours",
        "tests benchmark",
    ]  # fmt: skip
    record = filled / "weights" / "lite.pth.json"
    assert found["weights lite"] == len(CONTENT) + record.stat().st_size
    assert found["samples samples"] == len(IMAGE)
    assert found["runs ours"] == 1000
    assert main(["cache", "list"]) == 0
    out = capsys.readouterr().out
    assert str(filled / "weights" / "lite.pth") in out
    assert "2.0 MB" in out
    assert "notes.txt" not in out


def test_one_kind_or_one_thing_is_removed_after_a_question_only(
    filled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = listed(capsys)
    assert main(["cache", "remove", "weights", "vit_b"]) == 2
    assert "--yes" in capsys.readouterr().err
    assert listed(capsys) == before
    assert main(["cache", "remove", "weights", "vit_b", "--yes"]) == 0
    assert main(["cache", "remove", "embeddings", "--yes"]) == 0
    assert listed(capsys).keys() == before.keys() - {"weights vit_b", "embeddings embeddings"}
    assert not (filled / "slices").exists()
    assert (filled / "weights" / "lite.pth").read_bytes() == CONTENT
    assert main(["cache", "remove", "runs", "theirs", "--yes"]) == 1
    assert "nothing called 'theirs' among the runs" in capsys.readouterr().err


def test_after_removing_all_only_what_is_not_ours_stays(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "remove", "all", "--yes"]) == 0
    left = sorted(path.relative_to(filled).as_posix() for path in filled.rglob("*") if path.stat().st_size == 1000)
    assert left == list(FOREIGN)
    assert "notes.txt is not ours and stays" in capsys.readouterr().err
    for path in FOREIGN:
        (filled / path).unlink()
    (filled / "models" / "races.run").rmdir()
    assert main(["cache", "remove", "all", "--yes"]) == 0
    assert not filled.exists()


def test_a_run_that_goes_on_and_a_download_are_not_removed(filled: Path) -> None:
    (run,) = [each for each in inventory() if each.kind == "runs"]
    with exclusive(run.path / "run"), pytest.raises(InUseError, match="being written"):
        remove(run)
    assert (run.path / "settings.json").exists()
    (lite,) = [each for each in inventory() if each.name == "lite"]
    with exclusive(lite.path), pytest.raises(InUseError, match="being written"):
        remove(lite)
    assert lite.path.exists()


def test_a_link_is_removed_and_what_it_leads_to_is_not(home: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.run").mkdir()
    (tmp_path / "elsewhere.run" / "precious").write_text("mine")
    (tmp_path / "elsewhere.run" / "settings.json").touch()
    (home / "models").mkdir(parents=True)
    (home / "models" / "a.run").symlink_to(tmp_path / "elsewhere.run", target_is_directory=True)
    for each in inventory():
        remove(each)
    assert (tmp_path / "elsewhere.run" / "precious").read_text() == "mine"


def test_a_stick_brings_weights_and_samples_to_a_computer_without_a_network(
    filled: Path,
    server: FileServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stick = tmp_path / "usb" / "medsam"
    assert main(["cache", "export", str(stick)]) == 0
    assert sorted(path.name for path in stick.iterdir()) == ["SHA256SUMS", "ct.nii.gz", "hand.pth", "lite.pth"]
    sums = dict(line.split("  ")[::-1] for line in (stick / "SHA256SUMS").read_text().splitlines())
    assert sums["lite.pth"] == hashlib.sha256(CONTENT).hexdigest()
    server.files.clear()
    server.requests.clear()
    monkeypatch.setenv("MEDSAM_SLICER_HOME", str(tmp_path / "offline"))
    # One folder above, as a user may point to the stick itself.
    assert main(["cache", "import", str(stick.parent)]) == 0
    assert "Imported ct.nii.gz, hand.pth, lite.pth." in capsys.readouterr().out
    assert {each.weights.name: each.state for each in WeightsStore().verify()} == {
        "lite": "present",
        "vit_b": "present",
    }
    assert (tmp_path / "offline" / "samples" / "ct.nii.gz").read_bytes() == IMAGE
    assert server.requests == []
    assert main(["cache", "import", str(stick)]) == 0
    assert "is here already" in capsys.readouterr().out


def test_a_file_that_was_damaged_on_the_way_is_refused_by_name(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stick = tmp_path / "usb"
    assert main(["cache", "export", str(stick)]) == 0
    monkeypatch.setenv("MEDSAM_SLICER_HOME", str(tmp_path / "offline"))
    # These have no published checksum: only the one on the stick tells.
    weights = torch.load(stick / "hand.pth", weights_only=True)
    torch.save(
        {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in weights.items()},
        stick / "hand.pth",
    )
    assert main(["cache", "import", str(stick)]) == 1
    assert "hand.pth is damaged" in capsys.readouterr().err
    assert not (tmp_path / "offline" / "weights" / "hand.pth").exists()
    (stick / "SHA256SUMS").unlink()
    (tmp_path / "offline" / "samples" / "ct.nii.gz").unlink()
    (stick / "ct.nii.gz").write_bytes(IMAGE[:-1] + b"!")
    assert main(["cache", "import", str(stick)]) == 1
    assert "is not the sample ct.nii.gz" in capsys.readouterr().err


def test_a_folder_without_anything_known_is_refused(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    assert main(["cache", "import", str(tmp_path / "photos")]) == 1
    assert "holds no weights or samples" in capsys.readouterr().err
    assert main(["cache", "import", str(tmp_path / "nowhere")]) == 1
    assert "There is no folder" in capsys.readouterr().err


def test_the_log_tells_what_came_from_where_and_what_went(
    filled: Path, server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "remove", "lite"]) == 0
    capsys.readouterr()
    assert main(["cache", "log"]) == 0
    fetched, by_hand, sample, removed = [line.partition(" UTC: ") for line in capsys.readouterr().out.splitlines()]
    weights = Path("weights") / "lite.pth"
    assert fetched[2] == f"fetched {weights}, {len(CONTENT):,} bytes, from {server.address}/lite.pth"
    assert by_hand[2].startswith(f"imported {Path('weights') / 'hand.pth'}")
    assert by_hand[2].endswith(f"from {tmp_path / 'by-hand.pth'}")
    assert (
        sample[2] == f"imported {Path('samples') / 'ct.nii.gz'}, 15,000 bytes, from {tmp_path / 'stick' / 'ct.nii.gz'}"
    )
    assert removed[2] == f"removed {weights}"
    assert [len(each[0]) for each in (fetched, removed)] == [len("2026-01-01 00:00:00")] * 2


def test_no_password_of_an_address_is_logged(home: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from MedSAMSlicerLib.store.download import download

    address = f"http://jane:secret@{server.host}/lite.pth"
    download([address], home / "weights" / "x.pth", size=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest())
    text = (home / "log.txt").read_text()
    assert f"http://{server.host}/lite.pth" in text
    assert "secret" not in text


def test_downloads_go_through_the_proxy_that_the_environment_names(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    address = "http://weights.example.invalid/lite.pth"
    catalog = (
        Weights("lite", "LiteMedSAM", "tiny", "lite", "Apache-2.0", "lite.pth", "https://example.org",
                (address,), len(CONTENT), hashlib.sha256(CONTENT).hexdigest()),
    )  # fmt: skip
    monkeypatch.setattr(WeightsStore.__init__, "__defaults__", (None, catalog))
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with FileServer() as proxy:
        # A proxy is asked for the whole address, which nobody else could resolve.
        proxy.serve(address, CONTENT)
        monkeypatch.setenv("http_proxy", proxy.address)
        assert main(["models", "fetch", "lite", "--yes"]) == 0
        assert [request.path for request in proxy.requests] == [address]
        assert WeightsStore().path("lite").read_bytes() == CONTENT
        assert main(["models", "remove", "lite"]) == 0
        monkeypatch.setenv("no_proxy", "weights.example.invalid")
        assert main(["models", "fetch", "lite", "--yes"]) == 1
        assert len(proxy.requests) == 1
        assert "proxy" not in capsys.readouterr().err
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("http_proxy", proxy.address.replace("http://", "http://jane:secret@"))
    assert main(["models", "fetch", "lite", "--yes"]) == 1
    told = capsys.readouterr().err
    assert f"refuses the connection, through the proxy http://{proxy.host}" in told
    assert "secret" not in told


def test_encrypted_downloads_ask_the_proxy_for_a_tunnel(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from MedSAMSlicerLib.store.web import WebError, open_address

    for name in ("no_proxy", "NO_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with FileServer() as proxy:
        monkeypatch.setenv("https_proxy", proxy.address)
        with pytest.raises(WebError, match="through the proxy"):
            open_address("https://weights.example.invalid/lite.pth", {})
        assert [request.path for request in proxy.requests] == ["CONNECT weights.example.invalid:443"]
