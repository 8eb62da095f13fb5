"""The law on what frameworks export: twelve architectures from five exporters, with random weights.

``tests/zoo`` holds the models; ``python -m benchmarks.zoo --store`` makes them anew.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.zoo import Entry
from benchmarks.zoo.counter import matrix_macs, our_macs, parameters
from benchmarks.zoo.entries import ENTRIES, STORED
from benchmarks.zoo.law import SHARES, TOLERANCE, Law, difference
from benchmarks.zoo.pins import pins
from graft.passes.normalize.simplify import Normalize
from graft.rewriter.card.card import Card
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.measure.cost import CostModel, cost_of
from tests import small
from tests.masker import MaskedParent, kept_outputs, run

FOLDER = Path(__file__).parents[2] / "zoo"
SAMPLES = 4

WITH_BRANCHES = (
    *("resnet_torchscript", "regnet_dynamo", "vit_dynamo", "convnext_dynamo"),
    *("bert_torchscript", "swin_dynamo", "mobilenetv3_keras"),
)
"""Models with residual branches that may be removed."""
PINS = {"mixer_flax": "merged with the batch"}
"""What keeps a model below its share: jax2onnx mixes tokens by a product of N * C rows."""
CUTTABLE = {"cnn": 0.9, "transformer": 0.8, "mlp": 0.9}
forms = pytest.mark.parametrize("normalized", [False, True], ids=["exported", "normalized"])
models = pytest.mark.parametrize("name", STORED)


def load(entry: Entry, normalized: bool) -> Model:
    """A model as it was exported, or in the form that ``decompose`` cuts."""
    model = Model.load(FOLDER / f"{entry.name}.onnx")
    if normalized:
        assert not Normalize()(model, small.context()).declined
    return model


def law_of(name: str, normalized: bool) -> Law:
    return Law(load(ENTRIES[name], normalized), ENTRIES[name].draw(SAMPLES))


def test_the_zoo_is_of_many_families_and_exporters() -> None:
    entries = [ENTRIES[name] for name in STORED]
    assert len(entries) == len({entry.architecture for entry in entries}) == 12
    assert len({entry.exporter for entry in entries}) == 5
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 3_000_000


@models
def test_the_card_is_that_of_the_entry(name: str) -> None:
    assert (FOLDER / f"{name}.yaml").read_text(encoding="utf-8") == ENTRIES[name].card()
    model = Model.load(FOLDER / f"{name}.onnx")
    Card.load(FOLDER / f"{name}.yaml").check_against(model.inputs(), model.outputs())


@models
@forms
def test_the_law_holds(name: str, normalized: bool) -> None:
    law = law_of(name, normalized)
    assert min(law.varies()) > 0.01
    for seed, share in enumerate(SHARES):
        assert law.error(law.plan(share, seed)) < TOLERANCE, share


@models
def test_the_law_holds_when_all_is_removed_that_may_be(name: str) -> None:
    law = law_of(name, normalized=True)
    cut, plan = law.cut(law.plan(1.0, 0, whole=True)), law.plan(1.0, 0, whole=True)
    assert difference(law.run(cut), law.masked(plan)) < TOLERANCE
    fell = any(not kept.any() for kept in plan.kept.values())
    assert fell == (name in WITH_BRANCHES)
    assert not fell or len(cut.graph.node) < len(law.model.graph.nodes)


@models
def test_the_law_holds_by_the_independent_mask(name: str) -> None:
    law = law_of(name, normalized=True)
    proto = law.model.proto()
    masked = MaskedParent(proto)
    plans = [law.plan(share, seed) for seed, share in enumerate(SHARES)]
    for plan in (*plans, law.plan(0.6, 0, whole=True)):
        cut = law.cut(plan)
        found, expected = run(cut, law.inputs), masked.run(kept_outputs(proto, cut), law.inputs)
        floats = {output: values for output, values in expected.items() if values.dtype.kind == "f"}
        assert floats
        assert difference(found, floats) < TOLERANCE
        for output in expected.keys() - floats.keys():  # names of classes
            np.testing.assert_array_equal(found[output], expected[output])


@models
def test_a_shifted_cut_of_any_group_fails(name: str) -> None:
    law, enough = law_of(name, normalized=True), 10 * TOLERANCE
    groups = law.shiftable()
    assert law.shifted(groups, enough) > enough
    for group in np.random.default_rng(0).permutation(np.array(groups, object))[:4]:
        assert law.shifted([group], enough) > enough, group.name


@models
def test_most_parameters_can_be_cut(name: str) -> None:
    """Embeddings and the residual stream behind LayerNormalization aside; or the known node pins."""
    groups = law_of(name, normalized=True).groups
    cost, pinned = CostModel(groups), pins(groups)
    share = cost.cuttable_parameters() / (cost.parameters() - pinned.aside)
    (reason, _), *_ = pinned.numbers.most_common(1)
    assert share >= CUTTABLE[ENTRIES[name].family] or PINS.get(name, "none") in reason, (share, reason)


@models
@pytest.mark.filterwarnings("ignore:node Scaler is not registed")  # by onnx-tool, of scikit-learn's operator
def test_another_package_counts_the_same(name: str) -> None:
    """Multiply-accumulates node by node, and parameters."""
    entry = ENTRIES[name]
    model = load(entry, normalized=True)
    groups, proto = ChannelGroups(model), model.proto()
    assert our_macs(groups) == matrix_macs(proto, entry.draw(1))
    assert cost_of(model).parameters == parameters(proto)
