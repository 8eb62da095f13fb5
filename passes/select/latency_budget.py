"""Budgets of latency: what a table predicts is measured on the cut, and the limit is corrected."""

from __future__ import annotations

import logging
from collections.abc import Callable

from graft.passes.cut.slice import Slice
from graft.rewriter.arrays import Mask
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.groups.plan import Plan
from graft.rewriter.measure.latency import LatencyTable
from graft.rewriter.run.session import Device

log = logging.getLogger("graft")

ATTEMPTS = 4
TOLERANCE = 0.02
"""Measurements repeat about so well."""
ROOM = 0.05
"""A cut that leaves so much of the budget unused is planned again."""


class Stopwatch:
    """Measures the nodes of each parent once.

    Args:
        device: where models are to run; ``None``: the best there is.
    """

    def __init__(self, device: Device | None = None) -> None:
        self._device = device
        self._tables: dict[str, LatencyTable] = {}

    @property
    def tables(self) -> list[LatencyTable]:
        """What was measured so far."""
        return list(self._tables.values())

    def table(self, sha256: str, parent: Model) -> LatencyTable:
        """What the nodes of ``parent``, which has this hash, take."""
        if sha256 not in self._tables:
            self._tables[sha256] = LatencyTable(parent, self._device or Device())
        return self._tables[sha256]


def within(
    keep: float,
    choose: Callable[[float], Mask],
    model: Model,
    groups: ChannelGroups,
    table: LatencyTable,
) -> Mask:
    """The plan for ``model`` that measures at most ``keep`` of the parent's latency, and little less.

    Args:
        keep: share of the parent's latency.
        choose: the plan that takes at most this share of so many milliseconds, as predicted.
        model: what is cut.
        groups: its analysis.
        table: measured on the parent.

    Raises:
        GraftError: even the smallest cut takes longer.
    """
    whole = table.milliseconds
    best, share = choose(whole), float("inf")
    kept = best
    for _ in range(ATTEMPTS):
        cut = model.copy()
        Slice(Plan.of(groups, kept, ""))(cut)
        found = table.compare(cut).ratio
        if found < share if share > keep + TOLERANCE else share < found <= keep + TOLERANCE:
            best, share = kept, found
        if keep - ROOM <= found <= keep + TOLERANCE or kept.all():
            break
        whole *= keep / found
        kept = choose(whole)
    if share > keep + TOLERANCE:
        log.warning("the module takes %.3f of the parent's latency, %g was asked for", share, keep)
    return best
