"""All structures and cases that the modules beside this one hold, joined: the same for every test.

Tests take :data:`CASES` and :func:`networks` from here, so that what they run does not depend on what else
was imported.
"""

from __future__ import annotations

import onnx
from hypothesis import strategies as st

from tests import cases_attention, cases_operators, graphs
from tests.graphs import Builder, Cases

STRUCTURES = (*graphs.STRUCTURES, *cases_operators.STRUCTURES)
"""What :func:`convolutional` puts together."""
CASES = Cases()
"""Every case by its name."""
for module in (graphs, cases_operators, cases_attention):
    CASES.update(module.CASES)

LATEST = [(name, opsets[-1]) for name, (_, opsets) in sorted(CASES.items())]
"""Every case with its latest opset."""
ALL = [(name, opset) for name, (_, opsets) in CASES.items() for opset in opsets]
"""Every case with each of its opsets."""


def build(name: str, opset: int | None = None, seed: int = 7) -> onnx.ModelProto:
    """The network of one case, of the latest opset that it names where none is given."""
    make, opsets = CASES[name]
    return make(Builder(seed, opset or opsets[-1]))


def convolutional() -> st.SearchStrategy[onnx.ModelProto]:
    """Random networks over images, series and features."""
    return graphs.networks(STRUCTURES)


def networks() -> st.SearchStrategy[onnx.ModelProto]:
    """Random networks of all kinds."""
    return st.one_of(convolutional(), cases_attention.networks())
