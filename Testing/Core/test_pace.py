"""What a run will take is told from what others have taken, and by nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from MedSAMSlicerLib.cli.foretold import foretell
from MedSAMSlicerLib.store import pace
from MedSAMSlicerLib.store.pace import remember_pace, seconds_for, told


def test_a_run_takes_what_the_slowest_of_the_last_ones_of_its_kind_took_a_slice() -> None:
    assert seconds_for("lite cpu auto", 30) is None
    for seconds in (90.0, 10.0, 12.0, 11.0, 10.0, 10.0):
        remember_pace("lite cpu auto", 10, seconds)
    remember_pace("vit_b cpu auto", 10, 500.0)
    assert seconds_for("lite cpu auto", 30) == pytest.approx(36.0)
    assert seconds_for("lite cuda auto", 30) is None


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", '{"lite": "fast"}', '{"lite": [null]}', '{"lite": [-1, 0]}'])
def test_a_damaged_file_foretells_nothing_and_is_mended(content: str) -> None:
    pace.pace_file().parent.mkdir(parents=True)
    pace.pace_file().write_text(content, encoding="utf-8")
    assert not seconds_for("lite", 3)
    remember_pace("lite", 2, 4.0)
    assert seconds_for("lite", 3) == pytest.approx(6.0)


def test_a_store_that_cant_be_written_to_foretells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(pace, "pace_file", lambda: tmp_path / "file" / "pace.json")
    remember_pace("lite", 2, 4.0)
    assert seconds_for("lite", 3) is None


def test_only_the_kinds_of_the_last_runs_are_kept() -> None:
    for number in range(60):
        remember_pace(f"model {number}", 1, 1.0)
    assert seconds_for("model 9", 1) is None
    assert seconds_for("model 59", 1) == 1.0


def test_times_are_told_as_people_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert [told(each) for each in (0.2, 28.4, 89.0, 130.0, 4000.0, 9000.0)] == [
        "1 s", "28 s", "89 s", "2 min", "67 min", "2.5 h",
    ]  # fmt: skip
    foretell("lite", 30, "slices")
    assert capsys.readouterr().err == ""
    remember_pace("lite", 10, 10.0)
    foretell("lite", 30, "slices")
    foretell("lite", 0, "slices")
    assert capsys.readouterr().err == "30 slices: about 30 s, at the pace of the last runs\n"
