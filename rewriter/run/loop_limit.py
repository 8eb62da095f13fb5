"""How long a graph with a Loop may run, whose turns no size of a file bounds.

Time alone refuses nobody whose machine is slow: a run that takes long is ended where its loops have made more
turns than any network makes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from graft.rewriter.errors import GraftError
from graft.rewriter.graph.walk import all_graphs, all_nodes
from graft.rewriter.run.bounds import QUIET, Bounds, run_stoppable
from graft.rewriter.run.opening import open_bounded

PATIENCE = 5.0
"""Seconds that a run takes before its turns are counted."""
TURNS = 50_000
"""A run of more turns is ended."""
FEW, MANY, REPEATS = 2, 102, 3
"""Turns of the runs that are timed, and how often each is."""


@dataclass
class LoopLimit:
    """The limit for the runs of one session.

    Attributes:
        proto: the model, where it holds a Loop; ``None``: no limit.
        seconds: what a run may take, whatever its turns; ``None``: it may make :data:`TURNS` turns.
        allowed: what a run may take, as far as that is known.
    """

    proto: onnx.ModelProto | None
    seconds: float | None = None
    allowed: float = field(default=PATIENCE, init=False)
    _refused: GraftError | None = field(default=None, init=False)

    @classmethod
    def of(cls, proto: onnx.ModelProto, bounds: Bounds) -> LoopLimit:
        """Return the limit for the runs of ``proto``."""
        held = any(node.op_type == "Loop" for node in all_nodes(proto))
        return cls(proto if held else None, bounds.seconds)

    def run(
        self, session: ort.InferenceSession, names: Sequence[str], feed: Mapping[str, NDArray[Any]]
    ) -> list[Any]:
        """Run one batch.

        Args:
            session: of the model.
            names: of the wanted outputs.
            feed: input name to array.

        Raises:
            GraftError: ``run-endless``.
        """
        if self.proto is None:
            return run_stoppable(session, names, feed)
        if self._refused:  # other samples would wait as long
            raise self._refused
        with contextlib.suppress(TimeoutError):
            return run_stoppable(session, names, feed, self.seconds or self.allowed)
        if self.seconds is None:
            needed = TURNS * _turn(self.proto, feed)
            if needed > self.allowed:
                self.allowed = needed
                with contextlib.suppress(TimeoutError):
                    return run_stoppable(session, names, feed, needed)
        when = f"after {self.seconds:.0f} s" if self.seconds else f"after more than {TURNS:,} turns"
        self._refused = _endless(self.proto, when)
        raise self._refused


def _endless(proto: onnx.ModelProto, when: str) -> GraftError:
    name = next((node.name for node in all_nodes(proto) if node.op_type == "Loop"), "")
    return GraftError(
        "run-endless",
        f"Loop {name} had not ended {when}".replace("  ", " "),
        "export the model with a trip count, or with a condition that ends it",
    )


def _turn(proto: onnx.ModelProto, feed: Mapping[str, NDArray[Any]]) -> float:
    """Return the seconds that the model takes for another turn of each loop; 0 where they cannot be told."""
    options = ort.SessionOptions()
    options.log_severity_level = QUIET
    taken = []
    try:
        for turns in (FEW, MANY):
            short = _shortened(proto, turns)
            session, held = open_bounded(short, options, ["CPUExecutionProvider"], Bounds(plain=True))
            names = [output.name for output in session.get_outputs()]
            taken.append(min(_time(session, names, feed) for _ in range(REPEATS)))
            del held
    except TimeoutError:
        return PATIENCE / MANY
    except Exception:  # what follows a loop need not take another number of turns
        return 0.0
    return max(0.0, taken[1] - taken[0]) / (MANY - FEW)


def _time(session: ort.InferenceSession, names: Sequence[str], feed: Mapping[str, NDArray[Any]]) -> float:
    start = time.perf_counter()
    run_stoppable(session, names, feed, PATIENCE)
    return time.perf_counter() - start


def _shortened(proto: onnx.ModelProto, turns: int) -> onnx.ModelProto:
    """Return the model with loops of so many turns each."""
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    for number, body in enumerate([*all_graphs(result), *result.functions]):
        places = [node for node in body.node if node.op_type == "Loop"]
        for node in places:
            node.input[0] = f"graft/turns/{number}"
        if places:
            value = onnx.numpy_helper.from_array(np.array(turns, np.int64))
            body.node.insert(0, onnx.helper.make_node("Constant", [], [f"graft/turns/{number}"], value=value))
    return result
