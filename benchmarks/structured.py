"""Prune a model with onnxsim, for ``benchmarks.accuracy``, which runs this file in an environment of its own.

    ENVIRONMENT/bin/python benchmarks/structured.py MODEL.onnx PRUNED.onnx SPARSITY

BatchNormalization is folded first, by onnxsim's simplifier; every layer loses the same share, its
default, which loses less than ranking the whole network.
"""  # fmt: skip

from __future__ import annotations

import sys

import onnx
import onnxsim
from onnxsim import pruning


def main() -> None:
    """Write the pruned model."""
    source, target, sparsity = sys.argv[1:]
    simple, _ = onnxsim.simplify(onnx.load(source))
    onnx.save(pruning.apply_structured_pruning(simple, float(sparsity)), target)


if __name__ == "__main__":
    main()
