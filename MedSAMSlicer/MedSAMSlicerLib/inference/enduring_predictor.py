"""A predictor that outlives a full graphics card."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

_log = logging.getLogger(__name__)
_TOLD = "The graphics card has not enough memory left: the computation goes on with the processor."


class EnduringPredictor:
    """Do what a predictor does; where its device's memory is full, empty it and try once more, then go on on the CPU.

    What was computed until then stays, as slices are encoded and boxes decoded one call after the other.

    :param load: returns the predictor on a device, by name; None for the one that was chosen.
    :param forget: lets go of all that is kept on the device beside the model.
    :param tell: called with what the user should know, by default a warning in the log.
    :raises RuntimeError: from here as from every call, if there is not enough memory for the CPU either.
    """

    def __init__(
        self,
        load: Callable[[str | None], Any],
        forget: Callable[[], object],
        tell: Callable[[str], object] = _log.warning,
    ) -> None:
        self._load, self._forget, self._tell = load, forget, tell
        self._predictor: Any = None
        self._on_cpu = False
        self._endure(self._place)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._predictor, name)
        if not isinstance(value, MethodType | FunctionType):
            return value
        return lambda *args, **options: self._endure(lambda: getattr(self._predictor, name)(*args, **options))

    def _place(self) -> None:
        self._predictor = self._load("cpu" if self._on_cpu else None)
        self._on_cpu = self._on_cpu or str(getattr(self._predictor, "device", "")) == "cpu"

    def _endure(self, call: Callable[[], Any]) -> Any:
        for _ in range(2):
            try:
                return call()
            except RuntimeError as error:
                # Only here: where PyTorch is missing, the loading says so best.
                from MedSAMSlicerLib.inference.device import give_back_memory, out_of_memory

                if self._on_cpu or not out_of_memory(error):
                    raise
            # Not within the except: its error holds on to what the call has computed.
            self._forget()
            give_back_memory()
        self._tell(_TOLD)
        self._on_cpu, self._predictor = True, None
        self._place()
        give_back_memory()
        return call()
