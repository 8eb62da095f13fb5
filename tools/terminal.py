"""Text for people: a terminal shows it and never obeys it, and lines of errors stay short.

Names in models, data and cards may hold control characters, and thousands of others. All output of the
commands passes through here, or through :mod:`graft.tools.console`, which builds on it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from typing import Any, TextIO

LONGEST = 500
"""Characters of a line on standard error."""
SHORTEST_NAME = 40
"""A name is not shortened below so many characters."""
GAP = "..."
# Controls, marks that turn the direction of text, separators of lines, and halves of characters.
CONTROL = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff\ufff9-\ufffb]"
)


@contextlib.contextmanager
def prepared() -> Iterator[None]:
    """Make the streams take every character, and keep warnings of libraries off them.

    What a console cannot show is escaped. Warnings of numpy and others are logged for ``--debug``.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    root = logging.getLogger()
    if not root.handlers:  # else records of libraries without a handler go to standard error as they are
        root.addHandler(logging.NullHandler())
    with warnings.catch_warnings():
        warnings.showwarning = _log_warning
        yield


def _log_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    logging.getLogger("graft").debug("%s: %s", category.__name__, message)


def printable(text: str) -> str:
    r"""Return ``text`` on one line, control characters as Python writes them.

    >>> printable("a\x1b[2Kb\n")
    'a\\x1b[2Kb\\n'
    """
    return CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def shortened(message: str, hint: str = "", room: int = LONGEST) -> tuple[str, str]:
    """Return a message and its hint, together in at most ``room`` characters.

    Long names give way first, each in its middle, so that what is wrong with them, and the hint, stay.

    Args:
        message: printable text.
        hint: printable text.
        room: number of characters, those of ``; `` between the two among them.
    """
    between = 2 if hint else 0
    parts = [message, hint]
    while (surplus := len(parts[0]) + len(parts[1]) + between - room) > 0:
        name, part = max(
            ((word, place) for place in (0, 1) for word in re.findall(r"\S+", parts[place])),
            key=lambda each: len(each[0]),
        )
        if len(name) <= SHORTEST_NAME:
            parts[1] = _middle_out(parts[1], room // 2)
            parts[0] = _middle_out(parts[0], room - between - len(parts[1]))
            break
        size = max(SHORTEST_NAME, len(name) - surplus)
        parts[part] = parts[part].replace(name, _middle_out(name, size), 1)
    return parts[0], parts[1]


def _middle_out(text: str, size: int) -> str:
    """Return ``text`` in at most ``size`` characters: its beginning and its end.

    >>> _middle_out("abcdefghijk", 7)
    'ab...jk'
    """
    if len(text) <= size:
        return text
    half = (size - len(GAP)) // 2
    return text[: size - len(GAP) - half] + GAP + text[len(text) - half :]


def note(text: str) -> None:
    """Print a line for people, on standard output."""
    _print(printable(text), sys.stdout)


def say(text: str, mark: str = "graft: ", hint: str = "") -> None:
    """Print a line for people on standard error, of a limited length.

    Args:
        text: what there is to say.
        mark: what the line begins with.
        hint: what to do about it; stays where ``text`` has to be shortened.
    """
    text, hint = shortened(printable(text), printable(hint), LONGEST - len(mark))
    with contextlib.suppress(OSError):  # nobody reads it: the work goes on
        _print(f"{mark}{text}{f'; {hint}' if hint else ''}", sys.stderr)


def trace(text: str) -> None:
    """Print a traceback, of any length, on standard error."""
    with contextlib.suppress(OSError):
        for line in text.splitlines():
            _print(printable(line), sys.stderr)


def print_json(content: dict[str, Any]) -> None:
    """Print one JSON object, in ASCII, on standard output."""
    _print(json.dumps(content).replace("\x7f", "\\u007f"), sys.stdout)


def close_stdout() -> None:
    """Let what is printed from now on go nowhere; Python would try to write the rest at its end, and fail."""
    with contextlib.suppress(AttributeError, OSError, ValueError):  # there is none, or one in memory
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def early(text: str) -> None:
    """Print a line before the work is done, which goes on where nobody reads the line."""
    with contextlib.suppress(OSError):
        note(text)


def _print(line: str, stream: TextIO | None) -> None:
    """Print a line; where a stream was closed before the start there is none."""
    if stream is not None:
        print(line, file=stream, flush=True)
