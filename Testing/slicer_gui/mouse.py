"""A mouse and a keyboard for the offscreen views: real VTK events, as Qt would send them."""

from __future__ import annotations

from collections.abc import Iterable

import vtk


class Mouse:
    """Acts in one view. Positions are in view pixels, the origin is the lower left corner.

    :param widget: what ``layoutManager().sliceWidget(name)`` or ``threeDWidget(0)`` returns.
    """

    def __init__(self, widget: object) -> None:
        self.widget = widget
        self.view = widget.viewWidget()
        self.interactor = self.view.interactor()
        self._position = (0, 0)
        self._modifiers = (0, 0)

    def ras_to_xy(self, ras: Iterable[float]) -> tuple[float, float]:
        """Find where a point of the world is in the view."""
        if self.widget.className() == "qMRMLSliceWidget":
            x, y, _ = self.view.convertRASToXYZ(list(ras))
            return x, y
        renderer = self.view.renderWindow().GetRenderers().GetFirstRenderer()
        renderer.SetWorldPoint(*ras, 1)
        renderer.WorldToDisplay()
        x, y, _ = renderer.GetDisplayPoint()
        return x, y

    def enter(self, position: tuple[float, float]) -> None:
        """Come into the view; it is drawn, as what is under the mouse depends on that."""
        self._send("EnterEvent", position)
        self.move(position)
        self.view.forceRender()

    def move(self, position: tuple[float, float]) -> None:
        self._send("MouseMoveEvent", position)

    def press(self, position: tuple[float, float], button: str = "Left") -> None:
        """Press a button: "Left", "Middle" or "Right"."""
        self._send(f"{button}ButtonPressEvent", position)

    def release(self, position: tuple[float, float], button: str = "Left") -> None:
        self._send(f"{button}ButtonReleaseEvent", position)

    def click(self, position: tuple[float, float], button: str = "Left") -> None:
        self.enter(position)
        self.press(position, button)
        self.release(position, button)

    def double_click(self, position: tuple[float, float]) -> None:
        self.click(position)
        self._send("LeftButtonDoubleClickEvent", position)

    def drag(self, start: tuple[float, float], end: tuple[float, float], button: str = "Left", steps: int = 10) -> None:
        """Press, move in steps, and release."""
        self.enter(start)
        self.press(start, button)
        for step in range(1, steps + 1):
            share = step / steps
            self.move((start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])))
        self.release(end, button)

    def wheel(self, steps: int) -> None:
        """Turn the wheel, forward if positive."""
        for _ in range(abs(steps)):
            self._send(f"MouseWheel{'Forward' if steps > 0 else 'Backward'}Event", self._position)

    def key(self, symbol: str, *, control: bool = False, shift: bool = False) -> None:
        """Press and release a key, named as VTK does: "Escape", "Return", "a".

        It reaches the view only: shortcuts of widgets are tried with `Gui.shortcut`.
        """
        code = symbol if len(symbol) == 1 else {"Return": "\r", "Escape": "\x1b"}.get(symbol, "\0")
        x, y = (int(value) for value in self._position)
        for event in ("KeyPressEvent", "CharEvent", "KeyReleaseEvent"):
            self.interactor.SetEventInformation(x, y, int(control), int(shift), code, 0, symbol)
            self.interactor.InvokeEvent(event)

    def _send(self, event: str, position: tuple[float, float]) -> None:
        self._position = position
        x, y = (round(value) for value in position)
        self.interactor.SetEventInformation(x, y, *self._modifiers, "\0", 0, None)
        self.interactor.InvokeEvent(getattr(vtk.vtkCommand, event))
