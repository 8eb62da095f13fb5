"""The law of a new class: columns that stay are equal bit for bit."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from graft.passes.base import Declined
from graft.passes.discriminant.opened import LOGITS, Opened
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.run.session import Device

COMPARED = 64
"""Samples that the columns are compared on."""
FAR = 1e-3
"""Largest difference of a column that should stay, relative to the largest logit."""


def compare_columns(
    opened: Opened,
    columns: gs.Tensor,
    samples: Samples,
    kept: tuple[list[int], list[int]],
    device: Device,
) -> tuple[bool, list[Declined]]:
    """Compare the columns that stay on samples, before a softmax.

    Args:
        opened: the classifier and the result, laid open.
        columns: logits of the result, in the same graph.
        samples: what both run on.
        kept: columns that stay, in the classifier and in the result.
        device: where both run.

    Raises:
        GraftError: ``result-differs``.
    """
    samples = samples.take(np.arange(min(len(samples), COMPARED)))
    before = opened.read(samples, device)[1][:, kept[0]]
    model = opened.published(columns)
    session = device.open(model)
    parts = []
    for feed, labels in session.batches(samples, len(samples)):
        parts.append(session.rows(session.run(feed, [LOGITS])[LOGITS], LOGITS, labels))
    after = np.concatenate(parts).astype(np.float64)[:, kept[1]]
    if np.array_equal(before, after):
        return True, []
    difference = float(np.abs(before - after).max())
    if difference > FAR * max(1.0, float(np.abs(before).max())):
        raise GraftError(
            "result-differs", f"other columns changed by up to {difference:.3g}", "please report this model"
        )
    reason = f"other columns differ by up to {difference:.2g}: onnxruntime rounds otherwise"
    return False, [Declined("columns", reason)]
