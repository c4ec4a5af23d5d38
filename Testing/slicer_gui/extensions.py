"""Stand-ins for what other modules and extensions offer: ``SampleData``, ``slicer.packaging``, ``PyTorchUtils``.

Signatures as in Slicer Modules/Scripted/SampleData/SampleData.py, Base/Python/slicer/packaging.py, PyTorchUtils.py of
the PyTorch extension, and Base/QTCore/qSlicerExtensionsManagerModel.h. Nothing is downloaded or installed; what was
asked for is kept for the test to look at.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import slicer
from PySide6 import QtCore

from slicer_gui.pythonqt import held_property, pythonqt, stand_in
from slicer_gui.qt_module import QMessageBox


@dataclass
class SampleDataSource:
    """A registered sample."""

    sampleName: str | None
    uris: object
    fileNames: object
    nodeNames: object
    customDownloader: Callable | None
    thumbnailFileName: str | None
    loadFileTypes: object
    loadFiles: object
    loadFileProperties: dict
    checksums: object


class SampleDataLogic:
    """Registers samples."""

    @staticmethod
    def registerCustomSampleDataCategory(category: str, title: str) -> None:
        slicer.modules.sampleDataSourceCategories.setdefault(category, {})["title"] = title

    @staticmethod
    def registerCustomSampleDataSource(
        category="Custom",
        sampleName=None,
        uris=None,
        fileNames=None,
        nodeNames=None,
        customDownloader=None,
        thumbnailFileName=None,
        loadFileTypes=None,
        loadFiles=None,
        loadFileProperties={},  # noqa: B006 (as in Slicer)
        checksums=None,
        loadFileType=None,
    ) -> None:
        if thumbnailFileName and not Path(thumbnailFileName).is_file():
            raise FileNotFoundError(f"The sample {sampleName} has no picture {thumbnailFileName}.")
        if not isinstance(uris, (str, list, tuple)):
            raise TypeError(f"The sample {sampleName} has no address: Slicer asks for one, downloader or not.")
        for checksum in [checksums] if isinstance(checksums, str) else checksums or ():
            if checksum is not None and not checksum.startswith("SHA256:"):
                raise ValueError(f"The sample {sampleName} has the checksum {checksum!r}: it must begin with SHA256:.")
        source = SampleDataSource(
            sampleName,
            uris,
            fileNames,
            nodeNames,
            customDownloader,
            thumbnailFileName,
            loadFileTypes if loadFileType is None else loadFileType,
            loadFiles,
            loadFileProperties,
            checksums,
        )
        known = slicer.modules.sampleDataSources.setdefault(category, [])
        # As in Slicer, which refuses what it has already.
        if source not in known:
            known.append(source)


class Packages:
    """The Python packages of a test's Slicer: what is there, and what was asked for."""

    def __init__(self) -> None:
        self.missing: set[str] = set()
        self.requests: list[list[str]] = []
        self.agree = True

    def module(self) -> types.ModuleType:
        """Make ``slicer.packaging``."""
        made = types.ModuleType("slicer.packaging")
        for each in (self.load_requirements, self.pip_check, self.pip_ensure):
            setattr(made, each.__name__, each)
        return made

    @staticmethod
    def load_requirements(path: str | Path) -> list:
        from packaging.requirements import Requirement

        lines = (line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines())
        return [Requirement(line) for line in lines if line and line[0] not in "#-"]

    def pip_check(self, req: object) -> bool:
        return not any(requirement.name in self.missing for requirement in self._parsed(req))

    def pip_ensure(
        self,
        requirements: object,
        constraints: str | Path | None = None,
        skip_packages: list[str] | None = None,
        prompt_install: bool = True,
        prompt_restart: bool = True,
        requester: str | None = None,
        skip_in_testing: bool = True,
        show_progress: bool = True,
    ) -> list[str] | None:
        parsed = self._parsed(requirements)
        asked = [str(requirement) for requirement in parsed if requirement.name in self.missing]
        if not asked:
            return None
        self.requests.append(asked)
        if not self.agree:
            raise RuntimeError("The user has refused the installation.")
        self.missing -= {requirement.name for requirement in parsed}
        return []

    @staticmethod
    def _parsed(requirements: object) -> list:
        from packaging.requirements import Requirement

        listed = requirements if isinstance(requirements, list) else [requirements]
        return [Requirement(each) if isinstance(each, str) else each for each in listed]


@dataclass
class PyTorchExtension:
    """The PyTorch extension of a test's Slicer, and its only module PyTorchUtils.

    :param installed: whether torch is there already.
    :param agree: what the user answers when it asks.
    :param error: what the installation fails with.
    """

    installed: bool = False
    agree: bool = True
    error: Exception | None = None
    installations: list[dict] = field(default_factory=list)

    def module(self) -> types.ModuleType:
        """Make ``PyTorchUtils``."""
        extension = self

        class PyTorchUtilsLogic:
            @staticmethod
            def torchInstalled() -> bool:
                return extension.installed

            def installTorch(
                self, askConfirmation=False, forceComputationBackend=None, torchVersionRequirement=None
            ) -> object:
                extension.installations.append(
                    {"askConfirmation": askConfirmation, "torchVersionRequirement": torchVersionRequirement}
                )
                if extension.error:
                    raise extension.error
                if askConfirmation and not extension.agree:
                    return None
                extension.installed = True
                return self.torch

            @property
            def torch(self) -> types.ModuleType | None:
                import torch

                return torch if extension.installed else self.installTorch()

            def getDevice(self) -> object:
                return self.torch.device("cuda") if self.torch.cuda.is_available() else "cpu"

            @property
            def cuda(self) -> bool:
                return self.getDevice() != "cpu"

        made = types.ModuleType("PyTorchUtils")
        made.PyTorchUtilsLogic = PyTorchUtilsLogic
        return made


@stand_in
class qSlicerExtensionsManagerModel(pythonqt(QtCore.QObject)):
    """The extensions of a test's Slicer, which asks the user before it installs one and before it restarts."""

    interactive = held_property(bool, True)

    def __init__(self) -> None:
        super().__init__()
        self.__installed: set[str] = set()
        self.__reachable = True

    def isExtensionInstalled(self, extensionName: str) -> bool:
        return extensionName in self.__installed

    def installExtensionFromServer(self, extensionName: str, restart: bool = True, update: bool = False) -> bool:
        if self.isExtensionInstalled(extensionName):
            return True
        if not self._confirmed("Install extension ?", f"Do you want to install '{extensionName}' now?"):
            return False
        if not self.__reachable:
            QMessageBox.critical(None, "", f"Failed to install {extensionName} extension")
            return False
        self.__installed.add(extensionName)
        if restart and self._confirmed("Restart slicer ?", "Slicer must be restarted. Do you want to restart now ?"):
            raise AssertionError("A test's Slicer can't restart: answer No.")
        return True

    def _confirmed(self, title: str, text: str) -> bool:
        return not self.interactive or QMessageBox.question(None, title, text) == QMessageBox.Yes

    def _reach_server(self, reachable: bool) -> None:
        self.__reachable = reachable
