"""A whole run: from a site's cases to a model file, however often it is interrupted and whatever goes wrong."""

from __future__ import annotations

import errno
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch

from made_up_site import job_in
from MedSAMSlicerLib.dataset.site import SiteDataset
from MedSAMSlicerLib.evaluation.scores import score_case
from MedSAMSlicerLib.loading import load_predictor
from MedSAMSlicerLib.model import build_model, save_checkpoint
from MedSAMSlicerLib.training import embeddings as embeddings_module
from MedSAMSlicerLib.training import run as run_module
from MedSAMSlicerLib.training.fine_tuning import fine_tune
from MedSAMSlicerLib.training.loop import Diverged, Loop
from MedSAMSlicerLib.training.run import RunError
from MedSAMSlicerLib.training.samples import Feed
from MedSAMSlicerLib.training.validation import DICE_OF, Validation, spread


class Killed(BaseException):
    """As if the process had ended here: nothing may catch it."""


def kill_at(state: str, epoch: int, batch: int = 0):
    """Return a report that ends the run at a point."""

    def report(progress):
        if (progress.state, progress.epoch) == (state, epoch) and progress.batch >= batch:
            raise Killed

    return report


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "tuned.run" / "log.jsonl").read_text().splitlines()]


def progress_of(folder: Path) -> dict:
    return json.loads((folder / "tuned.run" / "progress.json").read_text())


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    content = torch.load(path, weights_only=True)
    adapter = content.get("adapter", {"low_rank": {}, "added": {}})
    pairs = {f"{name} {n}": factor for name, pair in adapter["low_rank"].items() for n, factor in enumerate(pair)}
    return {**content.get("model", {}), **adapter["added"], **pairs}


def without_time(rows: list[dict]) -> list[dict]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The folder of a run of the depth decoder that nothing has disturbed."""
    folder = tmp_path_factory.mktemp("finished")
    fine_tune(job_in(folder))
    return folder


@pytest.mark.parametrize("depth", ["decoder", "adapter", "full"])
def test_every_depth_writes_a_file_that_loads_by_its_path_and_scores_as_its_card_says(tmp_path, depth):
    outcome = fine_tune(job_in(tmp_path, depth, epochs=3))
    assert outcome.base["validation_dice"] == 0 < outcome.best["validation_dice"]
    predictor = load_predictor(str(tmp_path / "tuned.pth"), "cpu")
    card = predictor.model.metadata
    assert card["recipe"]["depth"] == depth
    assert card["validation"]["validation_dice"] == outcome.best["validation_dice"]
    dataset = SiteDataset.open(tmp_path / "site")
    (structure,) = spread([dataset.load(case) for case in dataset.cases if case.split == "test"], 1)
    # Embeddings are kept in half precision while training.
    for score, name in zip(score_case(structure, predictor), DICE_OF.values(), strict=True):
        assert score.dice == pytest.approx(card["test"][name], abs=0.1), score.box
    assert card["test"]["base"]["dice"] == 0


def test_the_log_and_the_progress_say_what_a_window_wants_to_show(finished):
    rows = log_of(finished)
    assert [row["epoch"] for row in rows] == [1, 2]
    keys = {"epoch", "train_loss", "validation_dice", "validation_surface_dice", "learning_rate", "seconds"}
    assert all(keys <= set(row) for row in rows)
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    progress = progress_of(finished)
    assert (progress["state"], progress["epoch"], progress["of"]) == ("done", 2, 2)
    assert progress["message"].startswith("Dice on 3 patients, each left out of training in turn: 0.000 to ")
    assert "Expected gain: +" in progress["message"]
    assert "sample cases are not on this computer" in progress["message"]


def test_the_card_names_base_and_data_but_no_patient(finished):
    content = torch.load(finished / "tuned.pth", weights_only=True)
    card = json.dumps(content["metadata"])
    assert content["metadata"]["base"]["name"] == "base.pth"
    assert content["metadata"]["data"]["patients"] == {"train": 2, "validation": 1, "test": 1}
    validation = content["metadata"]["validation"]
    assert validation["folds"] == validation["gain"]["count"] == 3
    assert 0 < validation["gain"]["lower"] <= validation["gain"]["upper"]
    assert "patients" not in validation
    assert validation["seconds"] > 0
    assert not any(word in card for word in ("Doe", "P0001", str(finished)))


def test_the_model_is_the_mean_of_what_each_fold_has_learned_at_the_strength_that_was_best(tmp_path):
    fine_tune(job_in(tmp_path, epochs=1))
    card = torch.load(tmp_path / "tuned.pth", weights_only=True)["metadata"]["validation"]
    state = torch.load(tmp_path / "tuned.run" / "state.pt", weights_only=True)
    base, tuned = weights_of(tmp_path / "base.pth"), weights_of(tmp_path / "tuned.pth")
    folds = [fold["trained"] for fold in state["folds"]]
    assert len(folds) == 3
    for name in folds[0]:
        key, learned = name.removeprefix("model."), torch.stack([fold[name] for fold in folds])
        torch.testing.assert_close(tuned[key], base[key] + card["strength"] * (learned.mean(dim=0) - base[key]))
        assert not torch.equal(learned[0], learned[1])


def test_no_fold_sees_the_patient_that_it_is_judged_by(tmp_path, monkeypatch):
    seen, judged = [], []
    drawn, scored = Feed.drawn, Validation._scores

    def draw(self, step):
        samples = drawn(self, step)
        seen.append({sample.outline.case_id for sample in samples})
        return samples

    def score(self, model, structures):
        judged.append({structure.case.id for structure in structures})
        return scored(self, model, structures)

    monkeypatch.setattr(Feed, "drawn", draw)
    monkeypatch.setattr(Validation, "_scores", score)
    fine_tune(job_in(tmp_path, epochs=1, strengths=(1.0,)))
    # The base model on all three, then each fold's model on its own.
    assert judged[:3] == judged[3:6] == [{"case-0001"}, {"case-0002"}, {"case-0003"}]
    trained = [case for cases in seen for case in sorted(cases)]
    assert set(trained) == {"case-0001", "case-0002", "case-0003"}
    first = trained[: trained.index("case-0001")]
    assert set(first) == {"case-0002", "case-0003"}


def test_with_ten_patients_the_split_counts_as_it_is(tmp_path):
    job = job_in(tmp_path, epochs=1, left_out_below=3)
    outcome = fine_tune(job)
    assert outcome.message.startswith("Dice on the validation patient: 0.000 to")
    assert "one patient can't tell" in outcome.message


def test_cases_that_chose_the_model_can_never_be_tested_on(finished):
    dataset = SiteDataset.open(finished / "site")
    used = [case.split for case in dataset.cases if dataset.runs(case)]
    assert used == ["train", "train", "validation"]
    with pytest.raises(ValueError, match=r"used for training \(tuned\.run\)"):
        dataset.assign("case-0001", "test")


@pytest.mark.parametrize("moment", [("training", 2, 1), ("validating", 2, 0), ("encoding", 2, 0)])
def test_a_run_that_was_killed_goes_on_to_the_same_bits(tmp_path, finished, moment):
    with pytest.raises(Killed):
        fine_tune(job_in(tmp_path), kill_at(*moment))
    assert not (tmp_path / "tuned.pth").exists()
    again = []
    fine_tune(job_in(tmp_path), again.append)
    assert min(progress.epoch for progress in again if progress.state == "training") == moment[1]
    assert without_time(log_of(tmp_path)) == without_time(log_of(finished))
    ours, theirs = weights_of(tmp_path / "tuned.pth"), weights_of(finished / "tuned.pth")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("depth", ["adapter", "full"])
def test_resuming_gives_the_same_bits_where_the_encoder_is_trained(tmp_path, depth):
    results = []
    for name, report in (("whole", lambda progress: None), ("cut", kill_at("training", 2, 1))):
        (tmp_path / name).mkdir()
        job = job_in(tmp_path / name, depth)
        try:
            fine_tune(job, report)
        except Killed:
            fine_tune(job)
        results.append(weights_of(tmp_path / name / "tuned.pth"))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_workers_beside_the_training_process_change_nothing(tmp_path, finished):
    job = job_in(tmp_path)
    fine_tune(type(job)(**{**vars(job), "workers": 1}))
    assert without_time(log_of(tmp_path)) == without_time(log_of(finished))


def test_a_file_stop_ends_the_run_after_the_batch_and_the_best_so_far_is_there(tmp_path):
    def report(progress):
        if (progress.state, progress.epoch) == ("training", 2):
            (tmp_path / "tuned.run" / "stop").touch()

    outcome = fine_tune(job_in(tmp_path), report)
    assert outcome.best["epoch"] == 1
    assert outcome.output == tmp_path / "tuned.pth"
    assert load_predictor(str(outcome.output), "cpu").model.metadata["test"] is None
    assert progress_of(tmp_path)["state"] == "stopped"
    # And the run can go on.
    fine_tune(job_in(tmp_path))
    assert len(log_of(tmp_path)) == 2


def test_a_signal_ends_the_run_in_order_and_is_as_before_afterward(tmp_path):
    number = signal.SIGTERM
    before = signal.getsignal(number)

    def report(progress):
        if (progress.state, progress.epoch) == ("training", 2):
            signal.raise_signal(number)

    outcome = fine_tune(job_in(tmp_path), report)
    assert outcome.message.startswith("Stopped")
    assert len(log_of(tmp_path)) == 1
    assert signal.getsignal(number) == before


def test_a_run_in_a_thread_as_in_a_window_needs_no_signals(tmp_path):
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(fine_tune(job_in(tmp_path, epochs=1))))
    thread.start()
    thread.join()
    assert len(outcomes) == 1


def test_the_process_may_be_killed_in_the_middle_of_writing_and_the_files_stay_whole(tmp_path, finished):
    job_in(tmp_path)
    code = (
        "import os, signal, torch\n"
        "from pathlib import Path\n"
        "from made_up_site import job_in\n"
        "from MedSAMSlicerLib.training.fine_tuning import fine_tune\n"
        "save = torch.save\n"
        "def dying(content, file):\n"
        "    if 'history' in content and content['epoch'] == 2:\n"
        "        file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
        "    save(content, file)\n"
        "torch.save = dying\n"
        f"fine_tune(job_in(Path({str(tmp_path)!r})))\n"
    )
    testing = Path(__file__).resolve().parents[1]
    folders = os.pathsep.join([str(testing), str(testing.parent / "MedSAMSlicer")])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": folders}, capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert torch.load(tmp_path / "tuned.run" / "state.pt", weights_only=True)["epoch"] == 1
    fine_tune(job_in(tmp_path))
    assert without_time(log_of(tmp_path)) == without_time(log_of(finished))


def test_a_full_disk_ends_the_run_with_a_clear_word_and_the_state_before_stays(tmp_path, finished, monkeypatch):
    saved = []

    def full(content, path):
        if path.name == "state.pt" and saved:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        saved.append(path.name)
        torch.save(content, path)

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "save_atomically", full)
        with pytest.raises(OSError, match="No space left"):
            fine_tune(job_in(tmp_path))
    assert "No space left" in progress_of(tmp_path)["message"]
    fine_tune(job_in(tmp_path))
    assert without_time(log_of(tmp_path)) == without_time(log_of(finished))


def test_embeddings_are_computed_once_for_all_runs_and_half_written_ones_again(tmp_path, monkeypatch):
    fine_tune(job_in(tmp_path, epochs=1))
    files = sorted((tmp_path / "embeddings").iterdir())
    files[0].write_bytes(files[0].read_bytes()[:1000])
    written = []
    save = np.save
    monkeypatch.setattr(embeddings_module.np, "save", lambda file, kept: (written.append(file.name), save(file, kept)))
    job = job_in(tmp_path, epochs=1, learning_rate=5e-4)
    fine_tune(type(job)(**{**vars(job), "output": tmp_path / "second.pth"}))
    assert len(written) <= 1
    assert sorted((tmp_path / "embeddings").iterdir()) == files


def test_a_loss_that_is_no_number_stops_and_names_the_case_and_what_was_good_stays(tmp_path, monkeypatch):
    prepared = Feed._prepared

    def broken(self, sample):
        found = prepared(self, sample)
        place = (sample.outline.case_id, sample.outline.label, sample.outline.index)
        if place == ("case-0002", "bright", 2) and (tmp_path / "tuned.run" / "best.pth").exists():
            found.tensor[:] = torch.nan
        return found

    monkeypatch.setattr(Feed, "_prepared", broken)
    with pytest.raises(Diverged, match=r"case-0002, 'bright', slice 2 is nan in epoch \d: look at this case, or"):
        fine_tune(job_in(tmp_path))
    assert progress_of(tmp_path)["state"] == "failed"
    best = tmp_path / "tuned.run" / "best.pth"
    assert load_predictor(str(best), "cpu").model.metadata["validation"]["epoch"] in (1, 2)


def test_a_folder_of_a_run_with_other_settings_or_cases_is_refused(finished):
    with pytest.raises(RunError, match=r"other settings \(recipe batch, recipe seed\): give these again"):
        fine_tune(job_in(finished, batch=2, seed=7))


def test_a_run_that_is_done_is_not_done_again(finished):
    before, states = (finished / "tuned.run" / "log.jsonl").read_bytes(), []
    fine_tune(job_in(finished), lambda progress: states.append(progress.state))
    assert "training" not in states
    assert (finished / "tuned.run" / "log.jsonl").read_bytes() == before


def test_no_file_is_written_if_no_epoch_is_better_than_the_base_model(tmp_path):
    job = job_in(tmp_path, epochs=2)
    model = build_model("tiny")
    torch.manual_seed(1)
    torch.nn.init.normal_(model.mask_decoder.output_hypernetworks_mlps[0].layers[2].weight)
    save_checkpoint(model, tmp_path / "base.pth")
    outcome = fine_tune(type(job)(**{**vars(job), "recipe": type(job.recipe)(epochs=1, learning_rate=1e-12)}))
    assert outcome.output is None
    assert outcome.best["epoch"] == 0
    assert outcome.message.startswith(
        "No model was written, go on with the base model: on 3 patients, each left out of training in turn the best "
        "epoch changes the Dice by 0.000"
    )
    assert "it takes about 5 patients to tell 0.02 from chance" in outcome.message
    assert not (tmp_path / "tuned.pth").exists()


def test_an_epoch_that_is_objected_to_is_never_the_best_and_patience_ends_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(
        Validation, "objection", lambda self, figures, model: "deaf to its box: response 0.01, base model 0.50"
    )
    outcome = fine_tune(job_in(tmp_path, epochs=6, patience=2))
    assert outcome.output is None
    rows = log_of(tmp_path)
    assert len(rows) == 2
    assert {row["best"] for row in rows} == {False}
    assert any("deaf" in row.get("objection", "") for row in rows)


def test_tensorboard_gets_the_figures_where_it_is_installed(tmp_path, monkeypatch):
    class Writer:
        """What we use of TensorBoard's, and nothing else."""

        written: ClassVar[list] = []

        def __init__(self, folder):
            assert folder == str(tmp_path / "tuned.run" / "tensorboard")

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

        def add_scalar(self, name, value, step):
            self.written.append((name, float(value), step))

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    fine_tune(job_in(tmp_path, epochs=2))
    curves = {(name, step) for name, _, step in Writer.written}
    assert {("train_loss", 1), ("train_loss", 2), ("validation_dice", 2), ("learning_rate", 2)} <= curves


def test_a_full_graphics_card_leaves_the_training_to_the_processor_from_the_last_epoch_on(tmp_path, monkeypatch):
    """The card is made of the CPU: it is full in the second epoch, as often as it is tried."""
    told, asked, gradients = [], [], Loop._gradients
    # Another name of the CPU, so that it is not taken for it.
    card = torch.device("cpu", 0)
    monkeypatch.setattr("MedSAMSlicerLib.training.fine_tuning.on_gpu", lambda team: team.device == card)
    monkeypatch.setattr("MedSAMSlicerLib.training.distributed.choose_device", lambda name: card)

    def full(loop, batch, parts):
        asked.append((loop.team.device, loop.epoch))
        if loop.team.device == card and loop.epoch == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return gradients(loop, batch, parts)

    monkeypatch.setattr(Loop, "_gradients", full)
    outcome = fine_tune(job_in(tmp_path, epochs=2), told.append)
    assert [each for each, _ in itertools.groupby(asked)] == [(card, 0), (card, 1), (torch.device("cpu"), 1)]
    assert "the training goes on with the processor" in outcome.message
    assert any("the training goes on with the processor" in each.message for each in told)
    assert [row["epoch"] for row in log_of(tmp_path)] == [1, 2]
