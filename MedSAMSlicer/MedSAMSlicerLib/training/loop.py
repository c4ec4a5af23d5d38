"""The epochs of a run: batches, validation, the choice of the best, the end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from MedSAMSlicerLib.inference.device import full_precision
from MedSAMSlicerLib.inference.recipes import RECIPES
from MedSAMSlicerLib.model import Network
from MedSAMSlicerLib.training.distributed import Team
from MedSAMSlicerLib.training.embeddings import StoredEmbeddings
from MedSAMSlicerLib.training.losses import sample_losses
from MedSAMSlicerLib.training.run import Progress
from MedSAMSlicerLib.training.samples import Feed, Prepared, Samples
from MedSAMSlicerLib.training.trainee import Trainee


class Diverged(RuntimeError):
    """The loss is not a number; the text names the case."""


class Stopped(Exception):
    """Somebody has asked the run to stop."""


class Judge(Protocol):
    """What the loop needs of `validation.Validation`."""

    def figures(self, model_of: Callable[[int], Network]) -> dict[str, float]:
        """Measure the models of all folds: at least ``validation_score``, which the best epoch is chosen by."""

    def objection(self, figures: dict[str, float], model: Network) -> str:
        """Say why a model can't be the best, whatever its score; empty if it can."""


class Loop:
    """Train epoch by epoch; after each one everything that the next one begins with is handed out to be kept.

    All folds are at the same epoch: each has weights and an optimizer of its own, and takes the trainee in turn. The
    model of an epoch is the mean of their weights, moved toward the base model by one of the recipe's strengths.

    ``best`` holds the figures of the best epoch; who fills it in before sets what the first one must surpass.

    :param folds: what each is trained on; a single one where cases are held out for good.
    :param embeddings: of the depth decoder.
    :param tell: called with the progress after every batch; raises `Stopped` to end the run.
    :param keep: called after every epoch with the state, the log and whether this epoch is the best.
    """

    def __init__(
        self,
        trainee: Trainee,
        folds: Sequence[Samples],
        judge: Judge,
        team: Team,
        *,
        embeddings: StoredEmbeddings | None,
        workers: int,
        tell: Callable[[Progress], None],
        keep: Callable[[dict[str, Any], list[dict[str, Any]], bool], None],
    ) -> None:
        self.trainee, self.folds, self.judge, self.team = trainee, folds, judge, team
        self.recipe = trainee.recipe
        self.preprocessing = RECIPES[trainee.model.preprocessing](trainee.model.image_size)
        self._embeddings, self._workers = embeddings, workers
        self._tell, self._keep = tell, keep
        trainee.to(team.device)
        self._parameters = list(trainee.trained().values())
        # Of the fold that is trained, see `_enter`.
        self._optimizer: torch.optim.Optimizer
        self._scaler: torch.amp.GradScaler | None
        on_gpu = team.device.type == "cuda" and self.recipe.precision == "auto"
        self._half = (torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16) if on_gpu else None
        self.epoch = 0
        self.best: dict[str, float] = {}
        self._since_best = 0
        self.history: list[dict[str, Any]] = []
        self._clock = (time.monotonic(), 0.0)
        self._start = self._taken()
        # What each fold goes on with; None before its first epoch.
        self._members: list[dict[str, Any] | None] = [None] * len(folds)

    def state(self) -> dict[str, Any]:
        """Return everything that `restore` needs, as torch.save takes it."""
        return {
            "epoch": self.epoch,
            "best": self.best,
            "since_best": self._since_best,
            "folds": self._members,
            "random": torch.get_rng_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.epoch, self.best, self._since_best = state["epoch"], state["best"], state["since_best"]
        self.history, self._members = list(state["history"]), list(state["folds"])
        torch.set_rng_state(state["random"])

    def model(self, strength: float, fold: int | None = None) -> Network:
        """Return the model of a fold as its file would give it back, or that of the mean of all folds' weights.

        :param strength: 1 for the weights as they were trained, less for weights between those and the base model's.
        """
        members = [each for each in (self._members if fold is None else [self._members[fold]]) if each]
        mean = {name: sum(each["trained"][name] for each in members) / len(members) for name in self._start}
        self.trainee.restore({name: start.lerp(mean[name], strength) for name, start in self._start.items()})
        return self.trainee.result()

    def run(self) -> None:
        """Train until all epochs are done, or patience is at its end.

        :raises Stopped: if ``tell`` does.
        :raises Diverged: if a loss is not a number.
        """
        self._clock = (time.monotonic(), float(self.epoch))
        while self.epoch < self.recipe.epochs and self._since_best < self.recipe.patience:
            start = time.monotonic()
            loss = sum(self._train_epoch(fold) for fold in range(len(self.folds))) / len(self.folds)
            self._tell(self.progress("validating"))
            figures, objection, is_best = self._judged()
            if is_best:
                self.best = {**figures, "epoch": self.epoch + 1}
            self._since_best = 0 if is_best else self._since_best + 1
            self.epoch += 1
            row: dict[str, Any] = {"epoch": self.epoch, "train_loss": loss, **figures}
            row |= {"learning_rate": self._rate(self.epoch - 1), "seconds": round(time.monotonic() - start, 3)}
            row |= {"best": is_best} | ({"objection": objection} if objection else {})
            self.history.append(row)
            self._keep(self.state(), self.history, is_best)

    def _judged(self) -> tuple[dict[str, float], str, bool]:
        """Judge the epoch at every strength; return the figures, an objection, and whether it is the best one so far.

        Of the strengths that surpass the best so far, the first without an objection counts, from the highest score
        on; the trainee is left at it. Otherwise the figures are those of the highest score.
        """
        tried = [
            {**self.judge.figures(partial(self.model, strength)), "strength": strength}
            for strength in self.recipe.strengths
        ]
        tried.sort(key=lambda figures: figures["validation_score"], reverse=True)
        first = ""
        for figures in tried:
            if self.best and figures["validation_score"] <= self.best["validation_score"]:
                break
            # Rounding differs between GPUs, and all processes must go the same way.
            objection = self.team.gather(self.judge.objection(figures, self.model(figures["strength"])))[0]
            if not objection:
                return figures, "", True
            first = first or objection
        return tried[0], first, False

    def progress(self, state: str, batch: int = 0, batches: int = 0, message: str = "") -> Progress:
        """Tell how far the run is; the time left is what the part that is done suggests."""
        within = batch / batches if batches and state == "training" else float(state == "validating")
        began, first = self._clock
        done = self.epoch + within
        left = None
        if done > first:
            left = round((time.monotonic() - began) / (done - first) * (self.recipe.epochs - done), 1)
        epoch = min(self.epoch + 1, self.recipe.epochs)
        best = self.best.get("validation_score")
        return Progress(state, epoch, self.recipe.epochs, batch, batches, left, best, message)

    def feed(self, fold: int) -> Feed:
        """Return this process's samples of a fold's epoch, a step after the other."""
        samples, batch, size = self.folds[fold], self.recipe.batch, self.team.size
        order = samples.of_epoch(self.epoch, batch * size * self.recipe.accumulate)
        # Of every stretch of batch * size samples each process takes its own batch, so that two processes with half
        # the batch do what one does alone.
        starts = range(self.team.rank * batch, len(order), batch * size)
        positions = [range(start, start + batch) for start in starts]
        files = None if self._embeddings is None else self._embeddings.files
        return Feed(samples, self.epoch, order, positions, self.preprocessing, files, self.team.device)

    def _train_epoch(self, fold: int) -> float:
        """Train a fold on its samples of the epoch; return their mean loss over all processes."""
        feed = self.feed(fold)
        if self._embeddings is not None:
            missing = feed.missing()
            for number, image in enumerate(missing):
                self._tell(self.progress("encoding", number, len(missing)))
                self._embeddings.keep(image)
        self.team.gather(None)
        self._enter(fold)
        total = 0.0
        steps, accumulate = len(feed), self.recipe.accumulate
        self._optimizer.zero_grad()
        for step, batch in enumerate(feed.loader(self._workers)):
            self._tell(self.progress("training", fold * steps + step, len(self.folds) * steps))
            total += self._gradients(batch, accumulate)
            if (step + 1) % accumulate == 0:
                self._step(self.epoch + step / steps)
        self._members[fold] = {
            "trained": self._taken(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict() if self._scaler else None,
        }
        return sum(self.team.gather(total / steps)) / self.team.size

    def _enter(self, fold: int) -> None:
        """Give the trainee, the optimizer and the gradients' scaler what the fold goes on with, or begins with."""
        recipe, member = self.recipe, self._members[fold]
        self.trainee.restore(member["trained"] if member else self._start)
        self._optimizer = torch.optim.AdamW(self._parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        self._scaler = torch.amp.GradScaler() if self._half == torch.float16 else None
        if member:
            self._optimizer.load_state_dict(member["optimizer"])
            if self._scaler and member["scaler"]:
                self._scaler.load_state_dict(member["scaler"])

    def _taken(self) -> dict[str, torch.Tensor]:
        """Copy the weights that change, to the CPU."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.trainee.trained().items()}

    @full_precision()
    def _gradients(self, batch: list[Prepared], parts: int) -> float:
        """Add the gradients of a batch; return its mean loss.

        :param parts: batches that make a step together.
        """
        device = self.team.device
        inputs = torch.stack([each.tensor for each in batch]).to(device).float()
        boxes = torch.stack([each.box for each in batch]).to(device)
        masks = _masks([each.sample.mask for each in batch], device)
        with torch.autocast(device.type, self._half) if self._half else nullcontext():
            logits, iou = self.trainee(inputs, boxes)
        losses = sample_losses(logits, iou, masks, self.preprocessing, with_iou=self.trainee.with_iou)
        loss = losses.mean() / parts
        (self._scaler.scale(loss) if self._scaler else loss).backward()
        # Once, and last of all: the host waits for the device here.
        figures = losses.tolist()
        for each, figure in zip(batch, figures, strict=True):
            if not math.isfinite(figure):
                raise Diverged(
                    f"The loss of {each.sample.outline} is {figure} in epoch {self.epoch + 1}: look at this case, or "
                    "give a lower learning rate. The best model so far is kept."
                )
        return sum(figures) / len(figures)

    def _step(self, progress: float) -> None:
        """Change the weights by the gradients that were added up."""
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate(progress)
        self.team.average(self._parameters)
        if self._scaler:
            self._scaler.unscale_(self._optimizer)
        torch.nn.utils.clip_grad_norm_(self._parameters, self.recipe.gradient_norm)
        if self._scaler:
            self._scaler.step(self._optimizer)
            self._scaler.update()
        else:
            self._optimizer.step()
        self._optimizer.zero_grad()

    def _rate(self, epochs: float) -> float:
        """Compute the learning rate after a number of epochs: a rising line, then half a cosine down to 0."""
        done, warmup = epochs / self.recipe.epochs, self.recipe.warmup
        if done < warmup:
            # Never 0, or the first step would do nothing.
            return self.recipe.learning_rate * max(done / warmup, 0.05)
        return self.recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))


def _masks(masks: Sequence[np.ndarray], device: torch.device) -> list[Tensor]:
    """Bring masks, bool (rows, columns) of any sizes, to a device in one go: float32."""
    pixels = torch.from_numpy(np.concatenate([mask.ravel() for mask in masks])).to(device).float()
    parts = pixels.split([mask.size for mask in masks])
    return [part.view(mask.shape) for part, mask in zip(parts, masks, strict=True)]
