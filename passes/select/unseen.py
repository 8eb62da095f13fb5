"""Channels that no statistics can be recorded of: said, and refused where they hold most of the cost."""

from __future__ import annotations

import logging

from graft.rewriter.card.part import some
from graft.rewriter.errors import GraftError
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.measure.cost import CostModel

MOST_OF_THE_COST = 0.5
"""Of the multiply-accumulates: what channels may decide that are not observed."""
log = logging.getLogger("graft")


def check_observed(groups: ChannelGroups) -> None:
    """Warn of channels that are on no tensor with an axis of samples.

    Args:
        groups: the analysis of the parent.

    Raises:
        GraftError: ``statistics-missing`` where they decide most of the multiply-accumulates.
    """
    hidden = groups.hidden()
    if not hidden:
        return
    names = list(dict.fromkeys(place.tensor for place in hidden))
    kept, cost = groups.everything(), CostModel(groups)
    for place in hidden:
        kept[groups.behind(place.channels)] = False
    share = 1 - cost.macs(kept | ~groups.cuttable()) / max(1, cost.macs())
    what = f"no axis of {some(names, 'tensor')} is that of the samples, and nothing is recorded of channels"
    if share > MOST_OF_THE_COST:
        raise GraftError(
            "statistics-missing",
            f"{what} that decide {share:.0%} of the MACs",
            "export the model with a free batch dimension (PyTorch: dynamic_shapes or dynamic_axes), or"
            " without reshapes that merge samples with other axes",
        )
    log.warning("%s that decide %.0f %% of the MACs: they are chosen without data", what, 100 * share)
