"""The module ``qt``: Qt's classes as PythonQt offers them, those that the project may use and no others."""

from __future__ import annotations

import functools
import types
from pathlib import Path

from PySide6 import QtCore, QtGui, QtWidgets

from slicer_gui.dialogs import ShownDialog, dialogs
from slicer_gui.pythonqt import FlatEnum, checked_property, enums_of, pythonqt, stand_in

# Qt 5 and Qt 6 have all of them under these names; what is missing is added here when the project needs it.
_QT_CORE = """
    QByteArray QCoreApplication QElapsedTimer QEvent QEventLoop QFile QFileInfo QDir QIODevice QLocale QMimeData QObject
    QPoint QPointF QProcess QProcessEnvironment QRect QRectF QSize QStandardPaths QThread QTimer QUrl"""
_QT_GUI = """
    QBrush QColor QCursor QDesktopServices QFont QFontMetrics QIcon QImage QKeyEvent QKeySequence QMouseEvent QPainter
    QPalette QPen QPixmap QVector3D"""
_QT_WIDGETS = """
    QAbstractButton QAbstractItemView QAbstractSpinBox QApplication QButtonGroup QCheckBox QComboBox QDialog
    QDialogButtonBox QDoubleSpinBox QFormLayout QFrame QGridLayout QGroupBox QHBoxLayout QHeaderView QLabel QLayout
    QLineEdit QListWidget QMainWindow QMenu QPlainTextEdit QProgressBar QProgressDialog QPushButton
    QRadioButton QScrollArea QSizePolicy QSlider QSpacerItem QSpinBox QStackedWidget QStatusBar QStyle
    QTabWidget QTextBrowser QTextEdit QToolBar QToolButton QToolTip QVBoxLayout QWidget"""
# Moved from QtWidgets to QtGui in Qt 6; PythonQt's one module hides that.
_QT_MOVED = "QAction QShortcut"


@stand_in
class QSettings(pythonqt(QtCore.QSettings)):
    """QSettings in a file of the test, never the user's."""

    file: Path | None = None

    def __init__(self, fileName: str = "", format: object = None, parent: QtCore.QObject | None = None) -> None:
        if fileName and format != QtCore.QSettings.IniFormat:
            raise TypeError("QSettings: only QSettings() and QSettings(fileName, QSettings.IniFormat) stay in a test.")
        if QSettings.file is None:
            raise RuntimeError("QSettings: no test has given them a file.")
        super().__init__(fileName or str(QSettings.file), QtCore.QSettings.IniFormat, parent)


@stand_in
class QMessageBox(pythonqt(QtWidgets.QMessageBox)):
    """A message box whose answer the test has queued: a standard button, or the text of a button that was added."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        self.__added: dict[str, QtWidgets.QAbstractButton] = {}
        self.__clicked: QtWidgets.QAbstractButton | None = None

    def addButton(self, button: object, role: object = None) -> QtWidgets.QAbstractButton:
        if not isinstance(button, str):
            raise NotImplementedError("QMessageBox.addButton: the harness adds buttons with a text and a role.")
        self.__added[button] = pythonqt(QtWidgets.QPushButton)(button)
        super().addButton(self.__added[button], role)
        return self.__added[button]

    def clickedButton(self) -> QtWidgets.QAbstractButton | None:
        return self.__clicked

    def exec_(self) -> int:
        title, buttons = self.windowTitle.strip(), tuple(self.__added)
        dialog = ShownDialog(self.icon.name, self.text, title, self.detailedText, buttons)
        if buttons:
            answer = dialogs.ask(dialog)
            if answer not in buttons:
                raise AssertionError(f"{answer!r} is not among the buttons {buttons} of {dialog}.")
            self.__clicked = self.__added[answer]
            # What Qt returns for such buttons means nothing to the caller.
            return -1
        offered = self.standardButtons
        if offered in (QtWidgets.QMessageBox.Ok, QtWidgets.QMessageBox.NoButton):
            dialogs.show(dialog)
            return QtWidgets.QMessageBox.Ok
        answer = dialogs.ask(dialog)
        if not (isinstance(answer, int) and answer & offered):
            raise AssertionError(f"{answer!r} is not among the buttons {offered!r} of {dialog}.")
        return answer

    exec = exec_

    @staticmethod
    def _shown(icon: object, title: str, text: str, buttons: object) -> int:
        box = QMessageBox()
        box.setIcon(icon)
        box.windowTitle, box.text = title, text
        box.setStandardButtons(buttons)
        return box.exec_()

    @staticmethod
    def question(parent, title, text, buttons=QtWidgets.QMessageBox.Yes | QtWidgets.QMessageBox.No, defaultButton=None):
        return QMessageBox._shown(QtWidgets.QMessageBox.Question, title, text, buttons)

    @staticmethod
    def information(parent, title, text, buttons=QtWidgets.QMessageBox.Ok, defaultButton=None):
        return QMessageBox._shown(QtWidgets.QMessageBox.Information, title, text, buttons)

    @staticmethod
    def warning(parent, title, text, buttons=QtWidgets.QMessageBox.Ok, defaultButton=None):
        return QMessageBox._shown(QtWidgets.QMessageBox.Warning, title, text, buttons)

    @staticmethod
    def critical(parent, title, text, buttons=QtWidgets.QMessageBox.Ok, defaultButton=None):
        return QMessageBox._shown(QtWidgets.QMessageBox.Critical, title, text, buttons)


class QFileDialog:
    """The static functions of QFileDialog, which in PythonQt return the path alone."""

    @staticmethod
    def getOpenFileName(parent=None, caption: str = "", dir: str = "", filter: str = "") -> str:
        return QFileDialog._path(caption, must_exist=True)

    @staticmethod
    def getSaveFileName(parent=None, caption: str = "", dir: str = "", filter: str = "") -> str:
        return QFileDialog._path(caption)

    @staticmethod
    def getExistingDirectory(parent=None, caption: str = "", dir: str = "") -> str:
        return QFileDialog._path(caption, must_exist=True)

    @staticmethod
    def _path(caption: str, *, must_exist: bool = False) -> str:
        path = str(dialogs.ask(ShownDialog("File", caption)))
        if must_exist and path and not Path(path).exists():
            raise AssertionError(f"No user can choose {path!r}: it does not exist.")
        return path


@stand_in
class QTableWidget(pythonqt(QtWidgets.QTableWidget)):
    """A table whose headers are PythonQt's, too."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        self.setHorizontalHeader(self.__header(QtCore.Qt.Horizontal))
        self.setVerticalHeader(self.__header(QtCore.Qt.Vertical))

    def __header(self, orientation: QtCore.Qt.Orientation) -> QtWidgets.QHeaderView:
        header = pythonqt(QtWidgets.QHeaderView)(orientation, self)
        header.setSectionsClickable(True)
        header.setHighlightSections(True)
        return header


class QTableWidgetItem(QtWidgets.QTableWidgetItem):
    """An item, which has no properties: ``item.text = "x"`` is an error in PythonQt."""

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} has no property {name!r}; call a setter.")


class QListWidgetItem(QtWidgets.QListWidgetItem):
    """An item, which has no properties: ``item.text = "x"`` is an error in PythonQt."""

    __setattr__ = QTableWidgetItem.__setattr__


@stand_in
class ctkMessageBox(QMessageBox):
    """Stands in for ctkMessageBox (CTK Libs/Widgets/ctkMessageBox.h); tests always see it."""

    dontShowAgainSettingsKey = checked_property(str, lambda self: "", lambda self, key: None)
    dontShowAgainVisible = checked_property(bool, lambda self: False, lambda self, visible: None)


class QtModule(types.ModuleType):
    """The module itself. A name that it does not have raises AttributeError."""

    def __init__(self) -> None:
        super().__init__("qt", "Stands in for PythonQt's module of all Qt classes.")
        for library, names in ((QtCore, _QT_CORE), (QtGui, _QT_GUI), (QtWidgets, _QT_WIDGETS), (QtGui, _QT_MOVED)):
            for name in names.split():
                found = getattr(library, name)
                is_object = isinstance(found, type) and issubclass(found, QtCore.QObject)
                setattr(self, name, pythonqt(found) if is_object else found)
        # The namespace Qt, with its enums' values only.
        self.Qt = types.SimpleNamespace()
        for name, kind in enums_of(QtCore.Qt).items():
            vars(self.Qt).update({**kind.__members__, name: FlatEnum(kind)})
        self.QSettings = QSettings
        self.QMessageBox = QMessageBox
        self.QFileDialog = QFileDialog
        self.QTableWidget = QTableWidget
        self.QTableWidgetItem, self.QListWidgetItem = QTableWidgetItem, QListWidgetItem

    def __getattr__(self, name: str) -> object:
        raise AttributeError(f"The stand-in for Slicer's qt has no {name!r}; add it if Qt 5 and Qt 6 both have it.")


def keep_settings_in(file: Path | None) -> None:
    """Say where QSettings of this test go."""
    QSettings.file = file


@functools.cache
def qt_module() -> QtModule:
    """Return the module; the same one each time, as Python code keeps what it has imported."""
    return QtModule()
