"""The one error that Graft raises for anything a user can put right, and the nearest of known names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from types import MappingProxyType


class GraftError(Exception):
    """A problem with a file, a model, data or a request, in one line.

    Args:
        code: a short, stable, kebab-case word that scripts can match, e.g. ``model-unreadable``.
        message: what was expected and what was found.
        hint: what to do about it.

    ``str(error)`` is ``message; hint`` on one line.
    """

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        self.code = code
        self.message = " ".join(message.split())
        self.hint = " ".join(hint.split())
        super().__init__(f"{self.message}; {self.hint}" if self.hint else self.message)


def nearest(
    word: str, known: Iterable[str], most: int = 1, shown: Mapping[str, str] = MappingProxyType({})
) -> str:
    """Return what a message about an unknown name ends with: ``; did you mean 'x'?``, or nothing.

    Args:
        word: the unknown name.
        known: the names there are.
        most: at most so many are shown.
        shown: what the message shows for some of ``known``.
    """
    near = dict.fromkeys(shown.get(name, name) for name in get_close_matches(word, list(known), n=most))
    listed = " or ".join(f"'{name}'" for name in near)
    return f"; did you mean {listed}?" if near else ""
