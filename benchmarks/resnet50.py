"""Time and memory of ``graft decompose`` on a ResNet-50 with random weights, 1,000 classes and a few photos.

    python -m benchmarks.resnet50 [--photos 160] [--classes 2] [--json resnet50.json] [-- --keep 0.5 ...]

What comes behind ``--`` goes to ``graft decompose`` (default: ``--keep 0.5 --together``). Needs
``$GRAFT_BENCH``, whose photos are used. Prints how long the command took and what it had estimated, both
beside plain passes of onnxruntime over the same photos, and its largest memory. Takes 3 minutes on two cores.
"""  # fmt: skip

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from benchmarks.common import Output, argument_parser, bench_folder

CARD = """
input: {name: input, kind: image, layout: NCHW, color: RGB, size: [224, 224], scale: 0.0039215686,
  mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}
output: {name: logits, kind: logits}
labels: wnids.txt
"""
DEFAULTS = ("--keep", "0.5", "--together")
BATCH = 32
PASSES = 60
"""So many plain passes over the photos may the command take."""
BLOCKS = (3, 4, 6, 3)
"""Bottleneck blocks of the four stages."""
WIDTH = 64
EXPANSION = 4
OPSET = 17
QUIET = 0.3
"""Scale of the last convolution of a block: the stream neither grows nor vanishes over 16 blocks."""


class _Network:
    """A graph in the making.

    Args:
        seed: of the weights.
    """

    def __init__(self, seed: int) -> None:
        self._draw = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def node(self, operator: str, name: str, inputs: list[str], **attributes: object) -> str:
        """Add a node; its output is called after it."""
        self.nodes.append(helper.make_node(operator, inputs, [f"{name}_output"], name, **attributes))
        return f"{name}_output"

    def weight(self, name: str, shape: tuple[int, ...], spread: float) -> str:
        """Add normal numbers."""
        values = self._draw.standard_normal(shape, np.float32) * np.float32(spread)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def conv(
        self, name: str, source: str, sizes: tuple[int, int, int], stride: int = 1, scale: float = 1.0
    ) -> str:
        """Add a convolution with a bias, as exporters leave it that fold the batch normalization behind.

        Args:
            name: of the node.
            source: what it reads.
            sizes: channels in, channels out, and the side of the kernel.
            stride: of both directions.
            scale: of the weights, over those that keep the variance behind Relu.
        """
        before, after, side = sizes
        spread = scale * (2.0 / (before * side * side)) ** 0.5
        weights = self.weight(f"{name}.weight", (after, before, side, side), spread)
        bias = self.weight(f"{name}.bias", (after,), 0.1)
        around = [side // 2] * 4
        return self.node(
            "Conv", f"/{name}/Conv", [source, weights, bias],
            kernel_shape=[side, side], strides=[stride, stride], pads=around, dilations=[1, 1], group=1,
        )  # fmt: skip

    def bottleneck(self, name: str, source: str, sizes: tuple[int, int], stride: int) -> str:
        """Add a block of three convolutions and a shortcut.

        Args:
            name: of the block.
            source: what it reads.
            sizes: channels that it reads, and channels inside.
            stride: of the convolution of 3 x 3.
        """
        before, inside = sizes
        after = EXPANSION * inside
        inner = self.node("Relu", f"/{name}/relu", [self.conv(f"{name}.conv1", source, (before, inside, 1))])
        inner = self.conv(f"{name}.conv2", inner, (inside, inside, 3), stride)
        inner = self.node("Relu", f"/{name}/relu_1", [inner])
        inner = self.conv(f"{name}.conv3", inner, (inside, after, 1), scale=QUIET)
        if stride > 1 or before != after:
            source = self.conv(f"{name}.downsample.0", source, (before, after, 1), stride, 2**-0.5)
        return self.node("Relu", f"/{name}/relu_2", [self.node("Add", f"/{name}/Add", [inner, source])])


def resnet50(seed: int = 0, classes: int = 1000, width: int = WIDTH, size: int = 224) -> onnx.ModelProto:
    """Return a ResNet-50 with random weights and without batch normalization, which exporters fold away.

    Args:
        seed: of the weights.
        classes: number of logits.
        width: channels of the first stage inside; 64 in ResNet-50.
        size: side of the images.
    """
    net = _Network(seed)
    made = net.node("Relu", "/relu", [net.conv("conv1", "input", (3, width, 7), 2)])
    made = net.node("MaxPool", "/maxpool", [made], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = width
    for stage, blocks in enumerate(BLOCKS):
        for block in range(blocks):
            inside, stride = width << stage, 2 if stage and not block else 1
            made = net.bottleneck(f"layer{stage + 1}.{block}", made, (channels, inside), stride)
            channels = EXPANSION * inside
    made = net.node("Flatten", "/flatten", [net.node("GlobalAveragePool", "/avgpool", [made])])
    head = [
        net.weight("fc.weight", (classes, channels), channels**-0.5),
        net.weight("fc.bias", (classes,), 0.1),
    ]
    net.node("Gemm", "/fc/Gemm", [made, *head], transB=1)
    net.nodes[-1].output[0] = "logits"
    graph = helper.make_graph(
        net.nodes,
        "resnet50",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes])],
        net.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


@dataclass(frozen=True)
class Measured:
    """A run of ``graft decompose``.

    Attributes:
        seconds: from its start to its end.
        estimate: what it said before.
        passes: seconds over those of one plain pass.
        memory: most resident bytes.
        printed: its ``--json``.
        said: lines on standard error.
    """

    seconds: float
    estimate: float
    passes: float
    memory: int
    printed: dict[str, Any]
    said: str


def measure(folder: Path, photos: int, classes: int, more: list[str]) -> Measured:
    """Make model, card and data in ``folder``, and decompose the model.

    Args:
        folder: an empty one.
        photos: number of photos, as many of each class.
        classes: number of classes that have photos.
        more: options of ``graft decompose``.
    """
    model, data = folder / "resnet50.onnx", folder / "photos"
    onnx.save(resnet50(), model)
    model.with_suffix(".yaml").write_text(CARD)
    vision = bench_folder("vision")
    shutil.copy(vision / "imagenet_wnids.txt", folder / "wnids.txt")
    for source in sorted((vision / "imagenette" / "train").iterdir())[:classes]:
        own = data / "train" / source.name
        own.mkdir(parents=True)
        for photo in sorted(source.iterdir())[: photos // classes]:
            shutil.copy(photo, own)
    line = ["decompose", str(model), "--data", str(data), "-o", str(folder / "out"), "--json", *more]
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", "from graft.tools.cli import main; main()", *line],
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    if done.returncode:
        raise SystemExit(done.stderr)
    printed = json.loads(done.stdout)
    one = _pass(model, data)
    return Measured(seconds, printed["estimate_seconds"], seconds / one, memory, printed, done.stderr)


def _pass(model: Path, data: Path) -> float:
    """Return the seconds of one plain pass over the photos, the faster of two."""
    files = sorted(data.rglob("*.jpg"))
    images = [np.asarray(Image.open(file).convert("RGB"), np.float32) for file in files]
    batches = np.stack(images).transpose(0, 3, 1, 2) / 255
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    best = np.inf
    for _ in range(2):
        start = time.perf_counter()
        for first in range(0, len(batches), BATCH):
            session.run(None, {"input": batches[first : first + BATCH]})
        best = min(best, time.perf_counter() - start)
    return float(best)


def main() -> None:
    """Measure, and print a row."""
    given = sys.argv[1:]
    own, more = given, list(DEFAULTS)
    if "--" in given:
        place = given.index("--")
        own, more = given[:place], given[place + 1 :]
    parser = argument_parser(__doc__)
    parser.add_argument("--photos", type=int, default=160, metavar="N", help="number of photos")
    parser.add_argument("--classes", type=int, default=2, metavar="N", help="classes that they are of")
    options = parser.parse_args(own)
    output = Output(options.json)
    output.begin()
    output.section(
        f"ResNet-50, {options.photos} photos of {options.classes} of 1,000 classes: {' '.join(more)}"
    )
    with tempfile.TemporaryDirectory(prefix="graft-resnet50-") as folder:
        found = measure(Path(folder), options.photos, options.classes, more)
    output.header("planned by", "seconds", "estimate", "plain passes", "memory")
    output.row(
        found.printed.get("method", "a plan"),
        f"{found.seconds:.0f}",
        f"{found.estimate:.0f}",
        f"{found.passes:.0f} (at most {PASSES} asked for)",
        f"{found.memory / 1e9:.1f} GB",
    )
    for said in found.said.splitlines():
        output.note(said)


if __name__ == "__main__":
    main()
