"""A module for each language of an encoder-decoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graft.passes.base import Context
from graft.passes.compensate.refit import Refit
from graft.passes.cut.language import Restrict, words_of
from graft.passes.cut.slice import Slice
from graft.passes.cut.verify import Pruned
from graft.passes.decompose import Decompose
from graft.passes.languages import Languages
from graft.passes.parent import Parent
from graft.passes.select.observe import Observe
from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.groups.analysed import Analysed
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.groups.plan import Plan
from tests import small, translator
from tests.translator import SPOKEN, WORDS

DRAWN = {
    "seed": st.integers(0, 2**20),
    "op": st.sampled_from(["GRU", "LSTM", "RNN"]),
    "units": st.integers(2, 9),
}


def decompose(parent: Parent, samples: Samples, sets: Any, **options: Any) -> Any:
    context = Context(samples=samples, held_out=samples, device=small.CPU)
    profile = Observe(())(parent, context).profile
    made = Decompose((), verify=True, **options)
    context = Context(samples=samples, held_out=samples, profile=profile, device=small.CPU)
    return Languages(sets, made)(parent, context)


@pytest.mark.parametrize("op", ["GRU", "LSTM", "RNN"])
def test_the_words_of_other_languages_leave_exactly(op: str) -> None:
    model = translator.model(op=op)
    report = decompose(Parent(model), translator.samples(model), (("Red",), ("Blue",)), keep=1.0)
    found = translator.arrays(30, seed=5)
    whole = translator.run(model, found)
    for (name, (start, words)), module in zip(SPOKEN.items(), report.modules, strict=True):
        card = module.model.require_card()
        kept = (*WORDS[:3], WORDS[start], *(WORDS[each] for each in words))
        assert card.labels == kept and card.decoder is not None
        assert card.decoder.words == tuple(map(WORDS.index, kept)) and card.decoder.starts == {name: start}
        rows = found["target"][:, 0] == start
        columns = [WORDS.index(label) for label in kept]
        ours = translator.run(module.model, found)[rows]
        np.testing.assert_allclose(ours, whole[rows][..., columns], rtol=1e-6, atol=1e-6)
        assert module.difference == 0 and module.plan.counts()[0] == module.plan.counts()[1]
        shapes = {t.name: t.shape for t in module.model.graph.tensors().values()}
        assert shapes["head.w"] == (translator.UNITS, len(kept))
    assert report.classes == (("Red",), ("Blue",))
    assert [entry["file"] for entry in report.describe()["modules"]] == ["Red.onnx", "Blue.onnx"]
    assert report.measured.parent == report.measured.composed


def test_the_embedding_loses_the_rows_that_are_not_written() -> None:
    """Where the table is large enough for the map of numbers to pay."""
    model = translator.model()
    table = model.graph.tensors()["words.target"]
    table.values = np.random.default_rng(0).normal(size=(400, 64)).astype(np.float32)
    weights = model.graph.tensors()["decoder.w"]
    weights.values = np.random.default_rng(1).normal(size=(1, 24, 64)).astype(np.float32)
    report = decompose(Parent(model), translator.samples(model), (("Red",),), keep=1.0)
    (module,) = report.modules
    (words,) = module.words
    assert (words.name, words.kept, words.before) == ("target", 10, 400)
    found = translator.arrays(30, seed=5)
    rows = found["target"][:, 0] == SPOKEN["Red"][0]
    columns = [WORDS.index(label) for label in module.model.require_card().labels]
    np.testing.assert_allclose(
        translator.run(module.model, found)[rows],
        translator.run(model, found)[rows][..., columns],
        rtol=1e-6,
        atol=1e-6,
    )


def test_units_are_removed_and_refitted_on_sentences_in_the_language() -> None:
    model = translator.model(units=16)
    parent, samples = Parent(model), translator.samples(model, 200)
    cut = decompose(parent, samples, (("Red", "Blue"),), keep_layers={"*coder*": 0.75}, compensate="none")
    fitted = decompose(parent, samples, (("Red", "Blue"),), keep_layers={"*coder*": 0.75})
    found = translator.arrays(100, seed=7)
    whole, counted = translator.run(model, found), found["y"] > 0
    off = [
        np.abs(translator.run(each.modules[0].model, found) - whole)[counted].mean() for each in (cut, fitted)
    ]
    assert fitted.modules[0].difference < 1e-5 and off[1] < 0.8 * off[0]
    layers = [node for node in fitted.modules[0].model.graph.nodes if node.op == "GRU"]
    assert [node.inputs[2].shape for node in layers] == [(1, 36, 12)] * 2


@settings(max_examples=25, deadline=None)
@given(**DRAWN)
def test_states_of_both_layers_are_removed_together(seed: int, op: str, units: int) -> None:
    """The law: the cut equals the masked parent, whatever units of the two layers are removed."""
    model = translator.model(seed, units, op)
    groups = ChannelGroups(model)
    random, kept = np.random.default_rng(seed), groups.everything()
    kept[random.random(groups.count) < 0.5] = False
    kept |= ~groups.cuttable()
    for channels in groups.needed():
        kept[channels[0]] |= not kept[channels].any()
    kept = groups.close(kept.astype(float)) > 0
    cut = model.copy()
    plan = Plan.of(groups, kept, "p")
    small.prune(cut, plan)
    found = translator.arrays(6, seed)
    report = small.verify(model, plan, cut, {name: found[name] for name in ("source", "target")})
    assert report.difference < 1e-5


def test_words_of_a_language() -> None:
    samples = translator.samples(translator.model())
    assert words_of(samples.speaking(["Blue"]), ("Blue",)) == (*WORDS[:3], "<blue>", ",", "b0", "b1")


def test_a_language_that_was_left_out_is_no_class_any_more() -> None:
    model = translator.model()
    report = Restrict(("Blue",))(model, Context())
    card = report.model.require_card()
    assert card.classes == ("Blue",) and card.labels == WORDS and not report.words
    report = Restrict(("Blue",))(model, Context(samples=translator.samples(model), device=small.CPU))
    assert report.changed == 6 and len(report.model.require_card().labels) == 7
    with pytest.raises(GraftError, match="no column"):
        Decompose(WORDS[:5], other=True).headed(Parent(model), Context())


def test_what_is_fed_behind_the_end_does_not_count_for_the_refit() -> None:
    model = translator.model()
    whole = Analysed.of(model)
    units = next(group.name for group in whole.groups if group.name == "encoder")
    plan = small.plan(whole.model, **{units: (0, 3)})
    found = []
    for fed in (translator.PADDING, translator.UNKNOWN):
        arrays = translator.arrays(60)
        arrays["target"][arrays["y"] == translator.PADDING] = fed
        cut = whole.copy()
        Slice(plan)(cut, Context())
        inputs = {name: arrays[name] for name in ("source", "target")}
        split = Dataset.from_arrays(inputs, arrays["y"]).split("train")
        samples = Samples.match(split, model.require_card(), names=WORDS)
        Refit(WORDS, True)(Pruned(whole, plan, cut.model), Context(samples=samples, device=small.CPU))
        found.append(translator.run(cut.model, translator.arrays(20, seed=2)))
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)
