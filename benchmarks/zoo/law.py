"""The law on one model: a cut graph computes what the masked parent computes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from graft.passes.base import Context
from graft.passes.cut import verify
from graft.passes.cut.slice import Slice
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.analysed import Analysed
from graft.rewriter.groups.groups import ChannelGroups, Group
from graft.rewriter.groups.plan import Plan

Array = NDArray[Any]
Arrays = Mapping[str, Array]

SHARES = (0.2, 0.5, 0.8)
TOLERANCE = 1e-4


class Law:
    """One parent, its groups, and samples for it.

    Args:
        model: the parent.
        inputs: prepared samples; run one by one where the batch is fixed at 1.
        threads: onnxruntime's threads.
    """

    def __init__(self, model: Model, inputs: Arrays, threads: int = 1) -> None:
        self.model = model
        self.inputs = inputs
        self.threads = threads
        self.groups = ChannelGroups(model)
        self.whole = self.run(model.proto())

    def run(self, proto: onnx.ModelProto) -> dict[str, Array]:
        """The floating-point outputs of ``proto``, and what a last Softmax reads: that hides nothing."""
        proto, logits = _with_logits(proto)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = self.threads
        session = ort.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs() if "float" in output.type]
        samples = len(next(iter(self.inputs.values())))
        step = 1 if session.get_inputs()[0].shape[0] == 1 else samples
        parts = [
            session.run(names, {name: values[start : start + step] for name, values in self.inputs.items()})
            for start in range(0, samples, step)
        ]
        found = zip(names, zip(*parts, strict=True), strict=True)
        return {logits.get(name, name): np.concatenate(values) for name, values in found}

    def varies(self) -> tuple[float, float]:
        """Spread of the outputs between samples and between classes, relative to the largest value."""
        found = [(v.reshape(len(v), -1), float(np.abs(v).max())) for v in self.whole.values()]
        return (
            min(float(values.std(axis=0).max()) / scale for values, scale in found),
            min(float(values.std(axis=1).max()) / scale for values, scale in found),
        )

    def plan(self, share: float, seed: int, whole: bool = False) -> Plan:
        """Draw a plan that keeps about ``share`` of what can go, and a channel where one has to stay.

        Args:
            share: of the channels.
            seed: of the draw.
            whole: every list of channels that may be removed as a whole is.
        """
        random = np.random.default_rng(seed)
        kept = random.random(self.groups.count) < share
        needed = np.concatenate([self.groups.behind(channels) for channels in self.groups.needed()])
        if whole:
            kept &= np.isin(np.arange(self.groups.count), needed)
        return self._plan(kept, random)

    def half(self) -> Plan:
        """A random plan that keeps one half of what can go in every group, and a channel of every axis."""
        random = np.random.default_rng(0)
        kept = np.ones(self.groups.count, bool)
        for group in self.groups:
            places = random.permutation(group.channels[group.cuttable])
            kept[places[: len(places) // 2]] = False
        return self._plan(kept, random)

    def _plan(self, kept: Array, random: np.random.Generator) -> Plan:
        kept = kept | ~self.groups.cuttable()
        for channels in self.groups.needed():
            if not self.groups.close(kept)[channels].any():
                kept[self.groups.behind(random.choice(channels, 1))] = True
        return Plan.of(self.groups, kept, parent="")

    def cut(self, plan: Plan) -> onnx.ModelProto:
        """The parent cut by ``plan``; onnx.checker accepts it."""
        model = self.model.copy()
        Slice(plan)(Analysed(model, self.groups.on(model)), Context())
        verify.check(model)
        return model.proto()

    def masked(self, plan: Plan) -> dict[str, Array]:
        """Outputs of the masked parent."""
        return self.run(verify.mask(Analysed(self.model, self.groups), plan).proto())

    def error(self, plan: Plan) -> float:
        """Largest relative difference of the cut graph to the masked parent."""
        return difference(self.run(self.cut(plan)), self.masked(plan))

    def shifted(self, groups: Sequence[Group], enough: float = math.inf) -> float:
        """Return how far off the cut is that removes the next channel of every group.

        The largest of four tries; the first that is ``enough`` will do. Each group loses an eighth of its
        channels: a random network is deaf to a single one.
        """
        worst = 0.0
        for attempt in range(4):
            random = np.random.default_rng(attempt)
            right, wrong = {}, {}
            for group in groups:
                places = np.flatnonzero(group.cuttable)
                gone = random.choice(len(places), max(1, len(places) // 8), replace=False)
                right[group.name], wrong[group.name] = np.ones((2, group.size), bool)
                right[group.name][places[gone]] = False
                wrong[group.name][np.roll(places, -1)[gone]] = False
            try:
                found = self.run(self.cut(Plan("", wrong)))
                worst = max(worst, difference(found, self.masked(Plan("", right))))
            except GraftError:  # would leave no channel on an axis
                continue
            if worst > enough:
                break
        return worst

    def shiftable(self) -> list[Group]:
        """Groups with channels to confuse; zeros that a Pad makes are all alike."""
        return [g for g in self.groups if g.cuttable.sum() > 1 and "pad" not in g.name.lower()]


def difference(found: Arrays, expected: Arrays) -> float:
    """Largest difference, relative to the largest value expected; infinite where either is not finite."""
    worst = 0.0
    for name, values in expected.items():
        if found[name].shape != values.shape:
            return float("inf")
        worst = max(worst, float(np.abs(found[name] - values).max()) / float(np.abs(values).max()))
    return worst if np.isfinite(worst) else float("inf")


def _with_logits(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, str]]:
    """``proto`` with the inputs of a Softmax that makes an output; these with a name for comparisons."""
    makers = {name: node for node in proto.graph.node for name in node.output}
    extended, logits = onnx.ModelProto(), {}
    extended.CopyFrom(proto)
    for output in proto.graph.output:
        node = makers.get(output.name)
        while node is not None and node.op_type in ("Cast", "Reshape", "Flatten", "Identity", "Squeeze"):
            node = makers.get(node.input[0])
        if node is not None and node.op_type == "Softmax" and node.input[0] in makers:
            logits[node.input[0]] = f"logits of {output.name}"
            extended.graph.output.append(onnx.ValueInfoProto(name=node.input[0]))
    return extended, logits
