"""Classes that other distributions bring, by entry points."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from importlib import metadata
from typing import TypeVar

Kind = TypeVar("Kind")
log = logging.getLogger("graft")


def plug_ins(group: str, kind: type[Kind], attribute: str) -> Iterator[Kind]:
    """Yield one object of each class of a group; one that cannot be used is left out with a warning.

    Args:
        group: of the entry points, such as ``graft.methods``.
        kind: the class that they derive from; they have to make an object without arguments.
        attribute: that the objects have to have, and not empty.
    """
    for entry in sorted(metadata.entry_points(group=group), key=lambda entry: entry.name):
        try:
            found = entry.load()()
            if not isinstance(found, kind) or not getattr(found, attribute, None):
                raise TypeError(f"it is no {kind.__name__} with {attribute}")
            hash(found)
        except Exception as error:  # what a foreign module raises on import can be anything
            owner = entry.dist.name if entry.dist else "an unknown distribution"
            reason = f"{type(error).__name__}: {str(error)[:120]}"
            log.warning("%s: %s of %s is left out: %s", group, entry.value, owner, reason)
        else:
            yield found
