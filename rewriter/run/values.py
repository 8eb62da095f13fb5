"""Tensors of many samples, batch after batch: in memory while there is room, else in a file."""

from __future__ import annotations

import errno
import shutil
import tempfile
import weakref
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from graft.rewriter.errors import GraftError
from graft.rewriter.memory import gigabytes

UNLIMITED = 1 << 62
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass
class Room:
    """The bytes that :class:`Values` may take in memory together.

    Attributes:
        limit: so many.
        taken: by values that are still in use.
    """

    limit: int = UNLIMITED
    taken: int = 0

    def holds(self, size: int) -> bool:
        """Return true where ``size`` more bytes may be taken."""
        return self.taken + size <= self.limit

    def require(self, size: int) -> None:
        """Raise unless ``size`` more bytes fit into what is left of the memory, and on the disk.

        Raises:
            GraftError: ``disk-full``.
        """
        over = size - max(0, self.limit - self.taken)
        if over > 0 and over > shutil.disk_usage(tempfile.gettempdir()).free:
            raise _disk_full(over)


class Values:
    """A tensor, batch after batch.

    What is beyond the room is written to a temporary file that has no name, so that none is left behind,
    however the process ends. It is read back, not mapped: pages of a mapped file count as memory that the
    process takes.

    Args:
        room: what all values may take in memory.
    """

    def __init__(self, room: Room) -> None:
        self._room = room
        self._parts: list[NDArray[Any] | _Stored] = []
        self._held = _Held()
        weakref.finalize(self, _release, room, self._held)

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, number: int) -> NDArray[Any]:
        part = self._parts[number]
        return part.read(self._held.file) if isinstance(part, _Stored) else part

    def shape(self, number: int) -> tuple[int, ...]:
        """Return the shape of a batch."""
        return self._parts[number].shape

    def append(self, array: NDArray[Any]) -> None:
        """Take the next batch; it must not be changed any more.

        Raises:
            GraftError: ``disk-full``.
        """
        if self._room.holds(array.nbytes) or array.dtype.hasobject or not array.size:
            self._room.taken += array.nbytes
            self._held.taken += array.nbytes
            # an output of onnxruntime keeps all memory of its session, which may be many times as much
            self._parts.append(array if array.base is None else array.copy())
            return
        try:
            self._parts.append(_Stored.write(self._held.opened(), array))
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise _disk_full(array.nbytes) from error
            raise GraftError(
                "disk-failed",
                f"cannot write values to a temporary file in {tempfile.gettempdir()}: {error.strerror}",
                "give more memory with --memory, or set TMPDIR to another folder",
            ) from error


@dataclass
class _Held:
    """What values have taken: bytes in memory, and a file."""

    taken: int = 0
    file: IO[bytes] | None = field(default=None)

    def opened(self) -> IO[bytes]:
        if self.file is None:
            self.file = tempfile.TemporaryFile(prefix="graft-")  # noqa: SIM115  # closed by _release
        return self.file


@dataclass(frozen=True)
class _Stored:
    """An array in a file."""

    start: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @classmethod
    def write(cls, file: IO[bytes], array: NDArray[Any]) -> _Stored:
        start = file.seek(0, 2)
        file.write(_bytes(np.ascontiguousarray(array)))
        file.flush()  # a full disk is told here
        return cls(start, array.shape, array.dtype)

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def read(self, file: IO[bytes] | None) -> NDArray[Any]:
        array: NDArray[Any] = np.empty(self.shape, self.dtype)
        if file is None:
            raise ValueError("the file is closed")
        file.seek(self.start)
        if file.readinto(_bytes(array)) != array.nbytes:  # type: ignore[attr-defined]
            raise GraftError(
                "disk-failed", "values are missing in a temporary file", "give more memory with --memory"
            )
        return array


def _bytes(array: NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _release(room: Room, held: _Held) -> None:
    room.taken -= held.taken
    if held.file is not None:
        held.file.close()


def _disk_full(size: int) -> GraftError:
    return GraftError(
        "disk-full",
        f"no room for {gigabytes(size)} of values in {tempfile.gettempdir()}, and none in memory",
        "free some space, set TMPDIR to a folder with more, give more memory with --memory, or fewer samples",
    )
