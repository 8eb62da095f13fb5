"""The sessions that onnxslim opens to fold constants, within bounds.

onnxslim offers no way to say what they may take, and none to keep onnxruntime's lines off standard error. It
takes ``InferenceSession`` from onnxruntime whenever it folds; while it works, that is one with bounds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import onnxruntime as ort

from graft.rewriter.run.bounds import QUIET, limited, released, run_stoppable

SECONDS = 2.0
"""A loop of constants may take so long."""


@contextlib.contextmanager
def folding_bounded(memory: int) -> Iterator[None]:
    """Let sessions that are opened inside of the block take so many bytes; none once one has failed."""
    whole, severity = ort.InferenceSession, ort.set_default_logger_severity
    state = _State(memory)

    def opened(model: Any, sess_options: Any = None, *args: Any, **options: Any) -> Any:
        if sess_options is not None:  # one of Graft's own
            return whole(model, sess_options, *args, **options)
        return _Folding(whole, model, state)

    ort.InferenceSession = opened
    ort.set_default_logger_severity = lambda _: None  # it sets one, for the whole program
    try:
        yield
    finally:
        ort.InferenceSession, ort.set_default_logger_severity = whole, severity


class _State:
    def __init__(self, memory: int) -> None:
        self.memory = memory
        self.failed = False


class _Folding:
    """A session for the constants of a graph."""

    def __init__(self, whole: Any, model: Any, state: _State) -> None:
        if state.failed:  # what is too large is so each time
            raise RuntimeError("constants of this graph are not folded")
        options = ort.SessionOptions()
        options.log_severity_level = QUIET
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        limited(options, state.memory)
        self._state = state
        try:
            self._session = whole(model, options, providers=["CPUExecutionProvider"])
        finally:
            released()

    def run(self, names: Sequence[str], feed: dict[str, Any]) -> list[Any]:
        """Return the constants."""
        try:
            return run_stoppable(self._session, names, feed, SECONDS)
        except Exception:
            self._state.failed = True
            raise
