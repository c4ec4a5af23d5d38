"""The command train."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch

from made_up_site import job_in
from MedSAMSlicerLib.cli import train
from MedSAMSlicerLib.cli.main import main
from MedSAMSlicerLib.loading import load_predictor


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("MEDSAM_SLICER_HOME", str(tmp_path / "home"))
    job_in(tmp_path)
    values = {
        "data": tmp_path / "site", "base": tmp_path / "base.pth", "output": tmp_path / "tuned.pth", "device": "cpu",
        "epochs": 2, "batch": 4, "learning-rate": 1e-3, "validated-structures": 1,
    }  # fmt: skip
    return ["train", *(f"--{name}={value}" for name, value in values.items())]


def test_the_command_writes_the_model_its_figures_and_the_official_layout(options, tmp_path, capsys):
    official, figures = tmp_path / "official.pth", tmp_path / "figures.json"
    assert main([*options, f"--official={official}", f"--json={figures}"]) == 0
    errors = capsys.readouterr().err
    assert "Dice on 3 patients, each left out of training in turn: 0.000 to" in errors
    assert "Expected gain: +" in errors
    assert "100 %" not in errors.split("Training")[0]
    outcome = json.loads(figures.read_text())
    assert outcome["output"] == str(tmp_path / "tuned.pth")
    assert outcome["test"]["dice"] > outcome["test"]["base"]["dice"] == 0
    model = load_predictor(str(tmp_path / "tuned.pth"), "cpu").model
    assert model.metadata["recipe"]["epochs"] == 2
    assert "image_encoder.pos_embed" in torch.load(official, weights_only=True)


def test_a_training_that_is_interrupted_has_the_exit_code_of_ctrl_c(options, tmp_path, monkeypatch):
    shown = train._show

    def interrupt(progress, bar):
        shown(progress, bar)
        if (progress.state, progress.epoch) == ("training", 2):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(train, "_show", interrupt)
    assert main(options) == 130
    assert (tmp_path / "tuned.run" / "state.pt").exists()


@pytest.mark.parametrize("window", ["kidney", "0/0"])
def test_a_training_that_is_refused_leaves_nothing_and_runs_once_the_dataset_is_right(
    options, tmp_path, capsys, window
):
    index = tmp_path / "site" / "dataset.json"
    right = index.read_text()
    index.write_text(right.replace('"window": "full"', f'"window": "{window}"'))
    assert main(["dataset", "check", "--data", str(tmp_path / "site")]) == 1
    assert window in capsys.readouterr().out
    run = ["--run", str(tmp_path / "runs" / "mine")]
    assert main([*options, *run]) == 1
    assert window in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    index.write_text(right)
    assert main([*options, *run, "--epochs=1"]) == 0


def test_the_base_of_the_base_is_not_written_over(options, tmp_path, capsys):
    adapter = tmp_path / "adapter.pth"
    assert main([*options, "--depth=adapter", f"--output={adapter}", "--epochs=1"]) == 0
    before = (tmp_path / "base.pth").read_bytes()
    assert main([*options, f"--base={adapter}", f"--output={tmp_path / 'base.pth'}"]) == 1
    assert "base.pth that is trained from: give it another path" in capsys.readouterr().err
    official = f"--official={tmp_path / 'base.pth'}"
    assert main([*options, f"--base={adapter}", f"--output={tmp_path / 'new.pth'}", official, "--epochs=1"]) == 1
    assert "base.pth that is trained from: give it another path" in capsys.readouterr().err
    assert (tmp_path / "base.pth").read_bytes() == before


def test_no_better_model_is_no_success(options, tmp_path, capsys):
    # No step of this size changes a mask.
    assert main([*options, "--learning-rate=1e-12"]) == 1
    assert "No model was written, go on with the base model" in capsys.readouterr().err
    assert not (tmp_path / "tuned.pth").exists()


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ("--output=model.bin", "must end with .pth"),
        ("--epochs=0", "epochs is 0: give 1 or more"),
        ("--base=litte", "the model 'litte' is unknown"),
        ("--data=nowhere", "nowhere is no dataset"),
        ("--precision=int4", "'int4' is unknown: give one of auto, float32"),
    ],
)
def test_what_cannot_work_is_one_line_that_says_why(options, capsys, wrong, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*options, wrong]) == 1
    error = capsys.readouterr().err
    assert text.lower() in error.lower()
    assert "Traceback" not in error
