"""Strike at a chosen moment of file operations, whatever the code is that does them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

MOMENTS = {
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.mkdir",
    "shutil.rmtree",
}
"""Events of Python's audit hooks."""
KILLED = 77


class Strike:
    """Counts operations under a folder; at one of them calls what is given.

    A hook cannot be taken away: :attr:`folder` is cleared instead.
    """

    def __init__(self) -> None:
        self.folder = ""
        self.number = -1
        self.count = 0
        self.action: Callable[[], object] = lambda: None
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.folder or event not in MOMENTS:
            return
        if self.folder not in str(arguments[0]):
            return
        self.count += 1
        if self.count - 1 == self.number:
            self.action()


def in_child(folder: Path, number: int, work: Callable[[], object]) -> tuple[bool, int]:
    """Run ``work`` in a forked process that ends at once before operation ``number`` under ``folder``.

    Returns:
        Whether it was ended so; its exit code.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            strike = Strike()
            strike.folder, strike.number, strike.action = str(folder), number, lambda: os._exit(KILLED)
            work()
            code = 0
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code == KILLED, code
