"""What a training refuses before anything is trained: busy folders, damaged cases, datasets without a split."""

from __future__ import annotations

import json

import pytest

from made_up_site import blind_base, job_in, made_up_site
from MedSAMSlicerLib.store.lock import exclusive
from MedSAMSlicerLib.training.fine_tuning import fine_tune
from MedSAMSlicerLib.training.run import RunError, RunFolder
from MedSAMSlicerLib.volume.files import FileError


def test_a_folder_in_use_by_another_run_is_refused_at_once_and_left_alone(tmp_path):
    folder = tmp_path / "tuned.run"
    folder.mkdir()
    (folder / "stop").touch()
    with exclusive(folder / "run"), pytest.raises(RunError, match=r"tuned\.run is in use by another run: wait"):
        fine_tune(job_in(tmp_path))
    assert (folder / "stop").exists()


def test_a_corrupted_case_is_named_before_anything_is_trained(tmp_path):
    job = job_in(tmp_path)
    image = tmp_path / "site" / "cases" / "case-0002" / "image.nrrd"
    image.write_bytes(image.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"can't be trained on: case-0002: .*image\.nrrd"):
        fine_tune(job)


def test_a_case_that_breaks_while_the_run_starts_is_an_error_of_its_file(tmp_path, monkeypatch):
    job = job_in(tmp_path)
    monkeypatch.setattr("MedSAMSlicerLib.training.preconditions.check", lambda dataset: [])
    (tmp_path / "site" / "cases" / "case-0001" / "labels.seg.nrrd").write_bytes(b"")
    with pytest.raises(FileError, match=r"labels\.seg\.nrrd is empty"):
        fine_tune(job)


@pytest.mark.parametrize("splits", [("train", "train", "test"), ("validation", "test")])
def test_a_dataset_without_a_split_says_how_to_split_it(tmp_path, splits):
    made_up_site(tmp_path / "site", splits)
    blind_base(tmp_path / "base.pth")
    missing = "train" if splits[0] == "validation" else "validation"
    with pytest.raises(ValueError, match=f"has no case for {missing}: run medsam-slicer dataset split first"):
        fine_tune(job_in(tmp_path))


def test_an_adapter_of_an_adapter_is_refused(tmp_path):
    fine_tune(job_in(tmp_path, "adapter"))
    job = job_in(tmp_path, "adapter")
    again = type(job)(**{**vars(job), "base": str(tmp_path / "tuned.pth"), "output": tmp_path / "second.pth"})
    with pytest.raises(ValueError, match=r"is an adapter of 'base\.pth': give 'base\.pth' as the base, or"):
        fine_tune(again)


def test_embeddings_for_which_there_is_no_room_are_told_before_the_first(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("MedSAMSlicerLib.training.preconditions.shutil.disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=r"embeddings of the slices take up to 0\.0 GB .* give another folder, or fewer"):
        fine_tune(job_in(tmp_path))


@pytest.mark.parametrize("name", ["settings.json", "state.pt"])
@pytest.mark.parametrize("content", [b"{", b"junk", b"[" * 100_000])
def test_a_damaged_file_of_a_run_is_named_with_what_to_do(tmp_path, name, content):
    folder = RunFolder(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RunError, match=f"{name} is damaged: give another folder for the run, or delete this one"):
        folder.settle({}) if name == "settings.json" else folder.load_state()


def test_a_run_that_was_judged_by_fewer_kinds_of_boxes_is_not_gone_on_with(tmp_path):
    fine_tune(job_in(tmp_path, epochs=1))
    path = tmp_path / "tuned.run" / "settings.json"
    settings = json.loads(path.read_text())
    assert settings.pop("boxes") == ["tight", "one-slice", "per-slice"]
    path.write_text(json.dumps(settings))
    with pytest.raises(RunError, match=r"other settings \(boxes\): give these again .* or give another folder"):
        fine_tune(job_in(tmp_path, epochs=1))
