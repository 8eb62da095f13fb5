"""A small encoder-decoder with seeded weights, its card, and sentences that it may be fed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from graft.rewriter.card.card import Card
from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.samples import Samples
from graft.rewriter.graph.model import Model

PADDING, UNKNOWN, END, RED, BLUE = range(5)
"""Numbers of words; the last two begin an answer in one of two languages."""
WORDS = ("(padding)", "(unknown)", "(end)", "<red>", "<blue>", *(f"r{n}" for n in range(5)), ",", "b0", "b1")
SPOKEN = {"Red": (RED, range(5, 11)), "Blue": (BLUE, range(10, 13))}
"""First word and words of each language; the comma belongs to both."""
SOURCE, STEPS, UNITS, WIDTH = 4, 6, 8, 5


GATES = {"GRU": 3, "LSTM": 4, "RNN": 1}


def proto(
    seed: int = 0, units: int = UNITS, opset: int = 18, op: str = "GRU", steps: int | str = "steps"
) -> onnx.ModelProto:
    """Embeddings, a recurrent layer whose last state another one starts from, and a linear layer a step."""
    random, gates = np.random.default_rng(seed), GATES[op]
    stored: dict[str, NDArray[Any]] = {
        "words.source": random.normal(size=(7, WIDTH)),
        "words.target": random.normal(size=(len(WORDS), WIDTH)),
        "head.w": random.normal(0, 1.5, (units, len(WORDS))),
        "head.b": random.normal(0, 0.5, len(WORDS)),
    }
    for name in ("encoder", "decoder"):
        stored[f"{name}.w"] = random.normal(0, 0.7, (1, gates * units, WIDTH))
        stored[f"{name}.r"] = random.normal(0, 0.7, (1, gates * units, units))
        stored[f"{name}.b"] = random.normal(0, 0.3, (1, 2 * gates * units))
    constants = [numpy_helper.from_array(a.astype(np.float32), n) for n, a in stored.items()]
    constants.append(numpy_helper.from_array(np.array([1]), "one"))
    make, attributes = helper.make_node, {"hidden_size": units}
    if op == "GRU":
        attributes["linear_before_reset"] = 1
    states = ["state", "cell"] if op == "LSTM" else ["state"]
    nodes = []
    for name, words, start, last in (("encoder", "source", [], states), ("decoder", "target", states, [])):
        read = [f"{name}.first", f"{name}.w", f"{name}.r", f"{name}.b", *(["", *start] if start else [])]
        nodes += [
            make("Gather", [f"words.{words}", words], [f"{name}.read"], name=f"{name}.embedding"),
            make("Transpose", [f"{name}.read"], [f"{name}.first"], perm=[1, 0, 2], name=f"{name}.turned"),
            make(op, read, [f"{name}.all", *last], name=name, **attributes),
        ]
    squeeze = ["decoder.all", "one"] if opset >= 13 else ["decoder.all"]
    axes = {} if opset >= 13 else {"axes": [1]}
    nodes += [
        make("Squeeze", squeeze, ["flat"], name="flat", **axes),
        make("Transpose", ["flat"], ["by_sample"], perm=[1, 0, 2], name="by_sample"),
        make("MatMul", ["by_sample", "head.w"], ["raw"], name="head"),
        make("Add", ["raw", "head.b"], ["logits"], name="bias"),
    ]
    graph = helper.make_graph(
        nodes,
        "translator",
        [
            helper.make_tensor_value_info("source", TensorProto.INT64, ["batch", SOURCE]),
            helper.make_tensor_value_info("target", TensorProto.INT64, ["batch", steps]),
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", steps, len(WORDS)])],
        constants,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(made)
    return made


def card(**decoder: Any) -> Card:
    """The card of the model."""
    starts = {name: start for name, (start, _) in SPOKEN.items()}
    return Card.model_validate(
        {
            "inputs": [
                {"name": "source", "kind": "tokens", "vocabulary": "numbers", "unknown": UNKNOWN},
                {"name": "target", "kind": "tokens", "vocabulary": "colours", "unknown": UNKNOWN},
            ],
            "output": {"name": "logits", "kind": "logits", "steps": True},
            "labels": list(WORDS),
            "decoder": {
                "input": "target",
                "starts": starts,
                "end": END,
                "padding": PADDING,
                "longest": STEPS,
                **decoder,
            },
        }
    )


def model(seed: int = 0, units: int = UNITS, op: str = "GRU", **more: Any) -> Model:
    """The model with its card."""
    return Model.from_proto(proto(seed, units, op=op, **more), card())


def arrays(count: int = 40, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Sentences of both languages, half and half: ``source`` and ``target`` numbers, and the ``y`` words.

    Every word of a language is in one of its sentences.
    """
    random = np.random.default_rng(seed)
    target = np.zeros((count, STEPS), np.int64)
    labels = np.zeros((count, STEPS), np.int64)
    for row in range(count):
        start, words = list(SPOKEN.values())[row % 2]
        length = int(random.integers(1, STEPS))
        spoken = random.choice(list(words), length)
        spoken[0] = words[row // 2 % len(words)]
        target[row, : length + 1] = [start, *spoken]
        labels[row, : length + 1] = [*spoken, END]
    return {"source": random.integers(2, 7, (count, SOURCE)), "target": target, "y": labels}


def samples(of: Model, count: int = 40, seed: int = 0) -> Samples:
    """Sentences of both languages, matched to the card of a model; numbers count all words."""
    found = arrays(count, seed)
    inputs = {name: found[name] for name in ("source", "target")}
    split = Dataset.from_arrays(inputs, found["y"]).split("train")
    return Samples.match(split, of.require_card(), names=WORDS)


def run(of: Model, found: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Scores, by a plain onnxruntime session."""
    session = ort.InferenceSession(of.proto().SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = {name: found[name] for name in ("source", "target")}
    return np.asarray(session.run(["logits"], inputs)[0])


def save(folder: Path) -> Path:
    """Write the model with its card, and its sentences with a training and a test split; return the model."""
    file = folder / "translator.onnx"
    onnx.save(proto(), file)
    file.with_suffix(".yaml").write_text(card().to_yaml(), encoding="utf-8")
    found = {}
    for name, part in {"train": arrays(), "test": arrays(20, seed=1)}.items():
        found |= {f"x_{name}.source": part["source"], f"x_{name}.target": part["target"]}
        found[f"y_{name}"] = part["y"]
    np.savez(folder / "sentences.npz", **found)
    return file
