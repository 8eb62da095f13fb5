"""The one error that Graft raises for anything a user can put right."""

from __future__ import annotations


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
