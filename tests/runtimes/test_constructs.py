"""Constructs of the builder on numbers that are hard, in every runtime that is installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from scipy.special import log_softmax, logsumexp

from graft.rewriter.graph.builder import Builder
from graft.rewriter.runtimes import runtimes
from graft.rewriter.runtimes.apart import Apart

LOGITS = np.array([[0, 95, -40, 3], [-300, -200, -290, -295], [1, 1.5, 1, 1], [0, 0, 0, 0]], np.float32)


@pytest.mark.parametrize("name", ["onnxruntime", "reference", "openvino", "tract", "mnn"])
@pytest.mark.parametrize("opset", [11, 13, 18, 21])
def test_logits_far_apart(name: str, opset: int, tmp_path: Path) -> None:
    runtime = runtimes()[name]
    if not runtime.installed:
        pytest.skip(f"{name} is not installed")
    read = gs.Variable("x", np.dtype(np.float32), ["batch", 4])
    graph = gs.Graph(inputs=[read], opset=opset, name="logits")
    build = Builder(graph, opset, "made")
    graph.outputs = [build.log_shares(read, "shares"), build.logsumexp(read, "whole")]
    for output, width in zip(graph.outputs, (4, 1), strict=True):
        output.dtype, output.shape = np.dtype(np.float32), ["batch", width]
    onnx.save(gs.export_onnx(graph.cleanup().toposort(), ir_version=8), tmp_path / "made.onnx")
    ran = Apart(1, 60.0).run(runtime, tmp_path / "made.onnx", [{"x": LOGITS}], timed=False)
    assert ran.error is None, ran.error
    shares, whole = ran.outputs[0]
    np.testing.assert_allclose(shares, log_softmax(LOGITS, axis=-1), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(whole, logsumexp(LOGITS, axis=-1, keepdims=True), rtol=1e-5, atol=1e-5)
