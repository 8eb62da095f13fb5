"""A model that does not fit into memory is refused in one line that says so, whatever its weights lie in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from graft.rewriter import memory
from graft.rewriter.errors import GraftError
from graft.rewriter.graph import importing
from graft.rewriter.graph.model import Model

UNITS = 600


def _write(folder: Path, external: bool) -> Path:
    """Write a dense network, its weights in the file or beside it."""
    names = [("x", "w1", "a"), ("a", "w2", "y")]
    weights = [np.ones((4, UNITS), np.float32), np.ones((UNITS, UNITS), np.float32)]
    ends = [helper.make_tensor_value_info(n, 1, ["n", s]) for n, s in (("x", 4), ("y", UNITS))]
    graph = helper.make_graph(
        [helper.make_node("MatMul", [x, w], [y]) for x, w, y in names],
        "g",
        ends[:1],
        ends[1:],
        [numpy_helper.from_array(each, name) for each, (_, name, _) in zip(weights, names, strict=True)],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "m.onnx"
    onnx.save(proto, path, save_as_external_data=external, location="w.bin")
    return path


@pytest.mark.parametrize("external", [False, True])
def test_a_model_that_does_not_fit_is_not_read(
    external: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path, external)
    monkeypatch.setattr(memory, "free_bytes", lambda: 1_000_000)
    with pytest.raises(
        GraftError, match=r"^not enough memory: 0\.1 GB needed for .*, 0\.1 GB free"
    ) as caught:
        Model.load(path)
    assert caught.value.code == "memory" and str(path) in caught.value.message
    monkeypatch.setattr(memory, "free_bytes", lambda: 2_000_000)
    assert Model.load(path).opset == 17


FAILED = "Unable to allocate 7.50 GiB for an array with shape (2013265920,)"


@pytest.mark.parametrize("reader", ["load_light", "read_external"])
def test_an_allocation_that_fails_while_reading_is_a_lack_of_memory(
    reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError(FAILED)

    path = _write(tmp_path, external=True)
    monkeypatch.setattr(importing, reader, fail)
    with pytest.raises(GraftError, match=r"^not enough memory: 8\.1 GB needed for .*m\.onnx;") as caught:
        Model.load(path)
    assert caught.value.code == "memory"
