"""Something else at the place of a file: a link, a pipe, a device, a folder, code."""

from __future__ import annotations

import os
import pickle
import random
from collections.abc import Callable
from pathlib import Path


class Pwned:
    """A pickle of this makes a folder when it is loaded."""

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, ("pwned",)


def replace_file(rng: random.Random, path: Path) -> str:
    """Put something else in place of a file; what it is."""
    kept = path.read_bytes()
    path.unlink()
    how = rng.choice(["pickle", "folder", "link", "dangling", "loop", "pipe", "zero", "secret", "gone"])
    targets = {"loop": path.name, "zero": "/dev/zero", "dangling": "nowhere", "secret": "../outside.bin"}
    if how == "pickle":
        path.write_bytes(pickle.dumps([Pwned()]))
    elif how == "folder":
        path.mkdir()
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "link":
        path.with_name("kept").write_bytes(kept)
        path.symlink_to("kept")
    elif how in targets:
        path.symlink_to(targets[how])
    return how
