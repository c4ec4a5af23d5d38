"""From a site's dataset to a model file: the whole of a run."""

from __future__ import annotations

import contextlib
import copy
import gc
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from MedSAMSlicerLib.dataset.case import Case
from MedSAMSlicerLib.dataset.site import SiteDataset
from MedSAMSlicerLib.evaluation.scores import FOUND_FROM
from MedSAMSlicerLib.inference.device import give_back_memory, out_of_memory
from MedSAMSlicerLib.inference.predictor import Predictor
from MedSAMSlicerLib.model import load_checkpoint
from MedSAMSlicerLib.store.folder import sha256_of, store_folder
from MedSAMSlicerLib.store.weights import WeightsStore
from MedSAMSlicerLib.training.conclusion import anonymous, gained, told
from MedSAMSlicerLib.training.distributed import Team, joined
from MedSAMSlicerLib.training.embeddings import StoredEmbeddings
from MedSAMSlicerLib.training.folds import folds_of
from MedSAMSlicerLib.training.loop import Loop, Stopped
from MedSAMSlicerLib.training.model_file import export_official, model_card, publish
from MedSAMSlicerLib.training.outlines import Outlines
from MedSAMSlicerLib.training.preconditions import check_dataset, check_output, check_room, load_base
from MedSAMSlicerLib.training.recipe import Recipe
from MedSAMSlicerLib.training.run import Progress, RunFolder, interruptible, show_in_tensorboard
from MedSAMSlicerLib.training.samples import Samples
from MedSAMSlicerLib.training.strengths import sample_cases
from MedSAMSlicerLib.training.trainee import Trainee
from MedSAMSlicerLib.training.validation import Validation, spread


@dataclass(frozen=True)
class Job:
    """What a user asks for. Several machines must share the file system of all these paths.

    :param data: folder of the `dataset.site.SiteDataset`.
    :param output: the model file to write.
    :param base: name or file of the model to start from, see `loading.load_predictor`.
    :param official: a second file to write, as the official code loads it, see `model_file.export_official`.
    :param run_folder: where the run keeps its state, by default beside the output.
    :param workers: processes that prepare samples beside the one that trains.
    :param embeddings: folder of the embeddings of the depth decoder, by default in the store; runs share it.
    :param samples: folder of the sample cases, by default that of the store.
    """

    data: Path
    output: Path
    recipe: Recipe
    base: str = "lite"
    official: Path | None = None
    run_folder: Path | None = None
    device: str = "auto"
    workers: int = 0
    embeddings: Path | None = None
    samples: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    :param output: the model file; None if no epoch was better than the base model.
    :param best: figures of the best epoch; those of the base model, with epoch 0, if none was better.
    :param base: figures of the base model.
    :param test: figures of the test cases; None if there are none, or if the run was stopped.
    :param message: a sentence for the user.
    :param interrupted: whether a signal has ended it.
    """

    output: Path | None
    best: dict[str, Any]
    base: dict[str, Any]
    test: dict[str, float] | None
    message: str
    interrupted: bool = False


def fine_tune(
    job: Job, report: Callable[[Progress], object] = lambda progress: None, store: WeightsStore | None = None
) -> Outcome:
    """Fine-tune a model on the cases of a site; go on where an earlier start of the same run was ended.

    A file ``stop`` in the run's folder, SIGINT or SIGTERM end it after the current batch; the best so far is kept. The
    cases are marked as used in the dataset, so that they never serve for a report.

    :param report: called with the progress.
    :raises ValueError: if the dataset or the base model can't be used, or another run is in the folder.
    :raises OSError: if a file can't be written; what was written before stays.
    :raises loop.Diverged: if a loss is not a number.
    """
    folder = RunFolder(job.run_folder or job.output.with_name(f"{job.output.stem}.run"))
    with contextlib.ExitStack() as stack:
        team = stack.enter_context(joined(job.device))
        if team.leads:
            stack.enter_context(folder.held())
        interrupted = stack.enter_context(interruptible())

        def tell(progress: Progress) -> None:
            if team.leads:
                folder.tell(progress)
                report(progress)
            stop = interrupted.is_set() or folder.stop_requested()
            # Of several processes all meet between batches only.
            if team.size == 1 or progress.state == "training":
                stop = any(team.gather(stop))
                if stop:
                    raise Stopped

        try:
            outcome = _endured(job, folder, team, store or WeightsStore(), tell)
            return replace(outcome, interrupted=interrupted.is_set())
        except Exception as error:
            if team.leads:
                folder.tell(Progress("failed", message=str(error)))
            raise


def _endured(job: Job, folder: RunFolder, team: Team, store: WeightsStore, tell: Callable[[Progress], None]) -> Outcome:
    """Carry a run out; where the GPU's memory is full, go on from the last epoch once more there, then on the CPU.

    Of several processes none can go on elsewhere on its own: there it is an error.
    """
    for _ in range(2):
        try:
            return _Run(job, folder, team, store, tell).outcome()
        except RuntimeError as error:
            if not out_of_memory(error) or not on_gpu(team):
                raise
            if team.size > 1:
                raise RuntimeError(
                    f"The memory of the graphics card {team.device} is full: give a smaller --batch. ({error})"
                ) from error
        # What a run is made of refers to itself.
        gc.collect()
        give_back_memory()
    told = "The graphics card has not enough memory: the training goes on with the processor."
    tell(Progress("preparing", of=job.recipe.epochs, message=told))
    outcome = _Run(job, folder, Team(team.rank, team.size, torch.device("cpu")), store, tell).outcome()
    return replace(outcome, message=f"{told} {outcome.message}")


def on_gpu(team: Team) -> bool:
    """Return whether there is a CPU to go on with."""
    return team.device.type != "cpu"


class _Run:
    """The parts of a run, put together."""

    def __init__(
        self, job: Job, folder: RunFolder, team: Team, store: WeightsStore, tell: Callable[[Progress], None]
    ) -> None:
        self.job, self.folder, self.team, self.store, self.tell = job, folder, team, store, tell
        recipe = job.recipe
        if team.leads:
            folder.tell(Progress("preparing", of=recipe.epochs))
        self.dataset = SiteDataset.open(job.data)
        self.train, self.held, self.kept = (
            [case for case in self.dataset.cases if case.split == split] for split in ("train", "validation", "test")
        )
        if team.leads:
            check_dataset(self.dataset, self.train, self.held)
        self.base_path, self.base = load_base(job.base, recipe.depth, store)
        for output in filter(None, (job.output, job.official)):
            check_output(output, self.base_path, self.base)
        known = any(weights.name == job.base for weights in store.catalog)
        origin = (job.base if known else self.base_path.name, sha256_of(self.base_path))
        self.folds = folds_of(self.train, self.held, recipe)
        loaded = {case.id: case for fold in self.folds for case in fold.train}
        outlines = Outlines(self.dataset.load(case) for case in loaded.values())
        self.trainee = Trainee(self.base, recipe, *origin)
        embeddings = None
        if self.trainee.from_embeddings:
            embeddings_folder = job.embeddings or store_folder() / "embeddings"
            check_room(embeddings_folder, self.base, outlines.slices * recipe.variants)
            encoder = Predictor(copy.deepcopy(self.base), device=str(team.device))
            embeddings = StoredEmbeddings(embeddings_folder, encoder)
        self.validation = Validation(
            [[self.dataset.load(case) for case in fold.held] for fold in self.folds],
            self.base,
            recipe,
            team,
            sample_cases(job.samples),
            embeddings,
            lambda: tell(self.loop.progress("validating")),
        )
        self.loop = Loop(
            self.trainee,
            [Samples(outlines.of_cases({case.id for case in fold.train}), recipe) for fold in self.folds],
            self.validation,
            team,
            embeddings=embeddings,
            workers=job.workers,
            tell=tell,
            keep=self._keep,
        )
        self.card = model_card(*origin, recipe, [*self._seen(), *self.kept], len(outlines.all))
        # Only now that all that may be refused has been loaded.
        if team.leads:
            seen = {case.id: [case.split, case.checksum, case.labels_checksum, case.window] for case in self._seen()}
            settings = {"recipe": asdict(recipe), "base": list(origin), "cases": seen}
            # A run that an older version has begun was judged by fewer kinds of boxes.
            folder.settle({**settings, "boxes": list(FOUND_FROM)})
            self.dataset.mark_used(list(seen), folder.folder.absolute().name)

    def outcome(self) -> Outcome:
        """Train, test, and write the model."""
        stopped = False
        try:
            state = self.folder.load_state()
            if state:
                self.validation.before = state["base"]
                self.loop.restore(state)
            else:
                self.validation.before = self.validation.figures(lambda fold: copy.deepcopy(self.base))
                self.loop.best = {**self.validation.before, "epoch": 0}
            self.loop.run()
            test = self._tested() if self.kept and self.loop.best["epoch"] else None
        except Stopped:
            stopped, test = True, None
        best = self.loop.best
        output = self.job.output if best.get("epoch") else None
        if output and self.team.leads:
            publish(self.folder.best, output, test)
            if self.job.official:
                export_official(str(output), self.job.official, self.store)
        message = told(self.loop.history, self.validation, self.folds, stopped=stopped)
        outcome = Outcome(output, best, self.validation.before, test, message)
        if self.team.leads:
            end = self.loop.progress("stopped" if stopped else "done", message=outcome.message)
            self.folder.tell(end)
        return outcome

    def _seen(self) -> list[Case]:
        """List the cases that have a part in the choice of the model."""
        return [*self.train, *self.held]

    def _keep(self, state: dict[str, Any], history: list[dict[str, Any]], is_best: bool) -> None:
        """Write what an epoch has brought: the model first, as the state refers to it."""
        if not self.team.leads:
            return
        if is_best:
            before = self.validation.before
            gain = asdict(gained(before, state["best"]))
            figures = {**anonymous(state["best"]), "base": anonymous(before), "gain": gain, "folds": len(self.folds)}
            figures["seconds"] = sum(row["seconds"] for row in history)
            self.trainee.save(self.folder.best, {**self.card, "validation": figures})
        self.folder.save_state({**state, "base": self.validation.before}, history)
        show_in_tensorboard(self.folder.folder / "tensorboard", history[-1])

    def _tested(self) -> dict[str, Any]:
        """Measure the best model and the base model on cases that had no part in anything."""
        structures = spread([self.dataset.load(case) for case in self.kept], self.job.recipe.validated_structures)
        best = load_checkpoint(self.folder.best, lambda name, sha256: self.base_path)
        after = self.validation.scored(best, structures)
        base = self.validation.scored(copy.deepcopy(self.base), structures)
        return {**after, "structures": len(structures), "base": base}
