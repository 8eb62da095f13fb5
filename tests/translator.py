"""A small encoder-decoder with seeded weights, its card, and sentences that it may be fed."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from graft.rewriter.card.card import Card
from graft.rewriter.data.dataset import Dataset
from graft.rewriter.graph.model import Model

PADDING, UNKNOWN, END, RED, BLUE = range(5)
"""Numbers of words; the last two begin an answer in one of two languages."""
WORDS = ("(padding)", "(unknown)", "(end)", "<red>", "<blue>", *(f"r{n}" for n in range(5)), ",", "b0", "b1")
SPOKEN = {"Red": (RED, range(5, 11)), "Blue": (BLUE, range(10, 13))}
"""First word and words of each language; the comma belongs to both."""
SOURCE, STEPS, UNITS, WIDTH = 4, 6, 8, 5


def proto(seed: int = 0, units: int = UNITS, opset: int = 18) -> onnx.ModelProto:
    """Embeddings, a GRU whose last state another GRU starts from, and a linear layer for each step."""
    random = np.random.default_rng(seed)
    stored: dict[str, NDArray[Any]] = {
        "words.source": random.normal(size=(7, WIDTH)),
        "words.target": random.normal(size=(len(WORDS), WIDTH)),
        "head.w": random.normal(0, 1.5, (units, len(WORDS))),
        "head.b": random.normal(0, 0.5, len(WORDS)),
    }
    for name in ("encoder", "decoder"):
        stored[f"{name}.w"] = random.normal(0, 0.7, (1, 3 * units, WIDTH))
        stored[f"{name}.r"] = random.normal(0, 0.7, (1, 3 * units, units))
        stored[f"{name}.b"] = random.normal(0, 0.3, (1, 6 * units))
    constants = [numpy_helper.from_array(a.astype(np.float32), n) for n, a in stored.items()]
    constants.append(numpy_helper.from_array(np.array([1]), "one"))
    make = helper.make_node
    nodes = []
    for name, words, start, last in (("encoder", "source", "", "state"), ("decoder", "target", "state", "")):
        nodes += [
            make("Gather", [f"words.{words}", words], [f"{name}.read"], name=f"{name}.embedding"),
            make("Transpose", [f"{name}.read"], [f"{name}.first"], perm=[1, 0, 2], name=f"{name}.turned"),
            make(
                "GRU",
                [f"{name}.first", f"{name}.w", f"{name}.r", f"{name}.b", "", start],
                [f"{name}.all", last],
                hidden_size=units,
                linear_before_reset=1,
                name=name,
            ),
        ]
    nodes += [
        make("Squeeze", ["decoder.all", "one"], ["flat"], name="flat"),
        make("Transpose", ["flat"], ["by_sample"], perm=[1, 0, 2], name="by_sample"),
        make("MatMul", ["by_sample", "head.w"], ["raw"], name="head"),
        make("Add", ["raw", "head.b"], ["logits"], name="bias"),
    ]
    graph = helper.make_graph(
        nodes,
        "translator",
        [
            helper.make_tensor_value_info("source", TensorProto.INT64, ["batch", SOURCE]),
            helper.make_tensor_value_info("target", TensorProto.INT64, ["batch", "steps"]),
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "steps", len(WORDS)])],
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


def model(seed: int = 0, units: int = UNITS) -> Model:
    """The model with its card."""
    return Model.from_proto(proto(seed, units), card())


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


def dataset(count: int = 40) -> Dataset:
    """Sentences of both languages, a training and a test split."""
    parts = {"train": arrays(count), "test": arrays(count // 2, seed=1)}
    return Dataset.from_arrays(
        {name: {key: part[key] for key in ("source", "target")} for name, part in parts.items()},
        {name: part["y"] for name, part in parts.items()},
    )


def save_npz(path: str) -> None:
    """Write the sentences as a file of samples."""
    found = {}
    for name, part in {"train": arrays(), "test": arrays(20, seed=1)}.items():
        found |= {f"x_{name}.source": part["source"], f"x_{name}.target": part["target"]}
        found[f"y_{name}"] = part["y"]
    np.savez(path, **found)
