"""The folder that ``decompose`` writes: modules, their plans, the parent and its profile, ``graft.json``."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from graft.rewriter.errors import GraftError
from graft.rewriter.files import claimed, refuse_unwritable, settled, unwritable
from graft.rewriter.files.place import Place, delete
from graft.rewriter.files.refusal import refuse_broken_links
from graft.rewriter.files.swap import INDEX, inside, put_in
from graft.rewriter.graph.file_size import stored_bytes
from graft.rewriter.graph.model import Model
from graft.rewriter.record.provenance import kind_of
from graft.rewriter.regular_files import read_regular

PARENT = Path("parent/parent.onnx")
PROFILE = Path("parent/profile.safetensors")


class ModuleFolder:
    """A folder of modules that is written beside its place, and takes it when it is whole.

    A link at ``path`` is followed. Files that an earlier folder holds and does not list stay.

    Args:
        path: its place.
        force: replace the files that an earlier ``graft.json`` lists.

    Raises:
        GraftError: ``output-exists`` where files would be replaced, ``output-unwritable``,
            ``output-busy``, or ``directory-unfinished`` where the folder to be replaced has no index.
    """

    def __init__(self, path: Path, force: bool) -> None:
        self.path = path
        self.files: list[str] = []
        self._force = force
        self._claim = contextlib.ExitStack()
        self._place: Place | None = None
        settled(path)
        _refuse(path, force)

    def __enter__(self) -> ModuleFolder:
        with contextlib.ExitStack() as stack:
            place = stack.enter_context(claimed(self.path))
            _refuse(self.path, self._force)  # another run may have written it
            if os.path.lexists(place.old):
                raise GraftError(
                    "output-exists", f"{place.old} is in the way, and not of Graft", "move it away"
                )
            try:
                place.new.mkdir()
            except OSError as error:
                raise unwritable(self.path, error) from error
            self._claim = stack.pop_all()
        self._place = place
        return self

    def file(self, name: str | Path) -> Path:
        """Return the path at which to write the file ``name`` of the folder."""
        target = self._new / name
        target.parent.mkdir(parents=True, exist_ok=True)
        self.files.append(Path(name).as_posix())
        return target

    def size(self, name: str | Path) -> int:
        """Return the bytes of a model that was written, external data included."""
        return sum(stored_bytes(self._new / name))

    def index(self, content: dict[str, Any]) -> dict[str, Any]:
        """Write ``graft.json`` with ``content`` and the list of all files, and return its content."""
        files = (path for path in self._new.rglob("*") if path.is_file())  # a large model lies in two
        self.files = sorted(path.relative_to(self._new).as_posix() for path in files)
        whole = {**content, "files": list(self.files)}
        self.file(INDEX).write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
        return whole

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self._place is None:
            return
        with self._claim:
            try:
                if kind is None:
                    put_in(self._place)
            except OSError as failure:
                raise unwritable(self.path, failure) from failure
            finally:
                with contextlib.suppress(OSError):  # what is left is deleted by the next run
                    delete(self._place.new)
            if isinstance(error, OSError):
                raise unwritable(self.path, error) from error

    @property
    def _new(self) -> Path:
        if self._place is None:
            raise RuntimeError("the folder is not open")
        return self._place.new


def _refuse(path: Path, force: bool) -> None:
    """Raise unless a folder can be written at ``path``, which is free or ``force`` allows to replace."""
    refuse_broken_links(path)
    place = Place.of(path).path
    try:
        there = os.path.lexists(path)
        vacant = not there or (path.is_dir() and not any(path.iterdir()))
    except OSError as error:
        raise unwritable(path, error) from error
    if not vacant and not (path.is_dir() and force):
        raise GraftError("output-exists", f"{path} exists", "choose another -o or add --force")
    if there and (os.path.ismount(place) or Path.cwd().is_relative_to(place)):
        found = "a mount point" if os.path.ismount(place) else "or holds the current folder"
        raise GraftError("output-exists", f"{path} is {found}, which cannot be moved", "name a folder in it")
    if there:
        refuse_unwritable(path, place)
    refuse_unwritable(path, place.parent)
    if not vacant:
        read_index(path)


def read_index(path: Path) -> dict[str, Any]:
    """Return the content of ``graft.json`` of a folder.

    Raises:
        GraftError: ``directory-unfinished`` where it is missing or broken, ``directory-outside`` where it
            is a link to another place.
    """
    settled(path)
    _refuse_link_out(path, INDEX)
    try:
        found: dict[str, Any] = json.loads(read_regular(path / INDEX))
        names = [*found["files"], *(module["file"] for module in found["modules"])]
        if not all(isinstance(name, str) for name in names):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise GraftError(
            "directory-unfinished",
            f"{path} holds no readable {INDEX}: it is unfinished, or no folder of modules",
            "run 'graft decompose' again, or name another folder",
        ) from error
    return found


def module_files(paths: Iterable[Path]) -> list[Path]:
    """Return the module files among ``paths``, and those of folders.

    Raises:
        GraftError: ``directory-unfinished``, ``nothing-to-join`` where a folder lists no module, or
            ``directory-outside``: a folder names a file that does not lie in it.
    """
    files: list[Path] = []
    for path in paths:
        settled(path)
        if path.is_dir():
            listed = read_index(path)["modules"]
            if not listed:
                raise GraftError(
                    "nothing-to-join", f"{path} lists no modules", "name modules or a DIR of them"
                )
            files += [_inside(path, module["file"]) for module in listed]
        else:
            files.append(path)
    return files


def _inside(folder: Path, name: str) -> Path:
    """Return the path of a file that the index of a folder names; links out of the folder are refused."""
    if not inside(folder, name):
        raise GraftError(
            "directory-outside",
            f"{INDEX} of {folder} names {name}, which is not in that folder",
            "name the files of the modules themselves, if you trust them",
        )
    return folder / name


def _refuse_link_out(folder: Path, name: str | Path) -> None:
    """Refuse a file of a folder that is a link, or lies behind one, to another place."""
    if os.path.lexists(folder / name) and not inside(folder, os.fspath(name)):
        raise GraftError(
            "directory-outside",
            f"{folder / name} is a link that leads out of that folder",
            "copy there what it leads to, if you trust the folder",
        )


def parents_beside(files: Sequence[Path]) -> list[Path]:
    """Return the folders of ``files`` that hold a parent and its profile, each once.

    Raises:
        GraftError: ``directory-outside``: they are links that lead out of their folder.
    """
    folders = dict.fromkeys(file.parent for file in files)
    found = [each for each in folders if (each / PARENT).is_file() and (each / PROFILE).is_file()]
    for each in found:
        for name in (PARENT, PROFILE):
            _refuse_link_out(each, name)
    return found


def load_classifier(path: Path) -> Model:
    """Load a module, a composite, or any classifier with its card.

    Raises:
        GraftError: ``card-missing`` where it has none, and as :meth:`Model.load`.
    """
    model = Model.load(path)
    model.card = model.require_card(path)
    return model


def load_module(path: Path) -> Model:
    """Load a module or composite with the card in its metadata.

    Raises:
        GraftError: ``not-a-module`` where Graft did not write it, and as :meth:`Model.load`.
    """
    model = Model.load(path)
    if kind_of(model) is None:
        raise GraftError(
            "not-a-module",
            f"{path} carries no graft.origin: Graft did not write it",
            "name a module that 'graft decompose' wrote",
        )
    model.require_card(path)
    return model
