"""Dialogs that nobody can click: tests answer them beforehand, and see afterwards what they said."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True)
class ShownDialog:
    """A dialog that the code has shown."""

    kind: str  # "NoIcon", "Information", "Warning", "Critical", "Question" or "File"
    text: str
    title: str = ""
    details: str = ""
    buttons: tuple[str, ...] = ()  # those that were added with a text of their own


class Dialogs:
    """Answers queued by a test, and the dialogs shown. Dialogs with only *OK* need no answer."""

    def __init__(self) -> None:
        self._answers: deque[object] = deque()
        self._shown: list[ShownDialog] = []

    def answer(self, *answers: object) -> None:
        """Queue the answers to the next dialogs.

        :param answers: a button each (``qt.QMessageBox.Yes``, or the text of one that has no such name), or a path (""
            for Cancel).
        """
        self._answers.extend(answers)

    def take(self) -> list[ShownDialog]:
        """Return the dialogs shown since the last call; those that a test does not take fail it."""
        shown, self._shown = self._shown, []
        return shown

    def show(self, dialog: ShownDialog) -> None:
        """Note a dialog that needs no answer."""
        self._shown.append(dialog)

    def ask(self, dialog: ShownDialog) -> object:
        """Note a dialog and return its answer.

        :raises AssertionError: if none is queued.
        """
        self.show(dialog)
        if not self._answers:
            raise AssertionError(f"Nobody answers the dialog {dialog}: queue an answer before.")
        return self._answers.popleft()

    def left_over(self) -> str:
        """Say what a test has left unanswered or untaken, and forget it."""
        found = [f"shown: {dialog}" for dialog in self._shown]
        found += [f"answer without a dialog: {answer!r}" for answer in self._answers]
        self._answers.clear()
        self._shown = []
        return "\n".join(found)


dialogs = Dialogs()
