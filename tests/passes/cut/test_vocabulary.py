"""Words that no sample uses are gone, and the others read what they read before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from graft.passes.base import Context
from graft.passes.cut.vocabulary import Vocabulary, Words
from graft.passes.decompose import Decompose
from graft.passes.parent import Parent
from graft.passes.select.observe import Observe
from graft.rewriter.card.card import Card
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from tests import small

WORDS, STEPS = 60, 5
DRAWN = {
    "seed": st.integers(0, 2**20),
    "words": st.integers(30, 200),
    "share": st.floats(0.02, 0.6),
    "dtype": st.sampled_from([TensorProto.INT64, TensorProto.INT32]),
    "opset": st.sampled_from([11, 13, 17, 21]),
    "known": st.booleans(),
}


def tokens(
    dtype: int = TensorProto.INT64,
    opset: int = 17,
    unknown: int | None = None,
    words: int = WORDS,
    seed: int = 0,
    **more: Any,
) -> Model:
    """Tokens through an embedding, the mean over steps, and a hidden layer."""
    net = small.Net(STEPS, opset=opset, seed=seed)
    look_up = net.node("Gather", "words", net.weight("E", words, 8), "x", **more)
    relu = net.node("Relu", "on", net.node("MatMul", "hidden", look_up, net.weight("H", 8, 6)))
    axes = {"axes": [1]} if opset < 18 else {}
    mean = net.node("ReduceMean", "mean", relu, *([] if axes else [net.ints("one", 1)]), keepdims=0, **axes)
    net.gemm("y", mean, 4, 6)
    proto = net.proto(y=[4])
    proto.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", dtype, ["N", STEPS]))
    given = {"name": "x", "kind": "tokens"} | ({} if unknown is None else {"unknown": unknown})
    card = {"input": given, "output": {"name": "y", "kind": "logits"}, "labels": list(small.LABELS)}
    return Model.from_proto(proto, Card.model_validate(card))


def text(model: Model, used: np.ndarray, count: int = 40, seed: int = 0) -> Samples:
    """Samples of some words; all of these occur."""
    drawn = np.random.default_rng(seed).choice(used, (count, STEPS))
    drawn.reshape(-1)[: len(used)] = used
    return small.samples(drawn, np.arange(count) % 4, model.require_card())


@pytest.mark.parametrize("opset", [11, 17, 21])
@pytest.mark.parametrize("dtype", [TensorProto.INT64, TensorProto.INT32])
@pytest.mark.parametrize("unknown", [None, 3, 50])
def test_known_words_read_the_same_and_others_the_unknown_one(
    dtype: int, unknown: int | None, opset: int
) -> None:
    model = tokens(dtype, opset, unknown)
    whole, used = model.copy(), np.array([1, 4, 7, 8, 30, 59])
    report = Vocabulary()(model, Context(samples=text(model, used)))
    assert report.words == (Words("x", 7, WORDS),) and report.changed == WORDS - 7
    kind = np.int64 if dtype == TensorProto.INT64 else np.int32
    x = np.random.default_rng(1).choice(used, (9, STEPS)).astype(kind)
    np.testing.assert_array_equal(small.run(model, x)["y"], small.run(whole, x)["y"])
    table = whole.graph.tensors()["E"]
    gone = np.setdiff1d(np.arange(WORDS), used)
    expected = table.values.copy()
    expected[gone] = table.values[gone].mean(axis=0) if unknown is None else table.values[unknown]
    table.values = expected
    any_words = np.random.default_rng(2).integers(0, WORDS, (20, STEPS)).astype(kind)
    np.testing.assert_allclose(
        small.run(model, any_words)["y"], small.run(whole, any_words)["y"], rtol=1e-5, atol=1e-6
    )
    with pytest.raises(GraftError, match="onnxruntime failed"):
        small.CPU.open(model).run({"x": np.full((1, STEPS), WORDS, kind)})


@settings(max_examples=15, deadline=None)
@given(**DRAWN)
def test_the_cut_equals_the_masked_table(
    seed: int, words: int, share: float, dtype: int, opset: int, known: bool
) -> None:
    """The law: a row that was removed reads as that of unknown words, and every other one as before."""
    random = np.random.default_rng(seed)
    used = random.permutation(words)[: max(1, int(share * words))]
    unknown = int(random.integers(words)) if known else None
    model = tokens(dtype, opset, unknown, words, seed)
    whole = model.copy()
    report = Vocabulary()(model, Context(samples=text(model, used, max(40, len(used)), seed)))
    table = whole.graph.tensors()["E"]
    gone = np.setdiff1d(np.arange(words), [*used, *([] if unknown is None else [unknown])])
    if gone.size and report.changed:  # few rows are left where they are
        rows = table.values.copy()
        rows[gone] = table.values[gone].mean(axis=0) if unknown is None else table.values[unknown]
        table.values = rows
    x = random.integers(0, words, (20, STEPS)).astype(np.int64 if dtype == TensorProto.INT64 else np.int32)
    np.testing.assert_allclose(small.run(model, x)["y"], small.run(whole, x)["y"], rtol=1e-5, atol=1e-6)


def test_numbers_that_count_from_the_end_are_words_too() -> None:
    model = tokens()
    whole = model.copy()
    Vocabulary()(model, Context(samples=text(model, np.array([0, -1, 5]))))
    x = np.array([[0, -1, 5, 59, 0]])
    np.testing.assert_array_equal(small.run(model, x)["y"], small.run(whole, x)["y"])


def test_what_is_not_worth_it_or_cannot_be_done_is_left() -> None:
    model = tokens()
    before = model.graph_sha256()
    report = Vocabulary()(model, Context(samples=text(model, np.arange(58))))
    assert report.words == (Words("x", WORDS, WORDS),) and model.graph_sha256() == before
    assert Vocabulary()(model, Context()).declined[0].reason == "no samples"
    dense = small.model(small.dense_net())
    assert Vocabulary()(dense, Context(samples=small.samples(small.inputs([6])))).declined
    tied = tokens()
    head = next(node for node in tied.graph.nodes if node.op == "MatMul")
    extra = tied.graph.tensors()["E"]
    head.outputs[0].outputs[0].inputs.append(extra)
    report = Vocabulary()(tied, Context(samples=text(tied, np.array([1, 2]))))
    assert "are read by on, too" in report.declined[0].reason and not report.changed


def test_an_unknown_word_beyond_the_embedding_is_an_error() -> None:
    model = tokens(unknown=WORDS)
    with pytest.raises(GraftError, match=f"names {WORDS} as its unknown word"):
        Vocabulary()(model, Context(samples=text(model, np.array([1, 2]))))


def test_a_module_of_used_words_says_so_and_computes_the_same() -> None:
    model = tokens()
    samples, of = text(model, np.array([2, 3, 5, 7, 11]), 80), Parent(model)
    context = Context(samples=samples, device=small.CPU)
    context = small.context(Observe()(of, context).profile, samples)
    plain = Decompose(["a", "b"], 0.6, method="relevance")(of, context)
    report = Decompose(["a", "b"], 0.6, method="relevance", vocabulary="used")(of, context)
    assert report.words == (Words("x", 6, WORDS),) and plain.words == ()
    x = np.random.default_rng(3).choice([2, 3, 5, 7, 11], (12, STEPS))
    np.testing.assert_array_equal(small.run(report.model, x)["y"], small.run(plain.model, x)["y"])
    assert report.cost.parameters < plain.cost.parameters / 2
