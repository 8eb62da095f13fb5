"""Regular files, as opposed to pipes, devices and sockets, which never end or never begin."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
TEXT_BYTES = 64 << 20
"""The most that a file of JSON or of names may hold."""


def found_at(path: str | Path) -> str:
    """Return what lies at a path other than a regular file; ``""`` where one does.

    >>> found_at("."), found_at("no/such/file"), found_at("")
    ('a folder', 'nothing', 'nothing')
    """
    text = os.fspath(path)
    try:
        mode = os.stat(text).st_mode
    except (OSError, ValueError) as error:  # ValueError: the name holds a zero byte
        if os.path.islink(text):
            return (
                "a link to nothing" if isinstance(error, FileNotFoundError) else "a link that leads nowhere"
            )
        if isinstance(error, ValueError | FileNotFoundError | NotADirectoryError):
            return "nothing"
        return f"nothing that can be read ({error.strerror})"
    return "" if stat.S_ISREG(mode) else KINDS.get(stat.S_IFMT(mode), "no regular file")


def is_regular(path: str | Path) -> bool:
    """Return true where a regular file, or a link to one, lies at a path; never raises."""
    return not found_at(path)


def require_regular(path: str | Path) -> int:
    """Return the size in bytes of a regular file, without opening it.

    Raises:
        OSError: anything else lies at ``path``, or nothing; its text says what.
    """
    found = found_at(path)
    if found:
        code = errno.ENOENT if found.startswith(("nothing", "a link")) else errno.EINVAL
        raise OSError(code, f"found {found} where a file was expected")
    return os.stat(path).st_size


def read_regular(path: str | Path, limit: int = TEXT_BYTES) -> bytes:
    """Return the content of a regular file of a limited size.

    Args:
        path: the file.
        limit: bytes; a larger file is not read.

    Raises:
        OSError: as :func:`require_regular`, the file is larger, or cannot be read.
    """
    size = require_regular(path)
    if size <= limit:
        with open(path, "rb") as file:
            content = file.read(limit + 1)  # files of /proc say that they are empty
        size = max(size, len(content))
    if size > limit:
        raise OSError(errno.EFBIG, f"found {size} bytes, at most {limit} are read")
    return content
