"""Fixtures of the tests that need no Slicer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from Core.file_server import FileServer
from MedSAMSlicerLib.store import download as download_module
from MedSAMSlicerLib.store.catalog import weights_named
from MedSAMSlicerLib.store.folder import store_folder

# Not skipped, but not there: nobody shall count it as passed.
collect_ignore = []
if not (store_folder() / "weights" / weights_named("medsam2").filename).is_file():
    collect_ignore.append("test_medsam2_weights.py")
if not torch.cuda.is_available():
    collect_ignore.append("test_gpu.py")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A file server on this computer, asked again without a pause when a connection breaks."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download_module, "RETRY_PAUSES_S", (0.0, 0.0, 0.0))
    with FileServer() as running:
        yield running
