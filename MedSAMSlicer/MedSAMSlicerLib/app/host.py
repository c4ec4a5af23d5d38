"""What the sections of the module's panel may ask of it; none of them knows another one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from MedSAMSlicerLib.mrml.structure import Structure


class Host(Protocol):
    """The panel, as its sections see it, see `app.panel.Panel`."""

    ui: Any
    logic: Any
    parameters: Any

    @property
    def ready(self) -> bool:
        """Return whether the chosen model can be used."""

    @property
    def running(self) -> bool:
        """Return whether a segmentation runs."""

    def update(self) -> None:
        """Show the new state in all sections, once this event has been handled."""

    def tell(self, text: str, *, error: bool = False) -> None:
        """Show a line of text below the progress bar."""

    def segment(self, read: Callable[[], Sequence[tuple[Any, Structure]]]) -> None:
        """Segment structures; what runs already is stopped first."""

    def segmentation(self) -> Any:
        """Return the segmentation of the result, a new one if none is chosen."""

    def painted(self, segmentation: Any, segment_id: str) -> list[Any]:
        """Return the key slices of a segment that were painted by hand."""

    def slice_in_view(self) -> tuple[int, int] | None:
        """Return the slice of the volume that the user looks at, (axis, index); None if there is none."""

    def save_case(self) -> None:
        """Save what was made of the worklist's case; nothing without one."""

    def list_models(self) -> None:
        """Show the models that are there now."""
