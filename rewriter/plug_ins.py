"""Classes that other distributions bring, by entry points."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from importlib import metadata
from typing import Any, TypeVar

Kind = TypeVar("Kind")
log = logging.getLogger("graft")


def plug_ins(group: str, kind: type[Kind], attribute: str, several: bool = False) -> Iterator[Kind]:
    """Yield one object of each class of a group; one that cannot be used is left out with a warning.

    Args:
        group: of the entry points, such as ``graft.methods``.
        kind: the class that they derive from; they have to make an object without arguments.
        attribute: under which the objects have their name: a ``str`` that is not empty.
        several: it holds a tuple of names instead.
    """
    for entry in sorted(metadata.entry_points(group=group), key=lambda entry: entry.name):
        try:
            found = entry.load()()
            if not isinstance(found, kind):
                raise TypeError(f"it is no {kind.__name__} with {attribute}")
            _check_names(getattr(found, attribute, None), attribute, several)
            hash(found)
        except Exception as error:  # what a foreign module raises on import can be anything
            owner = entry.dist.name if entry.dist else "an unknown distribution"
            reason = f"{type(error).__name__}: {str(error)[:120]}"
            log.warning("%s: %s of %s is left out: %s", group, entry.value, owner, reason)
        else:
            yield found


def _check_names(value: Any, attribute: str, several: bool) -> None:
    names = value if several else (value,)
    if not isinstance(names, tuple) or not names or not all(isinstance(n, str) and n for n in names):
        expected = "a tuple of str that are not empty" if several else "a str that is not empty"
        raise TypeError(f"expected {expected} as {attribute}, found {value!r}")
