"""Train small classifiers with five frameworks and export them as their own documentation does.

Run in an environment with the frameworks, which Graft does not need::

    python -m venv exporters && exporters/bin/pip install torch==2.13.0 onnxscript tensorflow-cpu==2.21.0 \
        tf2onnx==1.17.0 scikit-learn skl2onnx lightgbm xgboost onnxmltools onnxruntime pillow
    exporters/bin/python -m benchmarks.way_in.exports FOLDER

The data are scikit-learn's digits (1,797 images of 8 x 8), 1,297 to train and 500 to test. Each model
gets a folder with ``model.onnx``, ``data.npz`` (or ``data/SPLIT/CLASS/*.png``) and ``own.json``: what the
framework itself reaches on the test samples. No card is written: drafting it is what is measured.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SEED = 0
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
Arrays = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]
Export = Callable[[Path], float]
EXPORTS: dict[str, Export] = {}


def export(name: str) -> Callable[[Export], Export]:
    """Register a function that writes a model into a folder and returns its own test accuracy."""

    def register(function: Export) -> Export:
        EXPORTS[name] = function
        return function

    return register


def digits() -> Arrays:
    """Return training and test images, uint8 (N, 8, 8) of 0..255, and their labels, int64 (N,)."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    parts = train_test_split(
        pixels, bunch.target.astype(np.int64), test_size=500, random_state=SEED, stratify=bunch.target
    )
    return parts[0], parts[1], parts[2], parts[3]


def save_arrays(folder: Path, prepare: Callable[[NDArray[Any]], NDArray[Any]], **more: Any) -> Arrays:
    """Write ``data.npz`` with prepared images; return what was written."""
    train, test, train_labels, test_labels = digits()
    parts = prepare(train), prepare(test), train_labels, test_labels
    keys = ("x_train", "x_test", "y_train", "y_test")
    np.savez(folder / "data.npz", **dict(zip(keys, parts, strict=True)), **more)
    return parts


def flat(images: NDArray[Any]) -> NDArray[Any]:
    """Images as rows of float32 0..1."""
    return (images.reshape(len(images), -1) / 255).astype(np.float32)


# ---------------------------------------------------------------------------------------- scikit-learn


def _sklearn(folder: Path, model: Any, labels: NDArray[Any] | None = None, **options: Any) -> float:
    from skl2onnx import to_onnx

    names = {} if labels is None else {"class_names": labels}
    train, test, y_train, y_test = save_arrays(folder, flat, **names)
    if labels is not None:
        y_train, y_test = labels[y_train], labels[y_test]
    model.fit(train, y_train)
    proto = to_onnx(model, train[:1], target_opset=17, **options)
    (folder / "model.onnx").write_bytes(proto.SerializeToString())
    return float(model.score(test, y_test))


@export("scikit-learn MLP, names as labels")
def mlp_names(folder: Path) -> float:
    """A multilayer perceptron whose labels are text, in alphabetical order inside the file."""
    from sklearn.neural_network import MLPClassifier

    return _sklearn(folder, MLPClassifier((48,), max_iter=60, random_state=SEED), np.array(NAMES))


@export("scikit-learn MLP, zipmap off")
def mlp(folder: Path) -> float:
    """The same with a plain tensor of probabilities."""
    from sklearn.neural_network import MLPClassifier

    network = MLPClassifier((48,), max_iter=60, random_state=SEED)
    return _sklearn(folder, network, options={"zipmap": False})


@export("scikit-learn logistic regression")
def logistic(folder: Path) -> float:
    """A linear model: an operator of ai.onnx.ml."""
    from sklearn.linear_model import LogisticRegression

    return _sklearn(folder, LogisticRegression(max_iter=500))


@export("scikit-learn random forest")
def forest(folder: Path) -> float:
    """Trees: nothing in it is a channel."""
    from sklearn.ensemble import RandomForestClassifier

    return _sklearn(folder, RandomForestClassifier(30, random_state=SEED))


# ---------------------------------------------------------------------------------------- boosted trees


def _boosted(folder: Path, model: Any, convert: Callable[..., Any], **options: Any) -> float:
    from onnxmltools.convert.common.data_types import FloatTensorType

    train, test, y_train, y_test = save_arrays(folder, flat)
    model.fit(train, y_train)
    proto = convert(model, initial_types=[("input", FloatTensorType([None, train.shape[1]]))], **options)
    (folder / "model.onnx").write_bytes(proto.SerializeToString())
    return float((model.predict(test) == y_test).mean())


@export("LightGBM")
def lightgbm(folder: Path) -> float:
    """Boosted trees by LightGBM."""
    import onnxmltools
    from lightgbm import LGBMClassifier

    return _boosted(folder, LGBMClassifier(n_estimators=20, verbose=-1), onnxmltools.convert_lightgbm)


@export("XGBoost")
def xgboost(folder: Path) -> float:
    """Boosted trees by XGBoost."""
    import onnxmltools
    from xgboost import XGBClassifier

    return _boosted(folder, XGBClassifier(n_estimators=20), onnxmltools.convert_xgboost)


# ---------------------------------------------------------------------------------------------- PyTorch


def _fit(network: Any, train: NDArray[Any], labels: NDArray[Any], epochs: int) -> Any:
    import torch

    torch.manual_seed(SEED)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    x, y = torch.as_tensor(train), torch.as_tensor(labels)
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for start in range(0, len(x) - 1, 64):
            part = order[start : start + 64]
            loss = torch.nn.functional.cross_entropy(network(x[part]), y[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval()


def _convolutions(channels: int = 1, side: int = 8) -> Any:
    import torch
    from torch import nn

    torch.manual_seed(SEED)
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * (side // 4) ** 2, 10),
    )


def _accuracy(network: Any, test: NDArray[Any], labels: NDArray[Any]) -> float:
    import torch

    with torch.no_grad():
        return float((network(torch.as_tensor(test)).argmax(1).numpy() == labels).mean())


def _images(images: NDArray[Any]) -> NDArray[Any]:
    return (images[:, None] / 255).astype(np.float32)


def _torch_images(folder: Path, example: int, **options: Any) -> float:
    """A convolutional network trained on pixels 0..1; the data keep the raw pixels."""
    import torch

    train, test, y_train, y_test = save_arrays(folder, lambda images: images)
    network = _fit(_convolutions(), _images(train), y_train, 8)
    given = torch.as_tensor(_images(train[:example]))
    torch.onnx.export(network, (given,), folder / "model.onnx", **options)
    return _accuracy(network, _images(test), y_test)


@export("PyTorch CNN, TorchScript, free batch")
def cnn_torchscript(folder: Path) -> float:
    """The older exporter, with the batch named as free."""
    axes = {"x": {0: "batch"}, "y": {0: "batch"}}
    names = {"input_names": ["x"], "output_names": ["y"]}
    return _torch_images(folder, 2, dynamo=False, dynamic_axes=axes, **names)


@export("PyTorch CNN, dynamo, batch of 1")
def cnn_dynamo(folder: Path) -> float:
    """The default of today's exporter: the batch of the example, weights in a second file."""
    return _torch_images(folder, 1, dynamo=True)


def _recurrent() -> Any:
    import torch
    from torch import nn

    class Rows(nn.Module):
        """An LSTM that reads an image row by row."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(SEED)
            self.cells = nn.LSTM(8, 48, batch_first=True)
            self.head = nn.Linear(48, 10)

        def forward(self, rows: Any) -> Any:
            return self.head(self.cells(rows)[0][:, -1])

    return Rows()


@export("PyTorch LSTM, TorchScript, batch of 1")
def lstm_torchscript(folder: Path) -> float:
    """A recurrent network with the default of the older exporter: the batch of the example."""
    import torch

    train, test, y_train, y_test = save_arrays(folder, lambda images: (images / 255).astype(np.float32))
    network = _fit(_recurrent(), train, y_train, 25)
    torch.onnx.export(network, (torch.as_tensor(train[:1]),), folder / "model.onnx", dynamo=False)
    return _accuracy(network, test, y_test)


# ------------------------------------------------------------------------------------------------ Keras


def _keras(folder: Path, layers: list[Any], shape: tuple[int, ...], epochs: int) -> float:
    import keras
    import tensorflow as tf
    import tf2onnx

    keras.utils.set_random_seed(SEED)
    train, test, y_train, y_test = save_arrays(folder, lambda images: images.reshape(-1, *shape))
    network = keras.Sequential([keras.Input(shape), *layers])
    network.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    network.fit(train.astype(np.float32) / 255, y_train, epochs=epochs, verbose=0)
    signature = [tf.TensorSpec((None, *shape), tf.float32, name="input")]
    call = tf.function(lambda rows: network(rows, training=False), input_signature=signature)
    tf2onnx.convert.from_function(call, signature, opset=17, output_path=str(folder / "model.onnx"))
    return float(network.evaluate(test.astype(np.float32) / 255, y_test, verbose=0)[1])


@export("Keras beginner's model, [N, H, W]")
def keras_dense(folder: Path) -> float:
    """Flatten, Dense, Dropout, Dense: images without a channel axis."""
    from keras import layers

    stack = [layers.Flatten(), layers.Dense(64, "relu"), layers.Dropout(0.2), layers.Dense(10, "softmax")]
    return _keras(folder, stack, (8, 8), 30)


@export("Keras CNN, [N, H, W, 1]")
def keras_cnn(folder: Path) -> float:
    """Convolutions with BatchNormalization, channels last."""
    from keras import layers

    stack = [
        layers.Conv2D(16, 3, padding="same", activation="relu"),
        layers.BatchNormalization(),
        layers.MaxPooling2D(),
        layers.Conv2D(32, 3, padding="same", activation="relu"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(10, "softmax"),
    ]
    return _keras(folder, stack, (8, 8, 1), 30)


# ------------------------------------------------------------------------------------------ Hugging Face

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@export("Hugging Face folder, images of any size")
def hugging_face(folder: Path) -> float:
    """``config.json`` and ``preprocessor_config.json`` beside the model; images in folders by class."""
    import torch

    train, test, y_train, y_test = digits()

    def prepared(images: NDArray[Any]) -> NDArray[Any]:
        colour = np.repeat(images[:, None], 3, axis=1).astype(np.float32) / 255
        wanted = (colour - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
        return wanted.astype(np.float32)

    network = _fit(_convolutions(3), prepared(train), y_train, 8)
    names = {"input_names": ["pixel_values"], "output_names": ["logits"]}
    axes = {"pixel_values": {0: "batch_size"}, "logits": {0: "batch_size"}}
    given = (torch.as_tensor(prepared(train[:2])),)
    torch.onnx.export(network, given, folder / "model.onnx", dynamo=False, dynamic_axes=axes, **names)
    config = {"model_type": "resnet", "id2label": {str(place): name for place, name in enumerate(NAMES)}}
    preprocessor = {
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": MEAN,
        "image_std": STD,
        "rescale_factor": 1 / 255,
        "resample": 2,
        "size": {"height": 8, "width": 8},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    _save_pictures(folder / "data" / "train", train, y_train)
    _save_pictures(folder / "data" / "test", test, y_test)
    return _accuracy(network, prepared(test), y_test)


def _save_pictures(folder: Path, images: NDArray[Any], labels: NDArray[Any]) -> None:
    """PNG files, enlarged by two or three, so that they have to be brought to the network's size."""
    from PIL import Image

    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        times = 2 + number % 2
        target = folder / NAMES[label]
        target.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.repeat(times, 0).repeat(times, 1)).save(target / f"{number:04d}.png")


def main() -> None:
    """Export every model into its own folder of the folder named on the command line."""
    warnings.simplefilter("ignore")  # of exporters, about themselves
    root = Path(sys.argv[1])
    for name, function in EXPORTS.items():
        folder = root / function.__name__
        folder.mkdir(parents=True, exist_ok=True)
        own = function(folder)
        (folder / "own.json").write_text(json.dumps({"name": name, "top1": own}))
        print(f"{name}: {own:.4f}", flush=True)


if __name__ == "__main__":
    main()
