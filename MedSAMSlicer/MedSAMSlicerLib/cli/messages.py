"""What an error is told as: one sentence with the file, what is wrong with it, and what to do."""

from __future__ import annotations

import errno

_REMEDIES = {
    errno.ENOSPC: "free some disk space",
    errno.EDQUOT: "free some disk space",
    errno.EFBIG: "choose a disk that takes files of this size",
    errno.ENOENT: "check the path",
    errno.EACCES: "ask for the right to use it, or give another path",
    errno.EPERM: "ask for the right to use it, or give another path",
    errno.EROFS: "give a path that can be written to",
    errno.EISDIR: "give the path of a file",
    errno.ENOTDIR: "give another path",
    errno.EEXIST: "give another path",
    errno.ENAMETOOLONG: "give a shorter path",
    errno.EIO: "check the disk, or copy the file again",
}
# What the program raises where it knows what is wrong; all else is a defect of the program itself.
EXPECTED = (ValueError, OSError, RuntimeError, ImportError, MemoryError)


def sentence(error: BaseException) -> str:
    """Return the text of an error as one line."""
    if isinstance(error, MemoryError):
        return "there is not enough memory: close other programs, or crop the volume"
    if isinstance(error, RecursionError):
        return "a file is nested too deeply to be read: give the file that was meant"
    if isinstance(error, OSError) and error.strerror:
        remedy = _REMEDIES.get(error.errno or 0)
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}{f': {remedy}' if remedy else ''}"
    text = " ".join(str(error).split())
    if not isinstance(error, EXPECTED):
        return f"a defect of the program ({type(error).__name__}: {text}): run it again with --debug and report it"
    return text or type(error).__name__
