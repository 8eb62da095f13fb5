"""Parses new names of classes: ``--rename A=B``."""

from __future__ import annotations

from collections.abc import Sequence

from graft.rewriter.errors import GraftError, nearest


def parse_rename(texts: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """Return old name to new name.

    Args:
        texts: ``A=B`` each; names may hold the sign.
        known: the names that A can be.

    Raises:
        GraftError: a text is not ``A=B``, no class is called A, or A is renamed twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        old, new = _parsed(text, known)
        if old in found:
            raise GraftError("rename", f"--rename {text}: class '{old}' is renamed twice", "say it once")
        found[old] = new
    return found


def _parsed(text: str, known: Sequence[str]) -> tuple[str, str]:
    """Return A and B of ``A=B``, where A is a class; names may hold the sign."""
    places = [place for place, letter in enumerate(text) if letter == "="]
    for place in places:
        if text[:place] in known and text[place + 1 :]:
            return text[:place], text[place + 1 :]
    hint = "classes are " + ", ".join(known)
    if not places or text.endswith("=") or text.startswith("="):
        raise GraftError("rename", f"--rename {text} is not A=B", hint)
    old = text[: places[0]]
    raise GraftError("rename", f"--rename {text}: no module is for class '{old}'{nearest(old, known)}", hint)
