"""tract, of Sonos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graft.rewriter.arrays import Array
from graft.rewriter.runtimes.base import Run, Runtime


class Tract(Runtime):
    """tract on the CPU; it uses one thread."""

    name = "tract"
    module = "tract"
    distributions = ("tract",)
    install = "onnx-graft[tract]"

    def open(self, model: Path, threads: int) -> Run:
        """Load a file."""
        import tract

        loaded = tract.onnx().load(str(model))
        names = [loaded.input_name(place) for place in range(loaded.input_count())]
        runnable = loaded.into_model().into_runnable()

        def run(inputs: Mapping[str, Array]) -> Sequence[Any]:
            return [value.to_numpy() for value in runnable.run([inputs[name] for name in names])]

        return run
