"""Recognise what parents have in common, such as a backbone that was frozen when they were fine-tuned."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from graft.passes.join.compatibility import signature
from graft.passes.join.deduplicate import node_key
from graft.passes.parent import Parent
from graft.rewriter.operators import operator_of


def spared_macs(parents: Sequence[Parent]) -> list[int]:
    """Return the multiply-accumulates that each parent spares a composite by what others have, too.

    What k parents compute alike, from inputs that are prepared alike, runs once: each of them is spared
    (k - 1) / k of it.
    """
    if len(parents) < 2:
        return [0 for _ in parents]
    found = [_macs_by_digest(parent) for parent in parents]
    owners: dict[bytes, int] = defaultdict(int)
    for each in found:
        for digest in each:
            owners[digest] += 1
    return [
        round(sum(macs * (owners[digest] - 1) / owners[digest] for digest, macs in each.items()))
        for each in found
    ]


def _macs_by_digest(parent: Parent) -> dict[bytes, float]:
    """Return a digest of all that leads to a node, to the multiply-accumulates of the node."""
    model, groups = parent.model, parent.groups
    entry = repr(signature(model, batch=False)).encode()
    digests: dict[int, bytes] = {
        id(tensor): _digest(b"input", str(number).encode(), entry)
        for number, tensor in enumerate(model.graph.inputs)
    }
    found: dict[bytes, float] = {}
    for node in groups.nodes:
        key = node_key(node, model.opset, lambda tensor: _of(tensor, digests))
        if key is None:
            continue
        own = _digest(repr((model.opset, key)).encode())
        for number, tensor in enumerate(node.outputs):
            digests[id(tensor)] = _digest(own, str(number).encode())
        work = operator_of(node).work(node, groups)
        macs = sum(
            each.times * float(np.prod([len(channels) for channels in each.channels])) for each in work
        )
        if macs:
            found[own] = macs / groups.samples
    return found


def _of(tensor: gs.Tensor, digests: dict[int, bytes]) -> bytes:
    """Return the digest of a tensor; one that is not known has no equal."""
    if isinstance(tensor, gs.Constant) and id(tensor) not in digests:
        values = np.ascontiguousarray(tensor.values)
        digests[id(tensor)] = _digest(
            str(values.dtype).encode(), repr(values.shape).encode(), values.tobytes()
        )
    return digests.setdefault(id(tensor), str(id(tensor)).encode())


def _digest(*parts: bytes) -> bytes:
    return hashlib.sha256(b"/".join(parts)).digest()
