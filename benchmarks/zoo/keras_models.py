"""Export ``keras.applications`` with narrow layers and seeded random weights, by tf2onnx.

Run in an environment with tensorflow, keras and tf2onnx::

    python -m benchmarks.zoo.keras_models [-o .zoo] [NAME ...]
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # the same sums wherever it runs

import keras
import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from keras import applications
from keras.src.applications import densenet, nasnet

from benchmarks.zoo import CLASSES, Entry, parameter, statistics
from benchmarks.zoo.entries import ENTRIES
from benchmarks.zoo.export import export_all

SAMPLES = 32
SPREAD = 1.5
HEADS = ("predictions", "logits")
WIDTHS = ("filters", "units")

NASNET = {"penultimate_filters": 192, "num_blocks": 1, "stem_block_filters": 8, "default_size": 32}
MODELS: dict[str, tuple[Any, int, dict[str, Any]]] = {
    "vgg": (applications.VGG16, 16, {}),
    "xception": (applications.Xception, 16, {}),
    "densenet": (densenet.DenseNet, 8, {"blocks": [3, 4, 6, 4]}),
    "mobilenetv3": (applications.MobileNetV3Small, 8, {}),
    "resnetv2": (applications.ResNet50V2, 16, {}),
    "inception": (applications.InceptionV3, 16, {}),
    "nasnet": (nasnet.NASNet, 1, NASNET),
    "efficientnetv2": (applications.EfficientNetV2B0, 8, {"include_preprocessing": False}),
}
"""An application, by how much its layers are narrowed, and what it is called with."""


def build(entry: Entry) -> keras.Model:
    """The model with its random weights."""
    application, narrow, settings = MODELS[entry.name.removesuffix("_keras")]
    keras.utils.clear_session()
    whole = application(weights=None, input_shape=entry.inputs[0].shape, classes=CLASSES, **settings)
    model = narrowed(whole, narrow)
    for weight in model.weights:
        name = weight.path
        if not weight.trainable:
            continue
        weight.assign(parameter(name, weight.shape, fan_in(name, weight.shape)))
    (inputs,) = entry.draw(SAMPLES).values()
    calibrate(model, inputs)
    spread(model, inputs)
    return model


def narrowed(whole: keras.Model, by: int) -> keras.Model:
    """Make every layer of an architecture but the last narrower, by its configuration."""
    config = whole.get_config()
    for layer in config["layers"]:
        layer.pop("build_config", None)  # of the wide layer
        if layer["config"]["name"] not in HEADS:
            narrow_layer(layer["config"], by)
    return keras.Model.from_config(config)


def narrow_layer(config: dict[str, Any], by: int) -> None:
    """Divide the widths of one layer; at least four channels stay."""
    for key in WIDTHS:
        if isinstance(config.get(key), int) and config[key] > 1:
            config[key] = max(4, config[key] // by)
    target = config.get("target_shape")
    if target:  # squeeze-and-excite: 1 x 1 x channels
        config["target_shape"] = (*target[:-1], max(4, target[-1] // by))


def fan_in(name: str, shape: tuple[int, ...]) -> int | None:
    """Count the values that one output of the layer sums up."""
    if "kernel" not in name.rpartition("/")[2]:
        return None
    depthwise = "depthwise" in name.rpartition("/")[2] or ("depthwise" in name and len(shape) == 4)
    return int(np.prod(shape[:2] if depthwise else shape[:-1]))


def calibrate(model: keras.Model, inputs: Any) -> None:
    """Give every BatchNormalization moving statistics that fit what reaches it, nearly."""
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in layers:
        layer.momentum = 0.0
    model(inputs, training=True)
    for layer in layers:
        pair = statistics(layer.name, layer.moving_mean.numpy(), layer.moving_variance.numpy())
        layer.moving_mean.assign(pair[0])
        layer.moving_variance.assign(pair[1])


def spread(model: keras.Model, inputs: Any) -> None:
    """Shift and scale the last layer so that its logits differ between samples."""
    last = next(layer for layer in reversed(model.layers) if hasattr(layer, "kernel"))
    features = keras.Model(model.inputs, last.input)(inputs, training=False).numpy()
    logits = features.reshape(len(inputs), -1) @ last.kernel.numpy().reshape(-1, CLASSES)
    scale = SPREAD / (logits - logits.mean(axis=0)).std()
    last.kernel.assign(last.kernel * scale)
    last.bias.assign(last.bias - logits.mean(axis=0) * scale)


def export(entry: Entry, path: Path) -> None:
    """Write one model with a free batch."""
    model = build(entry)
    given = entry.inputs[0]
    signature = [tf.TensorSpec((None, *given.shape), tf.float32, name=given.name)]

    def classify(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {entry.output: model(images, training=False)}

    function = tf.function(classify, input_signature=signature)
    proto, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=entry.opset)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(proto, path)


if __name__ == "__main__":
    tf.config.threading.set_intra_op_parallelism_threads(2)
    export_all([entry for entry in ENTRIES.values() if entry.exporter == "keras"], export)
