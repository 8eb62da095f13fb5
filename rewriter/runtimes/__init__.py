"""Runtimes: one class each, in a registry that other distributions add to."""

from __future__ import annotations

import functools

from graft.rewriter.errors import GraftError, nearest
from graft.rewriter.plug_ins import plug_ins
from graft.rewriter.runtimes.base import Runtime
from graft.rewriter.runtimes.mnn import MNN
from graft.rewriter.runtimes.openvino import OpenVINO
from graft.rewriter.runtimes.ort import OnnxRuntime
from graft.rewriter.runtimes.reference import Reference
from graft.rewriter.runtimes.tract import Tract


@functools.cache
def runtimes() -> dict[str, Runtime]:
    """Return every runtime that there is a class for, by its name; onnxruntime is the first."""
    known: list[Runtime] = [OnnxRuntime(), Reference(), OpenVINO(), Tract(), MNN()]
    known += plug_ins("graft.runtimes", Runtime, "name")  # type: ignore[type-abstract]
    return {each.name: each for each in known}


def runtime(name: str) -> Runtime:
    """Return the runtime of a name.

    Raises:
        GraftError: ``runtime-unknown``, or ``runtime-missing`` where it is not installed.
    """
    known = runtimes()
    if name not in known:
        raise GraftError(
            "runtime-unknown",
            f"there is no runtime '{name}'{nearest(name, known)}",
            f"choose from {', '.join(known)}",
        )
    if not known[name].installed:
        raise GraftError("runtime-missing", f"{name} is not installed", known[name].command)
    return known[name]
