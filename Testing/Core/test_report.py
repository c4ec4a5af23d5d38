"""The report: figures, page, pictures and curves, and the command that writes it."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from box_predictor import BoxPredictor, FilledBoxes, Shape
from MedSAMSlicerLib.cli.main import main
from MedSAMSlicerLib.dataset.case import Case, LoadedCase
from MedSAMSlicerLib.dataset.site import SiteDataset
from MedSAMSlicerLib.evaluation.comparison import Comparison, compare
from MedSAMSlicerLib.evaluation.curves import curves, read_log
from MedSAMSlicerLib.evaluation.page import render
from MedSAMSlicerLib.evaluation.pictures import EXPERT, outlined, png
from MedSAMSlicerLib.evaluation.report import Report
from MedSAMSlicerLib.model import build_model, save_checkpoint
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.embedding_cache import Window
from MedSAMSlicerLib.volume.files import Volume

LOG = [
    {"epoch": 1, "train_loss": 0.9, "validation_dice": 0.61, "validation_surface_dice": 0.5, "best": False},
    {"epoch": 2, "train_loss": 0.5, "validation_dice": 0.74, "validation_surface_dice": 0.6, "best": True},
    {"epoch": 3, "train_loss": 0.4, "validation_dice": 0.72, "validation_surface_dice": 0.59, "best": False},
]
CARD = {"base": {"name": "lite"}, "data": {"labels": {"<liver>": 6}}, "test": None, "recipe": {"scales": [0.9, 1.1]}}


class Bright(BoxPredictor):
    """Segments what is bright in its box."""

    def encode(self, image: np.ndarray) -> Shape:
        super().encode(image)
        return Seen(image)

    def decode(self, embedding: Shape, boxes: list[Box], window: Window | None = None) -> FilledBoxes:
        filled = super().decode(embedding, boxes)
        return FilledBoxes(filled.probabilities * (embedding.image > 100), filled.iou).within(window)


class Seen(Shape):
    """An embedding that remembers the image."""

    def __init__(self, image: np.ndarray) -> None:
        super().__init__(*image.shape[:2])
        object.__setattr__(self, "image", image)


def case_of(number: int, radius: int, patient: str) -> tuple[LoadedCase, str]:
    j, i = np.indices((40, 48))
    ball = np.zeros((5, 40, 48), dtype=bool)
    ball[1:4] = (j - 19) ** 2 + (i - 20) ** 2 <= radius**2
    voxels = np.where(ball, 200, 50).astype(np.uint8)
    voxels[0, 0, :2] = number, 255
    volume = Volume(voxels, np.diag([1.0, 1.5, 4.0, 1]), "")
    case = Case(
        f"case-{number:04d}",
        patient,
        "test",
        ("<liver>",),
        "full",
        "display",
        volume.spacing,
        volume.dimensions,
        *"....",
    )
    return LoadedCase(case, volume, {"<liver>": ball}, "full")


@pytest.fixture
def comparison() -> Comparison:
    """Seven cases of six patients, on which a model that fills its box became one that finds the organ."""
    cases = [case_of(number, 5 + number, f"P{max(number, 2):04d}") for number in range(1, 8)]
    return compare(cases, BoxPredictor(), Bright(key="bright"))


@pytest.fixture
def report(comparison: Comparison) -> Report:
    return Report("lite", "site.pth", comparison, LOG, CARD)


class Page(HTMLParser):
    """Collects what a page shows and what it refers to; tags must be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.pictures: list[str] = []
        self.references: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe", "object")
        if tag not in ("img", "meta"):
            self.open.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "data"):
                (self.pictures if (value or "").startswith("data:image/png;base64,") else self.references).append(value)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag in ("line", "polyline", "circle")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_both_models_are_compared_by_patient_and_by_label(comparison):
    assert comparison.labels == ["<liver>"]
    assert len(comparison.patients) == 6
    before, after = comparison.means("dice")
    assert 0.6 < before < 0.95
    assert after == 1
    difference = comparison.difference("dice", label="<liver>")
    assert difference.count == 6
    assert difference.mean == pytest.approx(after - before)
    assert difference.lower > 0
    # The two cases of P0002 count together as much as one of the others.
    dice = {result.case_id: result.before.dice for result in comparison.results if result.box == "tight"}
    first, second, *others = (dice[f"case-{number:04d}"] for number in range(1, 8))
    assert before == pytest.approx(np.mean([(first + second) / 2, *others]))
    assert comparison.verdict().outcome == "better"
    before, after = comparison.responses
    assert before.value == pytest.approx(0, abs=1e-9)
    assert after.value == pytest.approx(1)


def test_a_model_that_became_worse_is_not_to_be_used():
    cases = [case_of(number, 5 + number, f"P{number:04d}") for number in range(1, 7)]
    steps = []
    found = compare(cases, Bright(key="bright"), BoxPredictor(), lambda: steps.append(None))
    assert len(steps) == 6
    assert found.verdict().text.startswith("Not better: do not use it.")
    worst = [view.result.after.dice for view in found.worst]
    assert worst == sorted(worst)


def test_no_case_can_not_be_compared():
    with pytest.raises(ValueError, match="no case to compare the models on: assign patients to the test"):
        compare([], BoxPredictor(), BoxPredictor())


def test_the_worst_structures_are_cut_out_where_the_model_is_wrong():
    (view,) = compare([case_of(1, 5, "P0001")], Bright(key="bright"), BoxPredictor()).worst
    np.testing.assert_array_equal(view.steps, [[0, 1.5, 0], [1, 0, 0]])
    assert view.image.shape == view.expert.shape == view.after.shape
    assert view.expert.shape[0] < 40
    np.testing.assert_array_equal(view.expert, view.image > 100)
    np.testing.assert_array_equal(view.before, view.expert)
    assert view.after[view.expert].mean() > 0.9
    assert (view.after & ~view.expert).any()


def test_a_model_that_loses_from_a_box_on_one_slice_alone_is_not_to_be_used(comparison):
    worse = [
        replace(result, before=result.after, after=result.before) if result.box == "one-slice" else result
        for result in comparison.results
    ]
    assert comparison.verdict().outcome == "better"
    verdict = replace(comparison, results=tuple(worse)).verdict()
    assert verdict.outcome == "not better"
    assert "From a box on one slice Dice changes by −" in verdict.text


def test_the_json_holds_the_figures_of_the_page(report):
    content = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert content["verdict"]["outcome"] == "better"
    assert (content["base"], content["tuned"], content["patients"]) == ("lite", "site.pth", 6)
    dice = content["labels"]["<liver>"][0]
    assert (dice["figure"], dice["box"], dice["after"]) == ("dice", "tight", 1.0)
    assert dice["difference"]["mean"] == pytest.approx(1 - dice["before"])
    assert len(content["results"]) == 21
    assert (content["log"], content["card"]) == (LOG, CARD)


def test_the_page_is_complete_in_itself_and_shows_everything(report):
    page = render(report)
    parsed = Page(page)
    assert parsed.references == []
    assert len(parsed.pictures) == 6
    assert not re.search(r"https?://|@import|url\(", page)
    text = " ".join(parsed.text)
    for part in (
        report.comparison.verdict().text,
        "<liver>",
        "Surface Dice (2 mm), one 3-D box",
        "Dice, a box on one slice",
        "Chosen by its validation: the model of epoch 2.",
        "case-0001, <liver>: Dice",
        "data: labels: <liver>",
        "0.9, 1.1",
    ):
        assert part in text
    assert "<liver>" not in page
    picture = base64.b64decode(parsed.pictures[0].split(",")[1])
    assert picture.startswith(b"\x89PNG")


def test_a_page_without_log_card_and_response_leaves_them_out(report):
    bare = Report("lite", "site.pth", replace(report.comparison, responses=None))
    text = " ".join(Page(render(bare)).text)
    assert "Learning curves" not in text
    assert "Model card" not in text
    assert "No structure is large enough to measure it." in text
    assert bare.to_json()["box_response"] is None


# A slice of an image in LPS order, as DICOM has it, with pixels twice as high as wide.
AXIAL = np.array([[0, -2.0, 0], [-1.0, 0, 0]])


def test_pictures_are_png_files_of_the_slice_with_outlines(tmp_path):
    image = np.full((10, 20), 77, dtype=np.uint8)
    mask = np.zeros((10, 20), dtype=bool)
    mask[2:8, 5:15] = True
    picture = outlined(image, [(mask, EXPERT)], AXIAL)
    assert picture.shape == (260, 260, 3)
    (tmp_path / "picture.png").write_bytes(png(picture))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "picture.png"))), picture)
    rows, columns = np.nonzero((picture == EXPERT).all(axis=2))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (52, 207, 65, 194)
    assert (picture[130, 130] == 77).all()
    assert (picture[10, 10] == 77).all()
    color = np.dstack([image, image + 1, image + 2])
    assert (outlined(color, [], AXIAL)[130, 130] == (77, 78, 79)).all()


@pytest.mark.parametrize(
    ("down", "across", "corner"),
    [
        ((0, -2, 0), (-1, 0, 0), (0, 0)),
        ((0, 2, 0), (1, 0, 0), (1, 1)),
        ((0, 0, 2), (-1, 0, 0), (1, 0)),
        ((0, 0, 2), (0, -1, 0), (1, 0)),
        ((0, 0.3, -2), (0, 1, 0.2), (0, 1)),
        ((-1, 0, 0), (0, -2, 0), (0, 0)),
        ((0, 1, 0), (0, 0, -2), (0, 1)),
    ],
    ids=["axial", "axial, RAS", "coronal", "sagittal", "sagittal, oblique", "axial, lying", "sagittal, lying"],
)
def test_pictures_stand_as_radiologists_look_at_them(down, across, corner):
    """The first pixel is found where the patient's right or anterior is left, and anterior or superior on top."""
    image = np.zeros((20, 40) if max(map(abs, down)) == 2 else (40, 20), dtype=np.uint8)
    image[0, 0] = 255
    picture = outlined(image, [], np.array([down, across], dtype=float))[..., 0]
    assert picture.shape[1] == 260
    assert abs(picture.shape[0] - 260) <= 10
    rows, columns = np.nonzero(picture)
    assert (rows.mean() > 130, columns.mean() > 130) == corner


def test_learning_curves_are_drawn_in_the_order_of_the_epochs():
    svg = ElementTree.fromstring(curves("Loss", LOG, [("train_loss", "loss", "#0072b2")]))
    (line,) = svg.iter("polyline")
    places = [tuple(map(float, point.split(","))) for point in line.get("points").split()]
    assert [x for x, _ in places] == sorted(x for x, _ in places)
    # A smaller loss is lower on the page.
    assert [y for _, y in places] == sorted(y for _, y in places)
    assert all(0 < x < 440 and 0 < y < 240 for x, y in places)


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5], [0.0, 0.0], [1e-7, 1e6], [-3.0, float("nan"), 2.0, None]])
def test_curves_of_one_epoch_of_no_change_or_with_gaps_stay_within_the_picture(values):
    rows = [{"epoch": epoch, "loss": value} for epoch, value in enumerate(values, start=1)]
    svg = ElementTree.fromstring(curves("<Loss>", rows, [("loss", "loss", "red")]))
    circles = list(svg.iter("circle"))
    assert len(circles) == sum(value is not None and value == value for value in values)
    for circle in circles:
        assert 0 < float(circle.get("cx")) < 440
        assert 0 < float(circle.get("cy")) < 240
    assert 2 <= len(list(svg.iter("line"))) <= 8


def test_without_figures_there_is_no_curve():
    assert curves("Loss", [{"epoch": 1}], [("loss", "loss", "red")]) == ""


def test_a_log_is_read_and_a_line_that_was_cut_off_left_out(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in LOG))
    assert read_log(path) == LOG
    path.write_text(path.read_text()[:-20])
    assert read_log(path) == LOG[:2]
    for content, text in (
        ('{"epoch": 1}\nhello\n{"epoch": 2}\n', "line 2 is not JSON"),
        ("[1]\n", "line 1 has no epoch"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=text):
            read_log(path)


@pytest.fixture
def site(tmp_path: Path) -> SiteDataset:
    """Three patients, one of them in the test."""
    dataset = SiteDataset.create(tmp_path / "site")
    for number in range(1, 4):
        loaded = case_of(number, 8 + number, "")
        dataset.add(loaded.volume, {"liver": loaded.labels["<liver>"]}, patient=None)
    dataset.split()
    return dataset


@pytest.fixture
def models(tmp_path: Path) -> tuple[str, str]:
    """Base model and tuned model, both tiny."""
    model = build_model("tiny")
    save_checkpoint(model, tmp_path / "base.pth")
    with torch.no_grad():
        for parameter in model.mask_decoder.parameters():
            parameter += 0.01
    card = {"base": {"name": str(tmp_path / "base.pth")}, "seed": 7, "validation": {"seconds": 0.5}}
    save_checkpoint(model, tmp_path / "tuned.pth", **card)
    return str(tmp_path / "base.pth"), str(tmp_path / "tuned.pth")


def test_the_command_writes_page_and_figures_and_prints_the_verdict(site, models, tmp_path, capfd):
    (tmp_path / "log.jsonl").write_text(json.dumps(LOG[0]) + "\n")
    output = tmp_path / "out" / "liver.html"
    arguments = ["report", "--data", str(site.folder), "--model", models[1], "--log", str(tmp_path / "log.jsonl")]
    assert main([*arguments, "--device", "cpu", "--output", str(output)]) == 0
    out, _ = capfd.readouterr()
    assert out.splitlines()[0].startswith("Too few held-out patients to tell: 1")
    assert sorted(path.name for path in output.parent.iterdir()) == ["liver.html", "liver.json"]
    content = json.loads(output.with_suffix(".json").read_text())
    # The base model is the one that the card names, and no folder of this computer is told.
    assert (content["base"], content["tuned"], content["card"]["seed"]) == ("base.pth", "tuned.pth", 7)
    (test,) = (case.id for case in site.cases if case.split == "test")
    assert {result["case_id"] for result in content["results"]} == {test}
    assert "Training loss" in output.read_text(encoding="utf-8")


def test_a_specialist_is_trained_for_as_long_as_the_model_was_and_shown_beside_it(site, models, tmp_path, capfd):
    output = tmp_path / "liver.html"
    report = ["report", "--data", str(site.folder), "--model", models[1], "--device", "cpu", "--output", str(output)]
    assert main([*report, "--specialist"]) == 0
    content = json.loads(output.with_suffix(".json").read_text())["specialist"]
    (test,) = (case.id for case in site.cases if case.split == "test")
    (result,) = content["results"]
    assert (result["case_id"], result["label"]) == (test, "liver")
    assert content["seconds"] >= 0.5
    text = f"A small U-Net, trained on the same cases for {content['seconds'] / 60:.1f} minutes and given no box: Dice "
    assert f"{text}{result['dice']:.3f} on the same patients; tuned.pth " in capfd.readouterr().out
    assert text in output.read_text(encoding="utf-8")


def error_of(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith("medsam-slicer: error: ")
    return err.splitlines()[-1]


def test_what_can_not_be_reported_is_told_in_one_line_and_leaves_nothing(site, models, tmp_path, capfd):
    base, tuned = models
    out = tmp_path / "out"
    report = ["report", "--data", str(site.folder), "--device", "cpu", "--output", str(out / "r.html")]
    assert "r.pdf must end with .html" in error_of([*report[:-1], "r.pdf", "--model", tuned], capfd)
    assert "are the same model" in error_of([*report, "--model", tuned, "--base", tuned], capfd)
    assert "unknown" in error_of([*report, "--model", "nothing.pth"], capfd)
    (case,) = (case for case in site.cases if case.split == "test")
    site.image_path(case).unlink()
    assert f"{case.id}/image.nrrd does not exist" in error_of([*report, "--model", tuned, "--base", base], capfd)
    index = site.folder / "dataset.json"
    trained = next(case for case in site.cases if case.split == "train")
    site.mark_used([trained.id], "run 7")
    index.write_text(index.read_text().replace('"split": "train"', '"split": "test"'))
    assert "was used for training (run 7)" in error_of([*report, "--model", tuned], capfd)
    index.write_text(index.read_text().replace('"split": "test"', '"split": "train"'))
    assert "has no case in the test split" in error_of([*report, "--model", tuned], capfd)
    assert not out.exists() or list(out.iterdir()) == []
