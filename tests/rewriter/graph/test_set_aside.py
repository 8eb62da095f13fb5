"""Weights that are only kept to be written lie in a file; what is written is the same."""

from __future__ import annotations

import tempfile
from collections import namedtuple
from pathlib import Path

import numpy as np
import onnx
import pytest

from graft.passes.parent import Parent
from graft.rewriter.graph import light, set_aside, weights
from graft.rewriter.graph.model import Model
from tests.small import Net


@pytest.fixture(autouse=True)
def _low(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small weights count as large ones."""
    for module in (weights, light):
        monkeypatch.setattr(module, "LARGE", 1000)
        monkeypatch.setattr(module, "PIECE", 256)
    monkeypatch.setattr(set_aside, "LEAST", 1000)
    monkeypatch.setattr(set_aside, "PIECE", 256)


def _file(folder: Path, norms: bool) -> Path:
    net = Net(2, 8, 8, seed=3)
    last = net.conv("c1", "x", 16, 2)
    if norms:
        values = [net.constant(f"n{place}", np.linspace(0.5, 1.5, 16)) for place in range(4)]
        last = net.node("BatchNormalization", "norm", last, *values)
    last = net.conv("c2", net.node("Relu", "a", last), 24, 16, pads=[1] * 4)
    net.node("GlobalMaxPool", "p", net.node("Relu", "b", last))
    net.gemm("y", net.node("Flatten", "f", "p"), 4, 24)
    path = folder / "m.onnx"
    onnx.save(net.proto(y=[4]), path)
    path.with_suffix(".yaml").write_text(
        "input: {name: x, kind: tensor}\noutput: {name: y, kind: logits}\nlabels: [a, b, c, d]\n"
    )
    return path


def _mapped(model: Model) -> set[str]:
    """Names of the weights of a model whose memory is that of a file."""
    return {each.name for each in set_aside._large(model.graph) if _of_a_file(each.values)}


def _of_a_file(array: np.ndarray | object) -> bool:
    while isinstance(array, np.ndarray) and not isinstance(array, np.memmap):
        array = array.base
    return isinstance(array, np.memmap)


def test_weights_of_both_forms_are_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _file(tmp_path, norms=True)
    parent = Parent.load(path)
    assert _mapped(parent.source) >= {"c1.w", "c2.w"} and "c2.w" in _mapped(parent.model)
    monkeypatch.setattr(set_aside, "LEAST", 1 << 40)
    plain = Parent.load(path)
    assert not _mapped(plain.source)
    for each, name in ((parent, "one"), (plain, "two")):
        each.source.save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert parent.source.graph_sha256() == plain.sha256 == parent.sha256


def test_weights_of_both_are_in_one_file(tmp_path: Path) -> None:
    parent = Parent.load(_file(tmp_path, norms=False))
    one, other = (each.graph.tensors()["c1.w"].values for each in (parent.source, parent.model))
    assert _of_a_file(one) and one is other
    before = one.copy()
    set_aside.page_out()
    assert (one == before).all()
    one += 1  # pages that were written to stay
    set_aside.page_out()
    assert (one == before + 1).all()


def test_without_room_on_the_disk_they_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(set_aside.shutil, "disk_usage", lambda _: usage(100))
    assert not _mapped(Parent.load(_file(tmp_path, norms=True)).source)


def test_a_disk_that_fails_leaves_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", fail)
    assert not _mapped(Parent.load(_file(tmp_path, norms=True)).source)
