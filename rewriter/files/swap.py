"""A folder takes the place of another one: two renames, and what a run leaves that is killed between.

The old folder is moved away, the new one, which was written whole beside it, is moved in. What the old one
holds beside its own files follows; then its own files are deleted, the index last. Nothing is remembered but
what lies on the disk, so a later run goes on where one was killed:

=============================  ============================================
found                          means, and is done
=============================  ============================================
an old one without an index    not of Graft: left alone
the new one                    it was being written: deleted
the old one, nothing in place  killed between the renames: moved back
the old one, and one in place  killed after the renames: the rest follows
=============================  ============================================
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from graft.rewriter.errors import GraftError
from graft.rewriter.files.place import Place, delete, is_folder, sync_file, sync_folder
from graft.rewriter.regular_files import read_regular

INDEX = "graft.json"
"""Of a folder: lists its own files, and is the last one to be deleted."""

log = logging.getLogger("graft")


def put_in(place: Place) -> None:
    """Let the folder at ``place.new`` be the one in place.

    Raises:
        GraftError: ``output-exists``: it has a file that the old folder holds and does not list.
        OSError: it cannot be moved; then the old folder is where it was, or a log line says where it is.
    """
    there = is_folder(place.path)
    for name in foreign(place.path, listed(place.path), place.new) if there else ():
        if os.path.lexists(place.new / name):
            raise GraftError(
                "output-exists",
                f"{place.path / name} exists and is not of the folder that --force may replace",
                "move it away or choose another -o",
            )
    _sync(place.new)
    try:
        if there:
            shutil.copymode(place.path, place.new)
            place.path.rename(place.old)
        place.new.rename(place.path)
    finally:
        _settle_or_say(place)


def settle(place: Place) -> None:
    """Finish or undo what another run left when it was killed; the caller holds the lock.

    Raises:
        GraftError: ``directory-unfinished``: something else was put in its place since then.
        OSError: files cannot be moved or deleted.
    """
    if is_left_over(place):
        if is_folder(place.path) and os.path.lexists(place.new) and not os.listdir(place.path):
            place.path.rmdir()
        if not os.path.lexists(place.path):
            place.old.rename(place.path)
        elif is_folder(place.path) and not os.path.lexists(place.new):
            _finish(place)
        else:
            raise GraftError(
                "directory-unfinished",
                f"a killed run left the folder {place.path} as {place.old}, and another one is there now",
                "move one of them away",
            )
        sync_folder(place.path.parent)
    for path in (place.old, place.new, place.data):
        if path != place.old or not is_folder(path):
            delete(path)


def is_left_over(place: Place) -> bool:
    """Return whether ``place.old`` is a folder that a run moved away.

    It had an index, which is the last to be deleted, or nothing in it. Others, which come in an archive for
    example, and those of which a file lies in their place, are left alone.
    """
    if not is_folder(place.old) or (os.path.lexists(place.path) and not is_folder(place.path)):
        return False
    return bool(listed(place.old)) or not os.listdir(place.old)


def _settle_or_say(place: Place) -> None:
    """Settle; if that fails, say where the old folder lies."""
    try:
        settle(place)
    except BaseException as error:
        if os.path.lexists(place.old):
            log.error(
                "files of %s lie in %s; the next command that names it puts this right", place.path, place.old
            )
        if not isinstance(error, OSError):
            raise


def _finish(place: Place) -> None:
    """Move what the old folder holds beside its own files to the new one, and delete the rest."""
    own = listed(place.old)
    for name in list(foreign(place.old, own, place.path)):
        target = place.path / name
        in_the_way = target if os.path.lexists(target) else _detour(place.path, name)
        if in_the_way:
            log.warning("%s cannot be put back: %s exists", place.old / name, in_the_way)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        (place.old / name).rename(target)
    if not any(foreign(place.old, own)):
        sync_folder(place.path)
        _delete_own(place.old)


def _detour(folder: Path, name: str) -> Path | None:
    """Return the first part of the way to ``name`` that is there and is no folder, such as a link."""
    ways = [folder / each for each in reversed(PurePosixPath(name).parents) if each.name]
    return next((way for way in ways if os.path.lexists(way) and not is_folder(way)), None)


def listed(folder: Path) -> frozenset[str]:
    """Return the names of a folder's own files, as its index lists them, and the index.

    None where the index is missing, broken, or a link to another place.
    """
    try:
        if not inside(folder, INDEX):
            return frozenset()
        names = json.loads(read_regular(folder / INDEX))["files"]
        own = [PurePosixPath(name).as_posix() for name in names]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return frozenset()
    return frozenset([*own, INDEX])


def inside(folder: Path, name: str) -> bool:
    """Return whether ``name`` is of something in a folder, links followed; and on every system alike."""
    if PureWindowsPath(name).drive or not name:
        return False
    try:
        return (folder / name).resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # a loop of links, a zero byte
        return False


def foreign(folder: Path, own: Collection[str], other: Path | None = None) -> Iterator[str]:
    """Yield what a folder holds beside its own files; links are not followed.

    Args:
        folder: the folder.
        own: names of its own files.
        other: folders that this one has, too, are looked into; others that hold no own file count whole.

    Yields:
        Names of files and folders as in ``own``.
    """
    ordered, waiting = sorted(own), [""]
    while waiting:
        within = waiting.pop()
        with os.scandir(folder / within) as entries:
            names = sorted(f"{within}{entry.name}" for entry in entries)
        for name in names:
            if not is_folder(folder / name):
                if name not in own:
                    yield name
            elif _starts_one(f"{name}/", ordered) or (other and is_folder(other / name)):
                waiting.append(f"{name}/")
            else:
                yield name


def _starts_one(beginning: str, ordered: Sequence[str]) -> bool:
    """Return whether one of the names, which are in order, begins so."""
    first = bisect_left(ordered, beginning)
    return first < len(ordered) and ordered[first].startswith(beginning)


def _delete_own(folder: Path) -> None:
    """Delete a folder that holds only own files: the index last, so that a later run knows the others."""
    for path in sorted(folder.iterdir()):
        if path.name != INDEX:
            delete(path)
    (folder / INDEX).unlink(missing_ok=True)
    folder.rmdir()


def _sync(folder: Path) -> None:
    """Wait until a folder, with all that is in it, is on the disk."""
    for path, _, files in os.walk(folder):
        for name in files:
            sync_file(Path(path) / name)
        sync_folder(Path(path))
