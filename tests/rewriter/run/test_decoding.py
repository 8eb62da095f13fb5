"""Greedy decoding, word by word."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.run.decoding import Decoding
from graft.rewriter.run.step_graph import step_graph
from tests import small, translator
from tests.translator import END, STEPS


def by_hand(of: Model, found: dict[str, Any]) -> list[tuple[int, ...]]:
    """The likeliest next word of the whole model, again and again."""
    answers = []
    for source, first in zip(found["source"], found["target"][:, 0], strict=True):
        written = [int(first)]
        while len(written) <= STEPS:
            scores = translator.run(of, {"source": source[None], "target": np.array([written])})
            word = int(scores[0, -1].argmax())
            if word == END:
                break
            written.append(word)
        answers.append(tuple(written[1:]))
    return answers


@pytest.mark.parametrize("op", ["GRU", "LSTM", "RNN"])
@pytest.mark.parametrize("opset", [11, 18])
def test_states_go_in_and_out(op: str, opset: int) -> None:
    model, found = translator.model(3, op=op, opset=opset), translator.arrays(12)
    decoding = Decoding(model, small.CPU)
    answers = decoding.answers({"source": found["source"]}, found["target"][:, 0])
    assert decoding.by_step and answers == by_hand(model, found)
    assert len({*answers}) > 2


def reading_backwards() -> Model:
    """The mean over all words written so far is added: a step alone does not know it."""
    proto = translator.proto(3)
    proto.graph.initializer.append(numpy_helper.from_array(np.array([1]), "time"))
    mean = helper.make_node("ReduceMean", ["decoder.read", "time"], ["mean"], name="mean", keepdims=1)
    added = helper.make_node("Add", ["decoder.read", "mean"], ["decoder.mixed"], name="mixed")
    turned = next(node for node in proto.graph.node if node.name == "decoder.turned")
    turned.input[0] = "decoder.mixed"
    place = [node.name for node in proto.graph.node].index("decoder.turned")
    proto.graph.node.insert(place, added)
    proto.graph.node.insert(place, mean)
    onnx.checker.check_model(proto)
    return Model.from_proto(proto, translator.card())


def test_a_decoder_that_looks_at_all_words_runs_on_all_of_them() -> None:
    model, found = reading_backwards(), translator.arrays(12)
    decoding = Decoding(model, small.CPU)
    assert decoding.by_step
    answers = decoding.answers({"source": found["source"]}, found["target"][:, 0])
    assert not decoding.by_step and answers == by_hand(model, found)


def test_a_fixed_number_of_words_is_filled_up() -> None:
    model, found = translator.model(3, steps=STEPS), translator.arrays(12)
    free = translator.model(3)
    decoding = Decoding(model, small.CPU)
    assert not decoding.by_step
    answers = decoding.answers({"source": found["source"]}, found["target"][:, 0])
    assert answers == by_hand(free, found)
    longer = translator.model(3, steps=STEPS - 1)
    with pytest.raises(GraftError, match="longest: 5"):
        Decoding(longer, small.CPU).answers({"source": found["source"]}, found["target"][:, 0])


def test_no_recurrent_layer_has_no_steps() -> None:
    proto = translator.proto()
    kept = [node for node in proto.graph.node if node.name not in ("decoder", "encoder")]
    for node in kept:
        if node.name == "flat":
            node.input[0], node.op_type = "decoder.first", "Identity"
            del node.input[1:]
    del proto.graph.node[:]
    proto.graph.node.extend(kept)
    assert step_graph(Model.from_proto(proto), "target", "logits") is None


def test_classifiers_do_not_write() -> None:
    with pytest.raises(GraftError, match="no decoder"):
        Decoding(small.model(small.dense_net()), small.CPU)
