"""Train the small Fashion-MNIST classifier of this folder with Keras and write its files.

Graft never imports this script. It is here so that ``fashion_keras.onnx`` can be made again and
so that anyone can see what the network is. It writes three files beside itself:

* ``fashion_keras.onnx``: the trained network, opset 17, dynamic batch, NHWC input, one file;
* ``fashion_keras.yaml``: its card, with the accuracy that ONNX Runtime measures;
* ``fashion_sample.npz``: a class-balanced sample of the images, training and test part.

It needs Python 3.11, ``tensorflow-cpu==2.21.0`` (which brings Keras 3.15), ``tf2onnx==1.17.0``,
``onnx``, ``onnxruntime`` and ``numpy``, and the images of the Debian package
``dataset-fashion-mnist``, which may be unpacked without being installed::

    apt-get download dataset-fashion-mnist && dpkg-deb -x dataset-fashion-mnist_*.deb fashion
    python models/fashion_keras.py --data fashion/usr/share/datasets/fashion-mnist

The seed is 0 throughout, one process and two threads are used, and all 60,000 training images
are trained on for a number of epochs fixed beforehand; the test images only measure the result.
The sample and the structure of the network come out the same everywhere; the weights may differ
a little between processors, because floating-point sums are ordered differently.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import struct
import time
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import tensorflow as tf
import tf2onnx
from keras import layers

Bytes = npt.NDArray[np.uint8]

SEED = 0
THREADS = 2
EPOCHS = 16
BATCH = 128
PEAK_RATE = 0.004
WEIGHT_DECAY = 0.01
SHIFT = 2
SCALE = 1 / 255
LABELS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
SAMPLE_TRAIN = 200
SAMPLE_TEST = 100

CARD = """\
graft: 1
name: Fashion-MNIST, small CNN with separable convolutions (Keras)
input:  {{name: images, kind: image, layout: NHWC, color: GRAY, size: [28, 28],
         scale: {scale!r}, mean: [0.0], std: [1.0]}}
output: {{name: probabilities, kind: probabilities}}
labels: [{labels}]
expect: {{top1: {top1:.4f}}}
license: {license}
source: {source}
"""
LICENSE = "weights as Graft itself; data Fashion-MNIST, Copyright 2017 Zalando SE, MIT"
SOURCE = "trained by models/fashion_keras.py on the images of the Debian package dataset-fashion-mnist"


def read_idx(path: Path) -> Bytes:
    """Read one gzipped IDX file of unsigned bytes, the format Fashion-MNIST is published in."""
    raw = gzip.decompress(path.read_bytes())
    zeros, kind, rank = struct.unpack(">HBB", raw[:4])
    if zeros != 0 or kind != 8:
        raise ValueError(f"{path}: not an IDX file of unsigned bytes")
    shape = struct.unpack(f">{rank}I", raw[4 : 4 + 4 * rank])
    body = np.frombuffer(raw, np.uint8, offset=4 + 4 * rank)
    if body.size != math.prod(shape):
        raise ValueError(f"{path}: {body.size} values where the header says {shape}")
    return body.reshape(shape)


def read_part(folder: Path, part: str) -> tuple[Bytes, Bytes]:
    """Read the images and labels of one part, ``train`` or ``t10k``."""
    images = read_idx(folder / f"{part}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{part}-labels-idx1-ubyte.gz")
    if images.shape != (len(labels), 28, 28):
        raise ValueError(f"{part}: images {images.shape} do not match {len(labels)} labels")
    return images, labels


def normalise(images: Bytes) -> npt.NDArray[np.float32]:
    """Turn raw images [n, 28, 28] into what the network reads: [n, 28, 28, 1], scaled."""
    return images[..., None].astype(np.float32) * np.float32(SCALE)


def balanced(labels: Bytes, count: int, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """Choose ``count`` indices of each class, in shuffled order.

    Args:
        labels: class numbers.
        count: of indices of each class.
        rng: draws them.
    """
    chosen = [rng.choice(np.flatnonzero(labels == one), count, replace=False) for one in range(len(LABELS))]
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
        class_names=np.array(LABELS),
    )
    return test[0][of_test], test[1][of_test]


def build() -> keras.Model:
    """Make the classifier: a stem, a concatenation, a sum, one dense layer with a softmax.

    The two convolutions with ``activation="relu"`` are normalised after it, as many Keras models
    are. What follows the first of them, and one of the two branches after the second, is a padded
    convolution, so these normalisations cannot be folded exactly and stay in the exported graph.
    """
    images = keras.Input((28, 28, 1), name="images")
    x = layers.Conv2D(24, 3, padding="same", activation="relu", name="stem")(images)
    x = layers.BatchNormalization(name="stem_norm")(x)
    x = layers.MaxPooling2D(name="stem_pool")(x)

    x = layers.Conv2D(48, 3, padding="same", use_bias=False, name="wide")(x)
    x = layers.BatchNormalization(name="wide_norm")(x)
    x = layers.ReLU(name="wide_relu")(x)
    more = layers.SeparableConv2D(48, 3, padding="same", use_bias=False, name="more")(x)
    more = layers.BatchNormalization(name="more_norm")(more)
    more = layers.ReLU(name="more_relu")(more)
    x = layers.Concatenate(name="both")([x, more])
    x = layers.MaxPooling2D(name="both_pool")(x)

    x = layers.SeparableConv2D(144, 3, padding="same", activation="relu", name="deep")(x)
    x = layers.BatchNormalization(name="deep_norm")(x)
    inner = layers.SeparableConv2D(144, 3, padding="same", use_bias=False, name="inner")(x)
    inner = layers.BatchNormalization(name="inner_norm")(inner)
    x = layers.Add(name="sum")([x, inner])
    x = layers.ReLU(name="sum_relu")(x)

    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dropout(0.2, name="dropout")(x)
    probabilities = layers.Dense(len(LABELS), activation="softmax", name="probabilities")(x)
    return keras.Model(images, probabilities, name="fashion")


def varied(images: Bytes, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Flip every other image at random and move each by up to ``SHIFT`` pixels a side."""
    count, height, width = images.shape
    padded = np.pad(images, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)))
    top, left = rng.integers(0, 2 * SHIFT + 1, (2, count, 1, 1))
    columns = np.arange(width)
    across = np.where(rng.random((count, 1, 1)) < 0.5, columns, columns[::-1])
    moved = padded[np.arange(count)[:, None, None], top + np.arange(height)[:, None], left + across]
    return normalise(moved)


def train_model(images: Bytes, labels: Bytes) -> keras.Model:
    """Train on every image given and return the network."""
    keras.utils.set_random_seed(SEED)
    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(THREADS)
    tf.config.experimental.enable_op_determinism()
    rng = np.random.default_rng(SEED)
    model = build()
    steps = EPOCHS * -(-len(images) // BATCH)
    warm = steps // 10
    rate = keras.optimizers.schedules.CosineDecay(
        PEAK_RATE / 25, steps - warm, warmup_target=PEAK_RATE, warmup_steps=warm
    )
    optimiser = keras.optimizers.AdamW(rate, weight_decay=WEIGHT_DECAY)
    model.compile(optimiser, "sparse_categorical_crossentropy", metrics=["accuracy"])
    for epoch in range(1, EPOCHS + 1):
        begun = time.monotonic()
        order = rng.permutation(len(images))
        history = model.fit(
            varied(images[order], rng), labels[order], batch_size=BATCH, shuffle=False, verbose=0
        )
        loss, right = (history.history[key][0] for key in ("loss", "accuracy"))
        spent = time.monotonic() - begun
        print(f"epoch {epoch:2d}: loss {loss:.4f}, accuracy {right:.4f}, {spent:.0f} s", flush=True)
    return model


def export(model: keras.Model, path: Path) -> None:
    """Write the trained network as one ONNX file with a dynamic batch."""
    signature = [tf.TensorSpec((None, 28, 28, 1), tf.float32, name="images")]

    def classify(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": model(images, training=False)}

    function = tf.function(classify, input_signature=signature)
    proto, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=17)
    for value in (*proto.graph.input, *proto.graph.output):
        # The converter numbers each unknown size by itself, as if the two batches could differ.
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.checker.check_model(proto, full_check=True)
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
        (found,) = session.run(["probabilities"], {"images": normalise(images[start : start + 500])})
        right += int(np.sum(np.argmax(found, axis=1) == labels[start : start + 500]))
    return right, len(images)


def main() -> None:
    """Read the data, train, export, measure, and write the card and the sample."""
    parser = argparse.ArgumentParser(description="Train the Fashion-MNIST classifier of this folder.")
    parser.add_argument("--data", type=Path, required=True, help="the folder of the .gz files")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder for the files")
    args = parser.parse_args()
    out: Path = args.out
    train = read_part(args.data, "train")
    test = read_part(args.data, "t10k")
    sample = write_sample(out / "fashion_sample.npz", train, test)

    model = train_model(*train)
    path = out / "fashion_keras.onnx"
    export(model, path)

    right, count = accuracy(path, *test)
    top1 = math.floor(right / count * 10_000 + 1e-9) / 10_000  # rounded down
    card = CARD.format(
        scale=SCALE,
        labels=", ".join(LABELS),
        top1=top1,
        license=json.dumps(LICENSE),
        source=json.dumps(SOURCE),
    )
    (out / "fashion_keras.yaml").write_text(card, encoding="utf-8")
    print(f"parameters: {sum(math.prod(weight.shape) for weight in model.trainable_weights)}")
    print(f"file: {path.stat().st_size} bytes")
    print(f"test images: {right} of {count} right")
    right, count = accuracy(path, *sample)
    print(f"test images of the sample: {right} of {count} right")


if __name__ == "__main__":
    main()
