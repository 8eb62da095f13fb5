"""The protocol of runtimes: programs that run an ONNX file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata, util
from pathlib import Path
from typing import Any, ClassVar

from graft.rewriter.arrays import Array

Run = Callable[[Mapping[str, Array]], Sequence[Any]]
"""From input name to array, to the outputs in the order of the file."""


class SilentError(RuntimeError):
    """A runtime failed, and only printed why."""


class Runtime(ABC):
    """A program that runs ONNX files, imported where it is used.

    It is opened in a process of its own, which it may end. An object is made without arguments.

    Attributes:
        name: as ``--runtime`` has it.
        module: that Python imports.
        distributions: what pip may call it.
        install: what pip installs.
        slow: it is meant to be right, not fast: it gets few samples, and its time says nothing.
    """

    name: ClassVar[str]
    module: ClassVar[str]
    distributions: ClassVar[tuple[str, ...]]
    install: ClassVar[str]
    slow: ClassVar[bool] = False

    @property
    def installed(self) -> bool:
        """True where Python finds it."""
        return util.find_spec(self.module) is not None

    @property
    def version(self) -> str:
        """Its version; ``unknown`` where pip did not install it."""
        for name in self.distributions:
            try:
                return metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
        return "unknown"

    @property
    def command(self) -> str:
        """What installs it."""
        return f"pip install '{self.install}'"

    @abstractmethod
    def open(self, model: Path, threads: int) -> Run:
        """Load a file.

        Args:
            model: an ONNX file; weights beside it may be in other files.
            threads: that it may use.

        Returns:
            What runs a batch. Whatever is raised, here and there, counts as an error of the runtime.
        """
