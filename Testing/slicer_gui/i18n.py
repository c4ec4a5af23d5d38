"""``slicer.i18n``: translation into English, that is none. As in Slicer Base/Python/slicer/i18n.py."""

from __future__ import annotations


def tr(text: str) -> str:
    """Translate a text of the module."""
    if not isinstance(text, str):
        raise TypeError(f"Only text can be translated, not {text!r}.")
    return text


def translate(context: str, text: str) -> str:
    """Translate a text of another context."""
    return tr(text)
