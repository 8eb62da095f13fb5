"""From scores and costs to a plan: which channels are pruned when so much may be kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from graft.passes.base import Context, Report
from graft.passes.select.blocks import Fixed, Ranked, blocks_of, steps
from graft.passes.select.layers import LayerShares
from graft.passes.select.uncuttable import nothing_to_cut, uncounted
from graft.rewriter.arrays import Channels, Mask, Scores
from graft.rewriter.errors import GraftError
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.measure.cost import CostModel
from graft.rewriter.record.profile import SQUARES, Profile

UNITS = ("macs", "parameters", "latency")


@dataclass(frozen=True, eq=False)
class Candidates:
    """The channels that compete for a budget.

    Attributes:
        groups: the analysis of the model to be cut.
        scores: importance, one a channel number.
        cost: cost of the model under any mask.
        whole: cost of the parent, in the budget's unit.
        dead: channels that are never other than zero.
        layers: groups that do not compete: what stays of them is said.
    """

    groups: ChannelGroups
    scores: Scores
    cost: CostModel
    whole: float
    dead: Mask
    layers: LayerShares = field(default_factory=LayerShares)


@dataclass(frozen=True, kw_only=True)
class BudgetReport(Report):
    """The channels that were chosen; ``changed`` counts those that are pruned.

    Attributes:
        kept: one flag a channel number.
    """

    kept: Mask


@dataclass(frozen=True)
class Budget:
    """A share of the parent's cost that may stay.

    Attributes:
        keep: share of the parent's cost, 0..1.
        unit: ``macs`` (head included), ``parameters`` (head excluded on both sides) or ``latency``.
        round_to: channels are pruned in multiples of this number; ``None``: as many as their operators are
            fast with but at most a quarter of a layer, or one by one where the budget cannot be reached so.
            By latency: as many as kernels work on at once, since fewer save nothing.
    """

    keep: float
    unit: str = "macs"
    round_to: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise GraftError(
                "budget-range",
                f"--keep has to lie above 0 and at most at 1 (100%), found {self.keep:g}",
                "use a share such as 0.5",
            )
        if self.unit not in UNITS:
            raise GraftError(
                "budget-unit", f"cannot budget by {self.unit}", f"choose from {', '.join(UNITS)}"
            )
        if self.round_to is not None and self.round_to < 1:
            raise GraftError("budget-round", f"cannot round to {self.round_to}", "use 1 or more")

    def __call__(self, subject: Candidates, context: Context) -> BudgetReport:
        """Choose the channels that stay.

        Dead ones are pruned first, then those with the least score for their cost. Channels of all groups
        compete. Of every axis that must not be emptied the channel with the best score stays. What the last
        channels freed beyond the budget goes to those that were pruned shortly before them.

        Args:
            subject: channels, scores and costs.
            context: not used.

        Returns:
            The mask of the channels that stay.

        Raises:
            GraftError: even the smallest cut costs more.
        """
        groups, cost = subject.groups, subject.cost
        declined = uncounted(cost, self.unit)
        if self.keep < 1 and (declined or not subject.whole) and nothing_to_cut(groups):
            raise self._unreachable(subject, 1.0)
        measure = partial(cost.total, self.unit)
        ranked = Ranked(
            groups,
            groups.to_atoms(subject.scores),
            np.maximum(cost.by_channel(self.unit), 1e-9),
            subject.dead,
        )
        fixed, given = subject.layers.fixed(ranked, self.round_to or 1)
        limit = self.keep * subject.whole
        sizes = steps(groups) if self.unit == "latency" and self.round_to is None else self.round_to
        without = partial(_without, groups, fixed)
        blocks = blocks_of(ranked, sizes, fixed)
        if sizes is None and measure(without(blocks)) > limit:
            blocks = blocks_of(ranked, 1, fixed)
        if measure(without(blocks)) > limit:
            raise self._unreachable(subject, measure(without(blocks)) / subject.whole)
        few, many = -1, len(blocks)
        while many - few > 1:  # the cost shrinks with every block, so the shortest prefix can be bisected
            middle = (few + many) // 2
            if measure(without(blocks[:middle])) <= limit:
                many = middle
            else:
                few = middle
        kept = without(blocks[:many])
        for block in blocks[:many][::-1]:
            if not subject.dead[block].all():
                kept[block] = True
                kept[block] = measure(kept) <= limit
        removed = int((groups.atoms & ~kept).sum())
        return BudgetReport(changed=removed, declined=(*given, *declined), kept=kept)

    def _unreachable(self, subject: Candidates, smallest: float) -> GraftError:
        pins = sorted({group.reason for group in subject.groups if not group.cuttable.all()})
        why = nothing_to_cut(subject.groups) or (f"pinned by {'; '.join(pins[:3])}" if pins else "")
        why = f"; {why}" if why else ""
        held, whole = subject.layers.asked, smallest > 0.9995 and nothing_to_cut(subject.groups)
        return GraftError(
            "budget-unreachable",
            f"--keep {self.keep:g} cannot be reached: the smallest cut keeps {smallest:.3f} of the "
            f"{'MACs' if self.unit == 'macs' else self.unit}"
            + (f" with {', '.join(held[:3])}{' ...' if len(held) > 3 else ''}" if held else "")
            + why,
            ("use --keep 1" if whole else f"use --keep {np.ceil(smallest * 1000) / 1000:g} or more")
            + (
                f", or hold fewer layers with {' and '.join(dict.fromkeys(e.split()[0] for e in held))}"
                if held
                else ""
            ),
        )


def dead_channels(groups: ChannelGroups, profile: Profile) -> Mask:
    """Return the mask of channels that were zero at every place, for every sample of every class.

    A place is an activation or a tensor that is read. A channel that was seen nowhere is not dead.
    """
    seen, alive = np.zeros(groups.count), np.zeros(groups.count)
    for place in (*groups.activations(), *groups.reads()):
        key = groups.key(place.tensor, place.axis)
        if profile.has(SQUARES, key, len(place.channels)):
            seen[place.channels] = 1
            alive[place.channels[profile.mean(SQUARES, key) > 0]] = 1
    silent = (groups.to_atoms(seen) > 0) & (groups.to_atoms(alive) == 0)
    return np.asarray(silent & groups.cuttable())


def dead_by_group(groups: ChannelGroups, profile: Profile) -> dict[str, int]:
    """Return the number of dead channels of each group that has any."""
    dead = dead_channels(groups, profile)
    counts = {group.name: int(dead[group.channels].sum()) for group in groups}
    return {name: count for name, count in counts.items() if count}


def _without(groups: ChannelGroups, fixed: Fixed, blocks: Sequence[Channels]) -> Mask:
    mask = groups.everything() & ~fixed.goes
    if blocks:
        mask[np.concatenate(blocks)] = False
    return mask
