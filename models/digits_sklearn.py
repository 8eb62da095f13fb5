"""Train the small digits classifier of this folder with scikit-learn and write its files.

Graft never imports this script. It is here so that ``digits_sklearn.onnx`` can be made again and
so that anyone can see what the network is. It writes three files beside itself:

* ``digits_sklearn.onnx``: the trained network, opset 14, dynamic batch, with the label output and
  the ZipMap that skl2onnx adds by default, one file;
* ``digits_sklearn.yaml``: its card, with the accuracy that ONNX Runtime measures;
* ``digits_sample.npz``: all the images, training and test part.

It needs Python 3.11 or newer, ``scikit-learn==1.9.1``, which brings the images,
``skl2onnx==1.20.0``, ``onnx``, ``onnxruntime``, ``pillow`` and ``numpy``::

    python models/digits_sklearn.py

The seed is 0 throughout. All images that are not held out are trained on for a number of epochs
fixed beforehand; the images held out only measure the result. The sample comes out the same
everywhere; the weights may differ a little between processors, because floating-point sums are
ordered differently.
"""

from __future__ import annotations

import argparse
import json
import math
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from PIL import Image
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

Bytes = npt.NDArray[np.uint8]

SEED = 0
THREADS = 2
EPOCHS = 100
BATCH = 64
RATE = 0.001
DECAY = 0.1
HIDDEN = (64, 32)
HELD_OUT = 500
SIDE = 8
LARGER = 28
TOP = 16  # the data set counts the inked pixels of 4x4 cells
SCALE = TOP / 255
LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

CARD = """\
graft: 1
name: handwritten digits of 8x8 pixels, multilayer perceptron (scikit-learn)
input:  {{name: pixels, kind: image, layout: flat, color: GRAY, size: [{side}, {side}],
         scale: {scale!r}, mean: [0.0], std: [1.0]}}
output: {{name: output_probability, kind: probabilities}}
labels: [{labels}]
expect: {{top1: {top1:.4f}}}
license: {license}
source: {source}
"""
LICENSE = "weights as Graft itself; data Optical Recognition of Handwritten Digits (UCI), CC BY 4.0"
SOURCE = "trained by models/digits_sklearn.py on the images of sklearn.datasets.load_digits"


def read_digits() -> tuple[tuple[Bytes, Bytes], tuple[Bytes, Bytes]]:
    """Read the images as bytes and split them: training part, part held out."""
    data = load_digits()
    images = np.round(data.images * (255 / TOP)).astype(np.uint8)
    labels = data.target.astype(np.uint8)
    parts = train_test_split(images, labels, test_size=HELD_OUT, random_state=SEED, stratify=labels)
    x_train, x_test, y_train, y_test = parts
    return (x_train, y_train), (x_test, y_test)


def normalise(images: Bytes) -> npt.NDArray[np.float32]:
    """Turn raw images [n, 8, 8] into what the network reads: [n, 64], from 0 to 16."""
    return images.reshape(len(images), -1).astype(np.float32) * np.float32(SCALE)


def there_and_back(images: Bytes) -> Bytes:
    """Resize each image up to 28x28 and down again, bilinearly, as a larger input is read."""
    resized = np.empty_like(images)
    for index, image in enumerate(images):
        larger = Image.fromarray(image).resize((LARGER, LARGER), Image.Resampling.BILINEAR)
        resized[index] = np.asarray(larger.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    return resized


def shifted(images: Bytes, down: int, right: int) -> Bytes:
    """Move all images by at most one pixel a side.

    Args:
        images: (n, 8, 8).
        down: pixels, -1 to 1.
        right: pixels, -1 to 1.
    """
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    return padded[:, 1 - down : 1 - down + SIDE, 1 - right : 1 - right + SIDE]


def varied(images: Bytes) -> Bytes:
    """Give each image as it is and resized there and back, in place and moved by one pixel."""
    moves = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))
    both = (images, there_and_back(images))
    return np.concatenate([shifted(one, *move) for one in both for move in moves])


def train_model(images: Bytes, labels: Bytes) -> MLPClassifier:
    """Train on every image given, and on its variants, and return the classifier."""
    inputs = normalise(varied(images))
    targets = np.tile(labels.astype(np.int64), len(inputs) // len(labels))
    model = MLPClassifier(
        HIDDEN,
        activation="relu",
        alpha=DECAY,
        batch_size=BATCH,
        learning_rate_init=RATE,
        max_iter=EPOCHS,
        n_iter_no_change=EPOCHS,
        random_state=SEED,
    )
    with warnings.catch_warnings():
        # The number of epochs is fixed, so it does no harm that the loss still decreases at the end.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(inputs, targets)


def write_sample(path: Path, train: tuple[Bytes, Bytes], test: tuple[Bytes, Bytes]) -> None:
    """Write all the images with their labels, the training part and the part held out.

    Args:
        path: the file.
        train: images and labels.
        test: images and labels that were held out.
    """
    np.savez_compressed(
        path,
        x_train=train[0],
        y_train=train[1],
        x_test=test[0],
        y_test=test[1],
        class_names=np.array(LABELS),
    )


def export(model: MLPClassifier, path: Path) -> None:
    """Write the trained network as one ONNX file with the outputs that skl2onnx gives by default."""
    proto = convert_sklearn(
        model,
        name="digits",  # otherwise the converter draws a random one, and no two files are the same
        initial_types=[("pixels", FloatTensorType([None, SIDE * SIDE]))],
        target_opset={"": 14, "ai.onnx.ml": 1},
    )
    onnx.checker.check_model(proto, full_check=True)
    if [value.name for value in proto.graph.output] != ["output_label", "output_probability"]:
        raise RuntimeError(f"the outputs are not those expected: {proto.graph.output}")
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
    (rows,) = session.run(["output_probability"], {"pixels": normalise(images)})
    found = [max(row, key=row.get) for row in rows]  # ZipMap makes a dictionary of each row
    return int(np.sum(np.array(found) == labels)), len(images)


def main() -> None:
    """Read the data, train, export, measure, and write the card and the sample."""
    parser = argparse.ArgumentParser(description="Train the 8x8 digits classifier of this folder.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder for the files")
    args = parser.parse_args()
    out: Path = args.out
    train, test = read_digits()
    write_sample(out / "digits_sample.npz", train, test)

    model = train_model(*train)
    path = out / "digits_sklearn.onnx"
    export(model, path)

    right, count = accuracy(path, *test)
    top1 = math.floor(right / count * 10_000 + 1e-9) / 10_000  # rounded down
    card = CARD.format(
        side=SIDE,
        scale=SCALE,
        labels=", ".join(LABELS),
        top1=top1,
        license=json.dumps(LICENSE),
        source=json.dumps(SOURCE),
    )
    (out / "digits_sklearn.yaml").write_text(card, encoding="utf-8")
    print(f"parameters: {sum(part.size for part in (*model.coefs_, *model.intercepts_))}")
    print(f"file: {path.stat().st_size} bytes")
    print(f"images held out: {right} of {count} right")
    right, count = accuracy(path, there_and_back(test[0]), test[1])
    print(f"the same, resized to {LARGER}x{LARGER} and back: {right} of {count} right")


if __name__ == "__main__":
    main()
