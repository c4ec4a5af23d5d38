"""The command `segment --batch`: every case has its line, whatever happens to the others."""

from __future__ import annotations

import csv
import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from box_predictor import BoxPredictor
from Core.dicom_writer import write_series
from MedSAMSlicerLib import loading
from MedSAMSlicerLib.cli import segment as segment_command
from MedSAMSlicerLib.cli.main import main
from MedSAMSlicerLib.model import build_model, save_checkpoint
from MedSAMSlicerLib.store.lock import exclusive
from MedSAMSlicerLib.volume import files
from MedSAMSlicerLib.volume.files import Volume, write_labelmap
from MedSAMSlicerLib.volume.labels import read_labels

SOURCES = Path(__file__).resolve().parents[2] / "MedSAMSlicer"
LIVER, KIDNEY = "5 6 2 20 15 7", "22 17 0 28 22 9"
LIVER_VOXELS, KIDNEY_VOXELS = 6 * 10 * 16, 10 * 6 * 7
Run = Callable[..., tuple[int, list[dict]]]


@pytest.fixture
def loads(a_box_predictor: BoxPredictor, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """In place of every model: exact masks. Lists the devices that a model was loaded on."""
    devices: list[str] = []
    a_box_predictor.device = "cpu"
    monkeypatch.setattr(loading, "load_predictor", lambda model, device: devices.append(device) or a_box_predictor)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    return devices


@pytest.fixture
def table(simple_ct_file: Path) -> Callable[[list[dict[str, str]]], Path]:
    """Write a table beside the volume."""

    def write(rows: list[dict[str, str]]) -> Path:
        path = simple_ct_file.parent / "table.csv"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, sorted({name for row in rows for name in row}))
            writer.writeheader()
            writer.writerows(rows)
        return path

    return write


@pytest.fixture
def batch(table: Callable[..., Path], loads: list[str], capfd: pytest.CaptureFixture[str]) -> Run:
    """Segment the rows of a table, and return the exit code and the lines of the standard output."""

    def run(rows: list[dict[str, str]]) -> tuple[int, list[dict]]:
        path = table(rows)
        capfd.readouterr()
        code = main(["segment", "--batch", str(path)])
        return code, [json.loads(line) for line in capfd.readouterr().out.splitlines()]

    return run


def a_row(output: str, **columns: str) -> dict[str, str]:
    return {"volume": "CT.nrrd", "output": output, "box": LIVER, **columns}


def test_every_row_gives_its_file_and_its_line_with_one_model(batch, simple_ct_file, loads):
    both = a_row("out/2.seg.nrrd", box=f"{LIVER} {KIDNEY}", name="liver; kidney", json="out/2.json")
    code, lines = batch([a_row("out/1.nii.gz"), both])
    assert code == 0
    assert [(line["row"], line["output"], line["state"]) for line in lines] == [
        (1, "out/1.nii.gz", "done"),
        (2, "out/2.seg.nrrd", "done"),
    ]
    assert lines[1]["voxels"] == {"liver": LIVER_VOXELS, "kidney": KIDNEY_VOXELS}
    folder = simple_ct_file.parent / "out"
    assert read_labels(folder / "2.seg.nrrd").names == {1: "liver", 2: "kidney"}
    assert json.loads((folder / "2.json").read_text())["slices"] > 0
    assert loads == ["auto"]


def test_a_case_that_fails_does_not_stop_the_rest(batch, simple_ct_file):
    (simple_ct_file.parent / "broken.nrrd").write_text("no image")
    bad = [
        a_row("1.nrrd", volume="missing.nrrd"),
        a_row("2.nrrd", volume="broken.nrrd"),
        a_row("3.nrrd", box="1 2 three"),
        a_row("4.nrrd", box="40 0 0 50 9 9"),
        a_row("5.nrrd", box=""),
        a_row("6.png"),
        a_row("7.nrrd", axis="x"),
    ]
    code, lines = batch([*bad, a_row("good.nrrd")])
    assert code == 1
    assert [line["state"] for line in lines] == ["failed"] * len(bad) + ["done"]
    texts = [
        "missing.nrrd",
        "broken.nrrd",
        "six whole numbers",
        "outside of the volume",
        "one of box, slice_box, line and roi",
        "6.png",
        "'x'",
    ]
    for line, text in zip(lines, texts, strict=False):
        assert text in line["error"]
    assert not list(simple_ct_file.parent.glob("[1-7].*"))


def test_the_same_command_goes_on_where_it_was_interrupted(batch, simple_ct_file, loads):
    rows = [a_row("1.nrrd"), a_row("2.nrrd")]
    assert batch(rows[:1])[0] == 0
    before = (simple_ct_file.parent / "1.nrrd").stat().st_mtime_ns
    code, lines = batch(rows)
    assert (code, [line["state"] for line in lines]) == (0, ["skipped", "done"])
    assert (simple_ct_file.parent / "1.nrrd").stat().st_mtime_ns == before
    assert [line["state"] for line in batch(rows)[1]] == ["skipped", "skipped"]
    assert len(loads) == 2


def test_processes_of_torchrun_share_the_table(batch, monkeypatch):
    rows = [a_row(f"{number}.nrrd") for number in range(1, 6)]
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("LOCAL_RANK", rank)
        code, lines = batch(rows)
        assert (code, {line["state"] for line in lines}) == (0, {"done"})
        done.append([line["row"] for line in lines])
    assert done == [[1, 3, 5], [2, 4]]


def test_torchrun_itself_starts_two_processes_that_share_the_table(table, simple_ct_file):
    model = simple_ct_file.parent / "tiny.pth"
    save_checkpoint(build_model("tiny"), model)
    path = table([a_row(f"{number}.nrrd") for number in range(1, 5)])
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    arguments = ["-m", "MedSAMSlicerLib", "segment", f"--batch={path}", f"--model={model}", "--device=cpu"]
    environment = os.environ | {"PYTHONPATH": str(SOURCES), "OMP_NUM_THREADS": "1"}
    run = subprocess.run([*launcher, *arguments], env=environment, capture_output=True, encoding="utf-8", check=False)
    assert run.returncode == 0, run.stderr
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert sorted((line["row"], line["state"]) for line in lines) == [(row, "done") for row in range(1, 5)]
    for number in range(1, 5):
        assert read_labels(simple_ct_file.parent / f"{number}.nrrd")


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([a_row("o.nrrd", colour="red")], "the column 'colour'"),
        ([{"volume": "CT.nrrd", "box": LIVER}], "no column 'output'"),
        ([a_row("o.nrrd"), a_row("o.nrrd")], "is the same file as the output of row 1"),
        ([a_row("")], "Row 1 of "),
    ],
)
def test_a_table_that_cant_be_meant_so_is_refused_before_anything_is_done(table, loads, capfd, rows, text):
    assert main(["segment", "--batch", str(table(rows))]) == 1
    printed, err = capfd.readouterr()
    assert text in err
    assert (printed, loads) == ("", [])


def test_a_model_that_cant_be_loaded_stops_the_batch(table, loads, monkeypatch, capfd):
    def fail(model: str, device: str) -> None:
        raise ValueError("no such weights")

    monkeypatch.setattr(loading, "load_predictor", fail)
    assert main(["segment", "--batch", str(table([a_row("1.nrrd"), a_row("2.nrrd")]))]) == 1
    printed, err = capfd.readouterr()
    assert printed == ""
    assert "no such weights" in err


def test_options_of_a_single_volume_are_not_taken_with_a_table(simple_ct_file, capfd):
    with pytest.raises(SystemExit) as stopped:
        main(["segment", "--batch", "table.csv", "--volume", str(simple_ct_file)])
    assert stopped.value.code == 2
    assert "--volume: with --batch the table says that" in capfd.readouterr().err


def test_a_row_is_done_only_when_all_of_its_files_are_there(batch, simple_ct_file, monkeypatch):
    folder = simple_ct_file.parent
    rows = [a_row("1.seg.nrrd", json="1.json")]

    def full(target: str, report: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(segment_command, "write_json", full)
        (line,) = batch(rows)[1]
        assert (line["state"], "free some disk space" in line["error"]) == ("failed", True)
    assert (folder / "1.seg.nrrd").is_file()
    assert [line["state"] for line in batch(rows)[1]] == ["done"]
    assert (folder / "1.json").is_file()
    assert [line["state"] for line in batch(rows)[1]] == ["skipped"]
    for name in ("1.json", "1.seg.nrrd"):
        (folder / name).write_bytes(b"")
        assert [line["state"] for line in batch(rows)[1]] == ["done"]
        (folder / name).unlink()
        assert [line["state"] for line in batch(rows)[1]] == ["done"]


def test_a_row_that_was_changed_is_done_anew_and_so_is_one_whose_volume_was(batch, simple_ct_file, a_ct):
    folder = simple_ct_file.parent
    batch([a_row("1.nrrd"), a_row("2.nrrd")])
    code, lines = batch([a_row("1.nrrd", box=KIDNEY), a_row("2.nrrd")])
    assert (code, [line["state"] for line in lines]) == (0, ["done", "skipped"])
    assert sum(read_labels(folder / "1.nrrd").mask(1).ravel()) == KIDNEY_VOXELS
    write_labelmap(simple_ct_file, a_ct + 1, np.diag([0.8, 0.8, 3.0, 1]))
    os.utime(simple_ct_file, (1, 1))
    assert [line["state"] for line in batch([a_row("2.nrrd")])[1]] == ["done"]


def test_what_somebody_has_corrected_by_hand_is_not_written_over(batch, simple_ct_file):
    folder = simple_ct_file.parent
    batch([a_row("1.nrrd")])
    for name in ("1.nrrd", "2.nrrd"):
        (folder / name).write_text("corrected by hand")
    for box in (LIVER, KIDNEY):
        code, lines = batch([a_row("1.nrrd", box=box), a_row("2.nrrd")])
        assert (code, [line["state"] for line in lines]) == (1, ["failed", "failed"])
        assert "1.nrrd was changed since this row has made it: move or delete it" in lines[0]["error"]
        assert "2.nrrd was not made by this row: move or delete it" in lines[1]["error"]
    assert {(folder / name).read_text() for name in ("1.nrrd", "2.nrrd")} == {"corrected by hand"}


def test_a_correction_of_the_same_size_is_seen_and_so_is_one_after_a_row_that_failed(batch, simple_ct_file):
    path = simple_ct_file.parent / "1.nii"
    batch([a_row("1.nii")])
    assert [line["state"] for line in batch([a_row("1.nii", box="40 0 0 50 9 9")])[1]] == ["failed"]
    corrected = bytearray(path.read_bytes())
    corrected[-1] ^= 1
    path.write_bytes(corrected)
    for box in (LIVER, KIDNEY):
        (line,) = batch([a_row("1.nii", box=box)])[1]
        assert "1.nii was changed since this row has made it" in line["error"]
    assert path.read_bytes() == corrected


def test_a_row_that_another_process_works_at_is_left_to_it(batch, simple_ct_file):
    folder = simple_ct_file.parent
    with exclusive(folder / "1.nrrd.row"):
        code, lines = batch([a_row("1.nrrd"), a_row("2.nrrd")])
    assert (code, [line["state"] for line in lines]) == (0, ["taken", "done"])
    assert not (folder / "1.nrrd").exists()
    assert [line["state"] for line in batch([a_row("1.nrrd"), a_row("2.nrrd")])[1]] == ["done", "skipped"]


def test_a_row_that_fails_leaves_nothing_behind(batch, simple_ct_file):
    folder = simple_ct_file.parent
    (folder / "broken.nrrd").write_text("no image")
    code, _ = batch([a_row("new/sub/1.nrrd", volume="broken.nrrd"), a_row("2.nrrd", box="40 0 0 50 9 9")])
    assert code == 1
    assert {path.name for path in folder.iterdir()} == {"CT.nrrd", "broken.nrrd", "table.csv"}


def test_even_a_defect_of_the_program_fails_one_row_only(batch, monkeypatch):
    read = files.read_volume

    def defective(path: Path) -> Volume:
        if path.name == "odd.nrrd":
            raise OverflowError("cannot convert float infinity to integer")
        return read(path)

    monkeypatch.setattr(files, "read_volume", defective)
    code, lines = batch([a_row("1.nrrd", volume="odd.nrrd"), a_row("2.nrrd")])
    assert (code, [line["state"] for line in lines]) == (1, ["failed", "done"])
    assert "defect of the program (OverflowError" in lines[0]["error"]


def test_spaces_around_cells_mean_nothing(batch, simple_ct_file):
    code, lines = batch([{"volume": " CT.nrrd ", "output": " 1.seg.nrrd ", "box": f"  {LIVER}"}])
    assert (code, lines[0]["state"]) == (0, "done")
    assert (simple_ct_file.parent / "1.seg.nrrd").is_file()


@pytest.mark.parametrize("option", ["--name=a", "--json=o.json", "--json=-", "--snapshot=o.png"])
def test_options_that_belong_to_one_volume_are_refused_with_a_table(option, table, capfd):
    with pytest.raises(SystemExit) as stopped:
        main(["segment", "--batch", str(table([a_row("1.nrrd")])), option])
    assert stopped.value.code == 2
    assert f"{option.split('=')[0]}: with --batch the table says that" in capfd.readouterr().err


def test_a_table_is_told_its_time_before_it_begins(table, loads, capfd):
    assert main(["segment", "--batch", str(table([a_row("1.seg.nrrd"), a_row("2.seg.nrrd")]))]) == 0
    assert "rows at most" not in capfd.readouterr().err
    assert main(["segment", "--batch", str(table([a_row(f"{number}.seg.nrrd") for number in range(5)]))]) == 0
    assert capfd.readouterr().err.startswith("5 rows at most: about")


def test_empty_cells_that_a_spreadsheet_writes_at_the_ends_mean_nothing(table, loads, simple_ct_file, capfd):
    path = table([a_row("1.nrrd")])
    lines = path.read_text().splitlines()
    path.write_text("".join(f"{line},,\n" for line in (*lines, ",,")))
    assert main(["segment", "--batch", str(path)]) == 0
    assert len(capfd.readouterr().out.splitlines()) == 1


def test_a_row_of_a_dicom_series_of_which_a_slice_was_changed_is_done_anew(batch, simple_ct_file, a_ct):
    paths = write_series(simple_ct_file.parent / "dicom", a_ct, np.diag([0.8, 0.8, 3.0, 1]))
    rows = [a_row("1.nrrd", volume="dicom"), a_row("2.nrrd", volume=f"dicom/{paths[0].name}")]
    assert [line["state"] for line in batch(rows)[1]] == ["done", "done"]
    assert [line["state"] for line in batch(rows)[1]] == ["skipped", "skipped"]
    slice_ = dcmread(paths[5])
    slice_.PixelData = slice_.PixelData[:-2] + b"\1\0"
    slice_.save_as(paths[5])
    os.utime(paths[5], ns=(1, 1))
    assert [line["state"] for line in batch(rows)[1]] == ["done", "done"]


def test_a_batch_that_was_stopped_leaves_no_folder(table, loads, simple_ct_file, monkeypatch, capfd):
    def fail(model: str, device: str) -> None:
        raise ValueError("no such weights")

    monkeypatch.setattr(loading, "load_predictor", fail)
    assert main(["segment", "--batch", str(table([a_row("out/1.nrrd"), a_row("out/2.nrrd")]))]) == 1
    assert not (simple_ct_file.parent / "out").exists()


def test_the_note_of_a_row_is_not_written_through_a_link(batch, simple_ct_file):
    content = simple_ct_file.read_bytes()
    (simple_ct_file.parent / ".1.nrrd.row.lock").symlink_to(simple_ct_file)
    assert [line["state"] for line in batch([a_row("1.nrrd")])[1]] == ["done"]
    assert simple_ct_file.read_bytes() == content


def test_an_empty_name_in_a_list_of_files_is_none(batch, simple_ct_file):
    (line,) = batch([{**a_row("1.nrrd", roi="none.mrk.json;"), "box": ""}])[1]
    assert line["error"] == f"{simple_ct_file.parent / 'none.mrk.json'} does not exist: check the path."
