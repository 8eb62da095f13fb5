"""A ResNet-50 in ordinary time: benchmarks/resnet50.py, and the same network a sixteenth as wide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from benchmarks.resnet50 import PASSES, measure, resnet50
from graft.passes.identify.ablation import Ablation
from graft.passes.parent import Parent
from graft.rewriter.card.card import Card
from graft.rewriter.graph.model import Model
from tests.bench import needed


@pytest.fixture(scope="module")
def narrow() -> onnx.ModelProto:
    return resnet50(classes=6, width=4, size=32)


def test_the_benchmark_makes_a_resnet50() -> None:
    """Its layers, channels and multiply-accumulates are those of the published network."""
    proto = resnet50()
    numbers = sum(int(np.prod(weight.dims)) for weight in proto.graph.initializer)
    assert numbers == 25_530_472  # 25.6 million, where batch normalizations became biases
    assert sum(node.op_type == "Conv" for node in proto.graph.node) == 53


def test_scores_are_neither_flat_nor_without_bounds(narrow: onnx.ModelProto) -> None:
    session = ort.InferenceSession(narrow.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).normal(size=(8, 3, 32, 32)).astype(np.float32)
    logits = session.run(None, {"input": x})[0]
    assert 0.1 < logits.std() < 20 and logits.std(axis=0).min() > 0.01


def test_the_default_method_runs_a_resnet50_more_often_than_its_photos_are_worth(
    narrow: onnx.ModelProto,
) -> None:
    content = {
        "input": {"name": "input", "kind": "tensor"},
        "output": {"name": "logits", "kind": "logits"},
        "labels": list("abcdef"),
    }
    model = Model.from_proto(narrow, Card.model_validate(content))
    groups = Parent(model).groups
    sixteen = 16 * sum(group.size for group in groups if group.cuttable.any())
    assert Ablation().runs(groups) >= 20_000 * 0.9 and sixteen == 11_456


@needed
def test_a_resnet50_takes_some_sixty_passes_as_estimated(tmp_path: Path) -> None:
    """Other tests run at the same time, now and then: twice as much is allowed as the benchmark asks for."""
    found = measure(tmp_path, 160, 2, ["--keep", "0.5", "--together"])
    assert found.passes <= 2 * PASSES
    assert found.seconds / 4 <= found.estimate <= 4 * found.seconds
    assert found.printed["method"] == "relevance" and "to insist: graft decompose" in found.said
