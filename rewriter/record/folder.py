"""The folder that ``decompose`` writes: modules, their plans, the parent and its profile, ``graft.json``."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from graft.rewriter.errors import GraftError
from graft.rewriter.files import refuse_unwritable, unwritable
from graft.rewriter.graph.file_size import stored_bytes
from graft.rewriter.graph.model import Model
from graft.rewriter.record.provenance import kind_of

INDEX = "graft.json"
OLD = ".old"
PARENT = Path("parent/parent.onnx")
PROFILE = Path("parent/profile.safetensors")


class ModuleFolder:
    """A folder of modules that is written beside its place, and moved there when it is whole.

    Args:
        path: its place.
        force: replace the files that an earlier ``graft.json`` lists; other files stay.

    Raises:
        GraftError: ``output-exists`` where files would be replaced, ``output-unwritable``, or
            ``directory-unfinished`` where the folder to be replaced has no index.
    """

    def __init__(self, path: Path, force: bool) -> None:
        self.path = path
        self.files: list[str] = []
        self._old = _replaceable(path, force)
        self._new: Path | None = None

    def __enter__(self) -> ModuleFolder:
        try:
            self.path.absolute().parent.mkdir(parents=True, exist_ok=True)
            self._new = Path(tempfile.mkdtemp(dir=self.path.absolute().parent, prefix=".graft."))
        except OSError as error:
            raise unwritable(self.path, error) from error
        return self

    def file(self, name: str | Path) -> Path:
        """Return the path at which to write the file ``name`` of the folder."""
        if self._new is None:
            raise RuntimeError("the folder is not open")
        target = self._new / name
        target.parent.mkdir(parents=True, exist_ok=True)
        self.files.append(Path(name).as_posix())
        return target

    def size(self, name: str | Path) -> int:
        """Return the bytes of a model that was written, external data included."""
        return 0 if self._new is None else sum(stored_bytes(self._new / name))

    def index(self, content: dict[str, Any]) -> dict[str, Any]:
        """Write ``graft.json`` with ``content`` and the list of all files, and return its content."""
        if self._new is not None:  # a large model lies in two files
            self.files = sorted(
                p.relative_to(self._new).as_posix() for p in self._new.rglob("*") if p.is_file()
            )
        whole = {**content, "files": list(self.files)}
        self.file(INDEX).write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
        return whole

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self._new is None:
            return
        try:
            if kind is None:
                self._put_in_place(self._new)
        except OSError as failure:
            raise unwritable(self.path, failure) from failure
        finally:
            shutil.rmtree(self._new, ignore_errors=True)
        if isinstance(error, OSError):
            raise unwritable(self.path, error) from error

    def _put_in_place(self, new: Path) -> None:
        """Move the old files away and the new ones in; back, if that fails."""
        for name in self.files:
            if name not in self._old and (self.path / name).exists():
                raise GraftError(
                    "output-exists",
                    f"{self.path / name} exists and is not of the folder that --force may replace",
                    "move it away or choose another -o",
                )
        moved: list[tuple[Path, Path]] = []
        try:
            for name in reversed(self._old):  # the index first: without it the rest is unfinished
                _move(self.path / name, new / OLD / name, moved)
            for name in self.files:  # the index was added last and goes last
                _move(new / name, self.path / name, moved)
        except BaseException:
            for source, target in reversed(moved):
                target.replace(source)
            raise


def _move(source: Path, target: Path, moved: list[tuple[Path, Path]]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)
    moved.append((source, target))


def _replaceable(path: Path, force: bool) -> list[str]:
    """Files of an earlier folder at ``path`` that may be replaced."""
    try:
        vacant = not path.exists() or (path.is_dir() and not any(path.iterdir()))
    except OSError as error:
        raise unwritable(path, error) from error
    refuse_unwritable(path, path.absolute().parent)
    if path.is_dir():
        refuse_unwritable(path, path)
    if vacant:
        return []
    if not path.is_dir() or not force:
        raise GraftError("output-exists", f"{path} exists", "choose another -o or add --force")
    listed = read_index(path)["files"]
    inside = [name for name in listed if ".." not in Path(name).parts and not Path(name).is_absolute()]
    return [*(name for name in inside if name != INDEX and (path / name).is_file()), INDEX]


def read_index(path: Path) -> dict[str, Any]:
    """Return the content of ``graft.json`` of a folder.

    Raises:
        GraftError: ``directory-unfinished`` where it is missing or broken.
    """
    try:
        found: dict[str, Any] = json.loads((path / INDEX).read_text(encoding="utf-8"))
        names = [*found["files"], *(module["file"] for module in found["modules"])]
        if not all(isinstance(name, str) for name in names):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GraftError(
            "directory-unfinished",
            f"{path} holds no readable {INDEX}: it is unfinished, or no folder of modules",
            "run 'graft decompose' again, or name another folder",
        ) from error
    return found


def module_files(paths: Iterable[Path]) -> list[Path]:
    """Return the module files among ``paths``, and those of folders.

    Raises:
        GraftError: ``directory-unfinished``.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += [path / module["file"] for module in read_index(path)["modules"]]
        else:
            files.append(path)
    return files


def parents_beside(files: Sequence[Path]) -> list[Path]:
    """Return the folders of ``files`` that hold a parent and its profile, each once."""
    folders = dict.fromkeys(file.parent for file in files)
    return [each for each in folders if (each / PARENT).is_file() and (each / PROFILE).is_file()]


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
