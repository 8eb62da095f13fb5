"""How long a graph with a Loop may run, whose turns no size of a file bounds.

Time alone refuses nobody whose machine is slow: a run that takes long is ended where its loops have made more
turns than any network makes. What was waited in vain for the loops of a model is remembered: every further
run of them waits so much less, and a model that was refused once is refused at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from graft.rewriter.errors import GraftError
from graft.rewriter.graph.walk import all_graphs, all_nodes, tensors
from graft.rewriter.run.bounds import QUIET, Bounds, run_stoppable
from graft.rewriter.run.loop_turns import turns_in
from graft.rewriter.run.opening import open_bounded

PATIENCE = 3.0
"""Seconds that the runs of a model wait before its turns are counted."""
LEAST = 0.25
"""Seconds that any run may take, whatever was waited before."""
TURNS = 50_000
"""A run of more turns is ended."""
FEW, MANY, REPEATS = 2, (102, 32, 12, 5), 3
"""Turns of the runs that are timed, and how often each is."""
MOST = 3000
"""Turns in a run that is timed, those of loops within loops counted each time."""
SMALL = 1024
"""Bytes of a constant that may say how often a loop turns."""
MODELS = 64
"""Models whose loops are remembered."""


@dataclass
class _Waits:
    """What became of earlier runs in this process.

    Attributes:
        vain: names of loops to the seconds that were waited for them in vain.
        refused: a digest of loops, and of what says how often they turn, to the error.
    """

    vain: dict[tuple[str, ...], float] = field(default_factory=dict)
    refused: dict[bytes, GraftError] = field(default_factory=dict)

    def add(self, loops: tuple[str, ...], seconds: float) -> None:
        """Remember that so many seconds were waited in vain."""
        if len(self.vain) >= MODELS:
            self.vain.clear()
        self.vain[loops] = self.vain.get(loops, 0.0) + seconds

    def refuse(self, digest: bytes, error: GraftError) -> None:
        """Remember why a model is refused."""
        if len(self.refused) >= MODELS:
            self.refused.clear()
        self.refused[digest] = error


WAITS = _Waits()


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
    _loops: tuple[str, ...] = field(default=(), init=False)
    _digest: bytes = field(default=b"", init=False)
    _measured: bool = field(default=False, init=False)

    @classmethod
    def of(cls, proto: onnx.ModelProto, bounds: Bounds) -> LoopLimit:
        """Return the limit for the runs of ``proto``."""
        loops = [node for node in all_nodes(proto) if node.op_type == "Loop"]
        limit = cls(proto if loops else None, bounds.seconds)
        if loops:
            limit._loops = tuple(sorted({node.name for node in loops}))
            limit._digest = _digest(proto, loops)
        return limit

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
        if self._digest in WAITS.refused:  # other samples would wait as long
            raise WAITS.refused[self._digest]
        patience = self._patience()
        with contextlib.suppress(TimeoutError):
            return self._waited(session, names, feed, patience)
        if self.seconds is not None:
            raise _endless(self.proto, f"after {patience:.2g} s")
        if not self._measured:
            self._measured = True
            needed = TURNS * _turn(self.proto, feed)
            if needed > self.allowed:
                self.allowed = needed
                with contextlib.suppress(TimeoutError):
                    return self._waited(session, names, feed, needed)
        error = _endless(self.proto, f"after more than {TURNS:,} turns")
        WAITS.refuse(self._digest, error)
        raise error

    def _patience(self) -> float:
        """Return the seconds that the next run may take: less where earlier ones waited in vain."""
        if self._measured:
            return self.allowed
        most = self.allowed if self.seconds is None else self.seconds
        return max(min(LEAST, most), most - WAITS.vain.get(self._loops, 0.0))

    def _waited(
        self,
        session: ort.InferenceSession,
        names: Sequence[str],
        feed: Mapping[str, NDArray[Any]],
        seconds: float,
    ) -> list[Any]:
        try:
            found = run_stoppable(session, names, feed, seconds)
        except TimeoutError:
            WAITS.add(self._loops, seconds)
            raise
        WAITS.vain.pop(self._loops, None)
        return found


def _digest(proto: onnx.ModelProto, loops: Sequence[onnx.NodeProto]) -> bytes:
    """Return what two models have in common whose loops turn equally often, as far as a model says that."""
    found = hashlib.sha256()
    for node in loops:
        found.update(node.SerializeToString(deterministic=True))
    for function in proto.functions:
        found.update(function.SerializeToString(deterministic=True))
    for node in proto.graph.node:  # where the numbers come from
        found.update("\0".join((node.op_type, *node.input, "", *node.output)).encode())
    for _, tensor in tensors(proto):
        if tensor.ByteSize() <= SMALL:
            found.update(tensor.SerializeToString(deterministic=True))
    return found.digest()


def _endless(proto: onnx.ModelProto, when: str) -> GraftError:
    name = next((node.name for node in all_nodes(proto) if node.op_type == "Loop"), "")
    return GraftError(
        "run-endless",
        f"Loop {name} had not ended {when}".replace("  ", " "),
        "export the model with a trip count, or with a condition that ends it",
    )


def _turn(proto: onnx.ModelProto, feed: Mapping[str, NDArray[Any]]) -> float:
    """Return the seconds that the model takes for another turn of a loop; 0 where they cannot be told."""
    options = ort.SessionOptions()
    options.log_severity_level = QUIET
    many = next((each for each in MANY if turns_in(proto, each) <= MOST), MANY[-1])
    taken, made = [], []
    try:
        for turns in (FEW, many):
            short = _shortened(proto, turns)
            session, held = open_bounded(short, options, ["CPUExecutionProvider"], Bounds(plain=True))
            names = [output.name for output in session.get_outputs()]
            taken.append(min(_time(session, names, feed) for _ in range(REPEATS)))
            made.append(turns_in(proto, turns))
            del held
    except TimeoutError:
        return PATIENCE / turns_in(proto, many)
    except Exception:  # what follows a loop need not take another number of turns
        return 0.0
    return max(0.0, taken[1] - taken[0]) / max(1, made[1] - made[0])


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
