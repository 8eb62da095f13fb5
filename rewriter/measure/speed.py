"""The time that work will take: how much there is, and how fast this machine does it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from graft.rewriter.data.samples import Samples
from graft.rewriter.graph.model import Model
from graft.rewriter.run.session import Device

Clock = Callable[[], float]
BATCH = 16
"""Samples of a batch that is timed."""
RUNS = 3
ENOUGH = 1.0
"""Seconds after which no further batch is timed."""
SIZE = 512
"""Rows and columns of matrices that are multiplied to time linear algebra."""


@dataclass(frozen=True)
class Workload:
    """What is to be done.

    Attributes:
        macs: multiply-accumulates of networks.
        reads: samples that are read and prepared.
        flops: floating-point operations of dense linear algebra.
        nodes: nodes of graphs that are analysed, copied or loaded.
    """

    macs: float = 0.0
    reads: float = 0.0
    flops: float = 0.0
    nodes: float = 0.0

    def __add__(self, other: Workload) -> Workload:
        return Workload(
            self.macs + other.macs,
            self.reads + other.reads,
            self.flops + other.flops,
            self.nodes + other.nodes,
        )

    def __mul__(self, times: float) -> Workload:
        return Workload(self.macs * times, self.reads * times, self.flops * times, self.nodes * times)


@dataclass(frozen=True)
class Speed:
    """How fast a machine is.

    Attributes:
        macs: multiply-accumulates of a network in a second.
        reads: samples that are read in a second.
        flops: floating-point operations of linear algebra in a second.
        nodes: nodes that are analysed, copied or loaded in a second.
    """

    macs: float
    reads: float
    flops: float
    nodes: float = 1000.0

    def seconds(self, work: Workload) -> float:
        """Return how long ``work`` takes."""
        return (
            work.macs / self.macs
            + work.reads / self.reads
            + work.flops / self.flops
            + work.nodes / self.nodes
        )

    @classmethod
    def measured(
        cls, model: Model, macs: int, samples: Samples, device: Device, clock: Clock = time.perf_counter
    ) -> Speed:
        """Measure the speed by a few batches, of which the fastest counts.

        Args:
            model: runs them.
            macs: multiply-accumulates of ``model`` for one sample.
            samples: the first of them are run.
            device: where they run.
            clock: returns seconds.

        Raises:
            GraftError: a sample cannot be read or run.
        """
        few = samples.take(np.arange(min(BATCH, len(samples))))
        session = device.open(model)
        begin = clock()
        feed, labels = next(session.batches(few, BATCH))
        read = clock() - begin
        best, spent = np.inf, 0.0
        for _ in range(RUNS):
            begin = clock()
            session.run(feed)
            best = min(best, clock() - begin)
            spent += best
            if spent > ENOUGH:
                break
        count = session.count(feed)
        return cls(
            macs=max(1, macs) * count / max(best, 1e-6),
            reads=len(labels) / max(read, 1e-6),
            flops=_algebra(clock),
        )


def _algebra(clock: Clock) -> float:
    """Return floating-point operations in a second, of products in single precision."""
    matrix = np.ones((SIZE, SIZE), np.float32)
    best = np.inf
    for _ in range(RUNS):
        begin = clock()
        matrix @ matrix
        best = min(best, clock() - begin)
    return 2 * SIZE**3 / max(best, 1e-9)
