"""Nodes whose attributes, inputs and shapes do not fit together: an error of a rule names the node."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import onnx_graphsurgeon as gs

from graft.rewriter.errors import GraftError

HINT = "check the model: onnx.checker.check_model(model, full_check=True)"


@contextlib.contextmanager
def naming(node: gs.Node, path: str = "") -> Iterator[None]:
    """Let errors that a rule raises in this block name the node that it was asked of, and its file.

    Args:
        node: the node.
        path: of the model's file, which the line begins with.

    Raises:
        GraftError: ``model-invalid`` in place of what the rule raised.
    """
    try:
        yield
    except (LookupError, ValueError, TypeError, ArithmeticError, AttributeError) as error:
        said = f"{type(error).__name__}: {error}" if not isinstance(error, ValueError) else str(error)
        raise GraftError(
            "model-invalid",
            f"{path}{': ' if path else ''}node '{node.name[:99]}' ({node.op[:99]}): "
            f"its attributes, inputs and shapes do not fit together: {said[:150]}",
            HINT,
        ) from error
