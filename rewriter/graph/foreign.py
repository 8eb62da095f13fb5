"""Shapes of operators that onnxruntime adds to ONNX's: those of the standard ones that they stem from.

onnx infers no shapes for other domains. A file that onnxruntime optimized or quantized is full of them.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx

STANDARD: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "com.microsoft::FusedConv": ("Conv", (0, 1)),
    "com.microsoft::FusedGemm": ("Gemm", (0, 1)),
    "com.microsoft::FusedMatMul": ("MatMul", (0, 1)),
    "com.microsoft::TransposeMatMul": ("MatMul", (0, 1)),
    "com.microsoft::DynamicQuantizeMatMul": ("MatMul", (0, 1)),
    "com.microsoft::MatMulIntegerToFloat": ("MatMul", (0, 1)),
    "com.microsoft::MatMulInteger16": ("MatMul", (0, 1)),
    "com.microsoft::QGemm": ("Gemm", (0, 3)),
    "com.microsoft::QLinearConv": ("Conv", (0, 3)),
    "com.microsoft::QLinearAdd": ("Add", (0, 3)),
    "com.microsoft::QLinearMul": ("Mul", (0, 3)),
    "com.microsoft::QLinearSigmoid": ("Identity", (0,)),
    "com.microsoft::QLinearLeakyRelu": ("Identity", (0,)),
    "com.microsoft::QLinearSoftmax": ("Identity", (0,)),
    "com.microsoft::QLinearAveragePool": ("AveragePool", (0,)),
    "com.microsoft::QLinearGlobalAveragePool": ("GlobalAveragePool", (0,)),
    "com.microsoft::SkipLayerNormalization": ("Identity", (0,)),
    "com.microsoft::SkipSimplifiedLayerNormalization": ("Identity", (0,)),
    "com.microsoft::QuantizeLinear": ("Identity", (0,)),
    "com.microsoft::DequantizeLinear": ("Identity", (0,)),
    "com.microsoft.nchwc::Conv": ("Conv", (0, 1)),
    "com.microsoft.nchwc::MaxPool": ("MaxPool", (0,)),
    "com.microsoft.nchwc::AveragePool": ("AveragePool", (0,)),
    "com.microsoft.nchwc::GlobalMaxPool": ("GlobalMaxPool", (0,)),
    "com.microsoft.nchwc::GlobalAveragePool": ("GlobalAveragePool", (0,)),
    "com.microsoft.nchwc::ReorderInput": ("Identity", (0,)),
}
"""Operator to the one that infers its shape, and which of its inputs that reads."""


def write_standard(node: onnx.NodeProto) -> None:
    """Let ``node`` be the standard operator that infers its shape, where there is one."""
    name = f"{node.domain}::{node.op_type}"
    found = STANDARD.get(name)
    if name == "com.microsoft::QLinearConcat":  # scale and zero point of the output, then three of each input
        found = ("Concat", tuple(range(2, len(node.input), 3)))
    attributes = {attribute.name: attribute for attribute in node.attribute}
    last = attributes.get("channels_last")
    if found is None or len(node.input) <= max(found[1]) or (last is not None and last.i):
        return
    operator, indices = found
    if operator == "MatMul" and any(attributes[name].i for name in attributes if name.startswith("trans")):
        return  # of matrices with any number of axes no standard operator turns only the last two
    known = onnx.defs.get_schema(operator).attributes
    standard = onnx.helper.make_node(
        operator, [node.input[index] for index in indices], node.output[:1], node.name
    )
    standard.attribute.extend(each for name, each in attributes.items() if name in known)
    node.CopyFrom(standard)
