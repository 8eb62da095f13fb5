"""The law that tests every rule: a cut graph computes what the masked parent computes.

Checked against the masker of the tests, which knows nothing of groups and operator classes, and
against the one that verifies written models.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from onnx import TensorProto

from graft.passes.cut import verify
from graft.rewriter.arrays import Channels
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.analysed import Analysed
from graft.rewriter.groups.groups import ChannelGroups, Group
from graft.rewriter.groups.plan import Plan
from tests import cases, graphs, masker, small
from tests.graphs import Builder
from tests.masker import Array, MaskedParent, kept_outputs

TOLERANCE = 1e-4
SHARES = (0.2, 0.5, 0.8)
UNHURRIED = (HealthCheck.too_slow, HealthCheck.filter_too_much)


class Law:
    """One parent with its groups and its masked parent.

    Args:
        proto: the parent.
        inputs: prepared samples; normal ones if left out.
        threads: onnxruntime's threads.
        tolerance: largest difference between cut graph and masked parent.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        inputs: Mapping[str, Array] | None = None,
        threads: int = 1,
        tolerance: float = TOLERANCE,
    ) -> None:
        self.tolerance = tolerance
        self.proto = proto
        self.inputs = graphs.samples(proto) if inputs is None else inputs
        self.threads = threads
        self.parent = Model.from_proto(proto)
        self.groups = ChannelGroups(self.parent)
        self.masked = MaskedParent(proto, threads)

    def varies(self) -> bool:
        """Whether the parent's outputs differ between samples and between classes."""
        whole = {name: values.astype(np.float64) for name, values in self.run(self.proto).items()}
        scale = {name: float(np.abs(values).max()) for name, values in whole.items()}
        return all(
            min(values.std(axis=0).max(), values.std(axis=1).max()) > 1e-2 * scale[name] > 0
            for name, values in whole.items()
        )

    def run(self, proto: onnx.ModelProto) -> dict[str, Array]:
        """Outputs of a graph for the samples."""
        return masker.run(proto, self.inputs, self.threads)

    def plan(self, share: float, seed: int, whole: float = 0) -> Plan:
        """A random plan that keeps about ``share`` of what can go, and a channel where one has to stay.

        Of the lists that may lose all channels, a share of about ``whole`` do.
        """
        rng = np.random.default_rng(seed)
        kept = ~self.groups.cuttable() | (rng.random(self.groups.count) < share)
        for channels in self.removable():
            if rng.random() < whole:
                kept[channels] = False
        for channels in self.groups.needed():
            if not self.groups.close(kept)[channels].any():
                kept[self.groups.behind(rng.choice(channels, 1))] = True
        return Plan.of(self.groups, kept, parent="")

    def removable(self) -> list[Channels]:
        """Lists that may lose all channels."""
        needed = {channels.tobytes() for channels in self.groups.needed()}
        return [channels for channels in self.groups.lists() if channels.tobytes() not in needed]

    def cut(self, plan: Plan) -> onnx.ModelProto:
        """The parent cut by ``plan``."""
        model = self.parent.copy()
        small.prune(model, plan)
        return model.proto()

    def check(self, plan: Plan) -> onnx.ModelProto:
        """Assert the law for one plan; return the cut graph."""
        cut = self.cut(plan)
        onnx.checker.check_model(cut, full_check=True)
        found = self.run(cut)
        assert differs(found, self.masked_as(cut)) < self.tolerance
        assert differs(found, self.run(verify.mask(Analysed.of(self.parent), plan).proto())) < self.tolerance
        self._check_size(plan, cut)
        return cut

    def masked_as(self, cut: onnx.ModelProto) -> dict[str, Array]:
        """What the masked parent computes without the channels that ``cut`` lacks."""
        return self.masked.run(kept_outputs(self.proto, cut), self.inputs)

    def _check_size(self, plan: Plan, cut: onnx.ModelProto) -> None:
        kept, channels = plan.counts()
        assert all(0 not in tensor.dims for tensor in cut.graph.initializer)
        if kept < channels:
            assert numbers(cut) < numbers(self.proto)
        else:
            assert numbers(cut) == numbers(self.proto)


def differs(found: Mapping[str, Array], expected: Mapping[str, Array]) -> float:
    """Largest difference, relative to the largest value expected."""
    assert found.keys() == expected.keys()
    worst = 0.0
    for name, array in expected.items():
        values, result = (each.astype(np.float64) for each in (array, found[name]))
        assert result.shape == values.shape
        assert np.isfinite(values).all()
        scale = float(np.abs(values).max())
        worst = max(worst, float(np.abs(result - values).max()) / scale)
    return worst


def numbers(proto: onnx.ModelProto) -> int:
    """How many weights the nodes read; one that is shared counts for each reader.

    Integers are indices and shapes: a Slice with steps becomes a Gather of what is left, which may need more.
    """
    integers = (TensorProto.INT64, TensorProto.INT32)
    weights = [tensor for tensor in proto.graph.initializer if tensor.data_type not in integers]
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in weights}
    return sum(sizes.get(name, 0) for node in proto.graph.node for name in node.input)


def shift_shows(law: Law, group: Group) -> float:
    """How far off a cut is that removes the next channel of ``group`` instead of the planned one."""
    return max((differs(law.run(shifted), planned) for shifted, planned in _shifts(law, group)), default=0)


def shift_matters(law: Law, group: Group) -> float:
    """How far the masked parents of these cuts are apart: what nobody reads cannot show."""
    return max(
        (differs(law.masked_as(shifted), planned) for shifted, planned in _shifts(law, group)), default=0
    )


def _shifts(law: Law, group: Group, tries: int = 4) -> Iterator[tuple[onnx.ModelProto, dict[str, Array]]]:
    """The cut of the next channel, and what that of the planned one has to compute; for a few channels."""
    places = np.flatnonzero(group.cuttable).tolist()
    for place, wrong in list(zip(places, [*places[1:], places[0]], strict=True))[:tries]:
        with contextlib.suppress(GraftError):  # would leave no channel on an axis
            planned, shifted = (law.cut(_without(group, one)) for one in (place, wrong))
            yield shifted, law.masked_as(planned)


def _without(group: Group, channel: int) -> Plan:
    return Plan("", {group.name: np.arange(group.size) != channel})


def shiftable(groups: ChannelGroups) -> list[Group]:
    """Groups with two channels to confuse; zeros that a Pad makes are all alike."""
    return [g for g in groups if g.cuttable.sum() > 1 and not g.name.startswith("pad")]


# -------------------------------------------------------------------- random graphs

BRANCHING = [
    *(graphs.residual, graphs.squeeze_excite, graphs.shortcut, graphs.concatenation, graphs.channels_last),
    *(graphs.branch, graphs.inverted, graphs.dense_block),
]


def _unhurried(examples: int) -> settings:
    return settings(deadline=None, database=None, max_examples=examples, suppress_health_check=UNHURRIED)


def holds_for_random_graphs(examples: int, seed: int) -> int:
    """Assert the law for random graphs, three plans each.

    Args:
        examples: how many graphs.
        seed: of hypothesis; the same graphs for the same seed.

    Returns:
        How many graphs the law was checked for.
    """
    checked = 0

    @seeded(seed)
    @_unhurried(examples)
    @given(cases.networks(), st.integers(0, 2**16))
    def holds(proto: onnx.ModelProto, number: int) -> None:
        nonlocal checked
        onnx.checker.check_model(proto, full_check=True)
        law = Law(proto)
        assume(law.varies())
        for share in SHARES:
            law.check(law.plan(share, number))
        checked += 1

    holds()
    return checked


def fails_for_shifted_cuts(examples: int, seed: int) -> int:
    """Assert that a cut of the wrong channels breaks the law, unless nobody reads them.

    Args:
        examples: how many graphs.
        seed: of hypothesis.

    Returns:
        How many graphs had channels to confuse.
    """
    checked = 0

    @seeded(seed)
    @_unhurried(examples)
    @given(cases.networks())
    def fails(proto: onnx.ModelProto) -> None:
        nonlocal checked
        law = Law(proto)
        groups = shiftable(law.groups)
        assume(groups and law.varies())
        if max(shift_shows(law, group) for group in groups) <= 10 * TOLERANCE:
            assert max(shift_matters(law, group) for group in groups) <= 20 * TOLERANCE
        checked += 1

    fails()
    return checked


@st.composite
def branching_networks(draw: st.DrawFn) -> onnx.ModelProto:
    """Random networks with branches that may be removed, among others."""

    def pick(options: Any) -> Any:
        return draw(st.sampled_from(list(options)))

    b = Builder(draw(st.integers(0, 2**16)), pick(graphs.OPSETS))
    x = b.relu(b.layer(b.input(*pick([(3, 6, 5), (2, 9), (6,)])), pick([3, 4, 6])))
    for _ in range(draw(st.integers(1, 4))):
        x = pick([*BRANCHING, *BRANCHING, *cases.STRUCTURES])(b, x, pick)
        if x.channels > 12:
            x = b.layer(x, 4, 1)
    return b.model(graphs.head(b, x, pick))


def holds_when_lists_are_removed(examples: int, seed: int) -> int:
    """Assert the law for random graphs and plans that remove whole branches.

    Args:
        examples: how many graphs.
        seed: of hypothesis.

    Returns:
        How many lists of channels were removed as a whole.
    """
    removed = 0

    @seeded(seed)
    @_unhurried(examples)
    @given(branching_networks(), st.integers(0, 2**16))
    def holds(proto: onnx.ModelProto, number: int) -> None:
        nonlocal removed
        law = Law(proto)
        assume(law.removable() and law.varies())
        for share, whole in ((1.0, 1.0), (0.6, 1.0), (0.6, 0.5)):
            plan = law.plan(share, number, whole)
            law.check(plan)
            mask = plan.mask(law.groups)
            removed += sum(not mask[channels].any() for channels in law.removable())

    holds()
    return removed
