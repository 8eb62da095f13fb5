"""Values inside of a parent while it runs samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from graft.rewriter.arrays import Array, Integers
from graft.rewriter.data.samples import Samples
from graft.rewriter.graph.model import Model
from graft.rewriter.run.session import Device

BATCH = 64


def observed(
    model: Model, names: Sequence[str], samples: Samples, device: Device
) -> Iterator[tuple[dict[str, Array], Integers]]:
    """Run samples and return tensors on the way.

    Args:
        model: which is left as it is.
        names: of the tensors, inputs of the model among them.
        samples: matched to its card.
        device: where it runs.

    Yields:
        Name to value, samples as the model has them (one that fixes its batch fills up the last one), and the
        labels of the samples.

    Raises:
        GraftError: the model cannot be run.
    """
    watched = model.copy()
    given, tensors = {tensor.name for tensor in watched.graph.inputs}, watched.graph.tensors()
    inside = [name for name in names if name not in given]
    for name in inside:
        tensors[name].dtype = tensors[name].dtype or np.dtype(np.float32)
    watched.graph.outputs = [tensors[name] for name in inside]
    session = device.open(watched) if inside else None
    for feed, labels in (session or device.open(model)).batches(samples, BATCH):
        values = session.run(feed, inside) if session is not None else {}
        yield {name: values[name] if name in values else feed[name] for name in names}, labels
