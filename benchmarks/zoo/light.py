"""The ``light_*.onnx`` models inside the ``onnx`` package, with random weights.

As they are, their weights are constants that a ConstantOfShape makes, and every input gives the same
output. Here each becomes an initializer of seeded He-normal values: made when it is used, for
VGG-19 would be a file of 575 MB.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from benchmarks.zoo import Entry, Input, Meaning, random_of

Array = NDArray[Any]
FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
SAMPLES = 4
SPREAD = 2.0
"""Standard deviation of the logits: neither all classes alike nor one sure of itself."""

ARCHITECTURES = {
    "bvlc_alexnet": "AlexNet",
    "densenet121": "DenseNet-121",
    "inception_v1": "Inception V1",
    "inception_v2": "Inception V2",
    "resnet50": "ResNet-50",
    "shufflenet": "ShuffleNet",
    "squeezenet": "SqueezeNet",
    "vgg19": "VGG-19",
    "zfnet512": "ZFNet-512",
}


def entries() -> list[Entry]:
    """The models; those whose batch is fixed have a batch of 1."""
    found = []
    for name, architecture in ARCHITECTURES.items():
        proto = onnx.load(FOLDER / f"light_{name}.onnx")
        stored = {tensor.name for tensor in proto.graph.initializer}
        (given,) = (value.name for value in proto.graph.input if value.name not in stored)
        (output,) = (value.name for value in proto.graph.output)
        kind: Meaning = "logits" if name == "densenet121" else "probabilities"
        inputs = (Input(given, (3, 224, 224)),)
        found.append(Entry(f"light_{name}", "onnx", architecture, "cnn", inputs, output, kind, 9))
    return found


def load(entry: Entry) -> onnx.ModelProto:
    """The model with random weights whose logits spread."""
    proto = onnx.load(FOLDER / f"{entry.name}.onnx")
    randomize(proto.graph)
    _spread_last(proto, entry)
    return proto


def randomize(graph: onnx.GraphProto) -> None:
    """Replace what ConstantOfShape makes by values that fit what reads them."""
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    makers = [node for node in graph.node if node.op_type == "ConstantOfShape"]
    readers = {name: (node, i) for node in graph.node for i, name in enumerate(node.input)}
    made = {}
    for node in makers:
        name = node.output[0]
        made[name] = numpy_helper.from_array(_values(name, shapes[node.input[0]], readers), name)
        graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    kept = [t for t in graph.initializer if t.name in used and t.name not in made]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *made.values()])
    given = [value for value in graph.input if value.name in used and value.name not in made]
    values = [helper.make_tensor_value_info(name, t.data_type, t.dims) for name, t in made.items()]
    del graph.input[:]
    graph.input.extend([*given, *values])  # every initializer is an input in files of this age


def _values(name: str, shape: Array, readers: Mapping[str, tuple[onnx.NodeProto, int]]) -> Array:
    """He-normal weights, scales and variances near 1, small biases and means."""
    random, (reader, place) = random_of(name), readers[name]
    while reader.op_type in ("Unsqueeze", "Reshape"):
        reader, place = readers[reader.output[0]]
    if len(shape) > 1:
        return random.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / np.prod(shape[1:])))
    near_one = (reader.op_type, place) in (("BatchNormalization", 1), ("BatchNormalization", 4))
    if near_one or reader.op_type == "Mul":
        return random.uniform(0.6, 1.4, shape).astype(np.float32)
    return random.normal(0, 0.1, shape).astype(np.float32)


def _spread_last(proto: onnx.ModelProto, entry: Entry) -> None:
    """Shift and scale the last layer so that its logits differ between samples, by :data:`SPREAD`.

    A deep network with random weights sees nearly the same in every sample.
    """
    last = next(node for node in reversed(proto.graph.node) if node.op_type in ("Gemm", "Conv"))
    logits = _logits(proto, entry, last.output[0])
    mean = logits.mean(axis=0)
    scale = SPREAD / (logits - mean).std()
    bias = random_of(f"{entry.name}.bias").normal(0, SPREAD / 4, mean.shape)
    reshaped = {node.output[0]: node.input[0] for node in proto.graph.node if node.op_type == "Reshape"}
    weight = reshaped.get(last.input[1], last.input[1])
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.name == weight:
            tensor.CopyFrom(numpy_helper.from_array(values * np.float32(scale), tensor.name))
        if tensor.name == last.input[2]:
            values = ((values - mean) * scale + bias).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _logits(proto: onnx.ModelProto, entry: Entry, tensor: str) -> Array:
    """Values of ``tensor`` for a few samples, averaged over space."""
    tapped = onnx.ModelProto()
    tapped.CopyFrom(proto)
    tapped.graph.output.append(helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None))
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(tapped.SerializeToString(), options, ["CPUExecutionProvider"])
    (values,) = entry.draw(SAMPLES).values()
    found = np.concatenate([session.run([tensor], {entry.inputs[0].name: one[None]})[0] for one in values])
    return found.mean(axis=tuple(range(2, found.ndim))).astype(np.float64)
