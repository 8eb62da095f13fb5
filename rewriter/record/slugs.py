"""File names for names of classes: portable, visible, and each of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence

LONGEST_SLUG = 100
RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)", re.IGNORECASE)
"""Names of devices on Windows, whatever their ending."""


def slugs(names: Sequence[str]) -> list[str]:
    """Return file names, without their ending, for class names.

    Other characters than A-Za-z0-9._- become _; hidden and reserved names, and those that
    commands would take for an option, get a _ in front; names that are equal where case does
    not count get a number.

    >>> slugs(["a/b", "a b", "c"]), slugs([".net", "NUL", "aux.1", "-o"])
    (['a_b', 'a_b-2', 'c'], ['_.net', '_NUL', '_aux.1', '_-o'])
    """
    taken: set[str] = set()
    numbers: dict[str, int] = {}
    found = []
    for name in names:
        base = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:LONGEST_SLUG] or "_"
        if base[0] in ".-" or RESERVED.match(base):
            base = f"_{base}"
        slug, number = base, numbers.get(base.lower(), 2)
        while slug.lower() in taken:
            slug, number = f"{base}-{number}", number + 1
        taken.add(slug.lower())
        numbers[base.lower()] = number
        found.append(slug)
    return found
