"""Export classifiers of ``transformers`` with seeded random weights by both exporters of PyTorch.

Run in an environment with torch, onnxscript and transformers::

    python -m benchmarks.zoo.torch_models [-o .zoo] [NAME ...]
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from benchmarks.zoo import CLASSES, Entry, parameter, statistics
from benchmarks.zoo.entries import ENTRIES
from benchmarks.zoo.export import export_all

os.environ["HF_HUB_OFFLINE"] = "1"
import transformers

SAMPLES = 64
EAGER = {"attn_implementation": "eager"}
STAGES = {"depths": [1, 1, 2, 1], "hidden_sizes": [16, 24, 32, 48]}
PATCHES = {"image_size": 32, "patch_size": 8, "hidden_size": 48, "num_hidden_layers": 3}
HEADS = {"num_attention_heads": 4, "intermediate_size": 96}
PYRAMID = {**STAGES, "num_attention_heads": [1, 2, 4, 4], "mlp_ratios": [2, 2, 2, 2]}
TEXT = {**HEADS, **EAGER, "vocab_size": 100, "max_position_embeddings": 40, "hidden_size": 48}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet": ("ResNet", {"embedding_size": 16, "layer_type": "bottleneck", **STAGES}),
    "regnet": ("RegNet", {"embedding_size": 16, "groups_width": 8, **STAGES}),
    "convnext": ("ConvNext", {"patch_size": 2, **STAGES}),
    "convnextv2": ("ConvNextV2", {"patch_size": 2, **STAGES}),
    "mobilenetv1": ("MobileNetV1", {"image_size": 32, "depth_multiplier": 0.25, "min_depth": 8}),
    "mobilenetv2": ("MobileNetV2", {"image_size": 32, "depth_multiplier": 0.2, "min_depth": 8,
                                    "finegrained_output": False}),
    "efficientnet": (
        "EfficientNet",
        {"image_size": 32, "width_coefficient": 0.25, "depth_coefficient": 0.3, "hidden_dim": 320,
         "dropout_rate": 0.0, "drop_connect_rate": 0.0},
    ),
    "bit": ("Bit", {"embedding_size": 16, "num_groups": 8, **STAGES}),
    "poolformer": (
        "PoolFormer",
        {**STAGES, "patch_sizes": [3, 3, 3, 3], "strides": [2, 2, 2, 2], "padding": [1, 1, 1, 1],
         "mlp_ratio": 2.0},
    ),
    "hgnetv2": (
        "HGNetV2",
        {"embedding_size": 16, "depths": [1, 1, 1, 1], "hidden_sizes": [16, 24, 32, 48],
         "stem_channels": [3, 8, 12], "stage_in_channels": [12, 16, 24, 32],
         "stage_mid_channels": [8, 8, 12, 16], "stage_out_channels": [16, 24, 32, 48],
         "stage_num_blocks": [1, 1, 1, 1], "stage_numb_of_layers": [2, 2, 2, 2]},
    ),
    "focalnet": (
        "FocalNet",
        {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [1, 1, 1],
         "focal_levels": [2, 2, 2], "focal_windows": [3, 3, 3], "hidden_sizes": [16, 32, 64]},
    ),
    "vit": ("ViT", {**PATCHES, **HEADS, **EAGER}),
    "vit_fused": ("ViT", {**PATCHES, **HEADS, "attn_implementation": "sdpa"}),
    "deit": ("DeiT", {**PATCHES, **HEADS, **EAGER}),
    "dinov2": ("Dinov2", {**PATCHES, "mlp_ratio": 2, "num_attention_heads": 4, **EAGER}),
    "beit": ("Beit", {**PATCHES, **HEADS, **EAGER, "use_relative_position_bias": True}),
    "swin": (
        "Swin",
        {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [2, 2, 1], "num_heads": [2, 4, 4],
         "window_size": 4, "mlp_ratio": 2.0, **EAGER},
    ),
    "swinv2": (
        "Swinv2",
        {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [2, 1], "num_heads": [2, 4],
         "window_size": 4, "mlp_ratio": 2.0, **EAGER},
    ),
    "levit": (
        "Levit",
        {"image_size": 64, "hidden_sizes": [24, 32, 40], "num_attention_heads": [2, 3, 4],
         "depths": [1, 1, 1], "key_dim": [4, 4, 4], "attention_ratio": [2, 2, 2], "mlp_ratio": [2, 2, 2]},
    ),
    "cvt": (
        "Cvt",
        {"embed_dim": [16, 32, 48], "num_heads": [1, 2, 4], "depth": [1, 2, 3], "mlp_ratio": [2.0, 2.0, 2.0],
         "drop_path_rate": [0.0, 0.0, 0.0]},
    ),
    "segformer": ("Segformer", {**PYRAMID, "sr_ratios": [4, 2, 1, 1]}),
    "pvt": (
        "Pvt",
        {**PYRAMID, "image_size": 64, "sequence_reduction_ratios": [4, 2, 1, 1],
         "patch_sizes": [4, 2, 2, 2], "strides": [4, 2, 2, 2]},
    ),
    "mobilevit": (
        "MobileViT",
        {"image_size": 64, "hidden_sizes": [24, 32, 40], "neck_hidden_sizes": [8, 12, 16, 16, 24, 24, 32],
         "num_attention_heads": 4, "mlp_ratio": 2.0},
    ),
    "swiftformer": (
        "SwiftFormer",
        {"image_size": 64, "depths": [1, 1, 1, 1], "embed_dims": [16, 24, 32, 48], "mlp_ratio": 2,
         "drop_path_rate": 0.0},
    ),
    "bert": ("Bert", {**TEXT, "num_hidden_layers": 2}),
    "roberta": ("Roberta", {**TEXT, "num_hidden_layers": 2}),
    "distilbert": (
        "DistilBert",
        {"dim": 48, "hidden_dim": 96, "n_heads": 4, "n_layers": 2, "vocab_size": 100,
         "max_position_embeddings": 40, **EAGER},
    ),
    "albert": ("Albert", {**TEXT, "embedding_size": 24, "num_hidden_layers": 2}),
    "electra": ("Electra", {**TEXT, "embedding_size": 24, "num_hidden_layers": 2}),
}  # fmt: skip


class Logits(nn.Module):
    """A model of ``transformers`` that takes its inputs in order and returns nothing but the logits."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *values: Tensor) -> Tensor:
        """The logits."""
        logits: Tensor = self.model(**dict(zip(self.names, values, strict=True))).logits
        return logits


def build(entry: Entry) -> Logits:
    """The model with its random weights."""
    called, settings = MODELS[entry.name.rpartition("_")[0]]
    task = "ImageClassification" if entry.inputs[0].kind == "image" else "SequenceClassification"
    config = getattr(transformers, f"{called}Config")(num_labels=CLASSES, **settings)
    model = getattr(transformers, f"{called}For{task}")(config).eval()
    randomize(model)
    whole = Logits(model, [each.name for each in entry.inputs]).eval()
    calibrate(whole, arguments(entry, SAMPLES))
    return whole


def randomize(model: nn.Module) -> None:
    """Give every parameter its random values."""
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    with torch.no_grad():
        for name, weight in model.named_parameters():
            read = weight.ndim > 1 and id(weight) not in embeddings and name.endswith("weight")
            fan_in = int(np.prod(weight.shape[1:])) if read else None
            weight.copy_(torch.from_numpy(parameter(name, weight.shape, fan_in)))


def calibrate(model: nn.Module, inputs: Sequence[Tensor]) -> None:
    """Give every BatchNormalization running statistics that fit what reaches it, nearly."""
    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    for layer in layers.values():
        layer.momentum = 1.0
        layer.train()
    with torch.no_grad():
        model(*inputs)
    for name, layer in layers.items():
        mean, variance = statistics(name, layer.running_mean.numpy(), layer.running_var.numpy())
        layer.running_mean.copy_(torch.from_numpy(mean))
        layer.running_var.copy_(torch.from_numpy(variance))
        layer.eval()


def arguments(entry: Entry, samples: int) -> tuple[Tensor, ...]:
    """Random inputs."""
    return tuple(torch.from_numpy(value) for value in entry.draw(samples).values())


def export(entry: Entry, path: Path) -> None:
    """Write one model with a free batch."""
    model, names = build(entry), [each.name for each in entry.inputs]
    common: dict[str, Any] = {"input_names": names, "output_names": ["logits"], "opset_version": entry.opset}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if entry.exporter == "dynamo":
            free = ({0: torch.export.Dim.DYNAMIC},) * len(names)
            program = torch.onnx.export(
                model, arguments(entry, 2), dynamo=True, dynamic_shapes=(free,), verbose=False, **common
            )
            proto = program.model_proto
        else:
            axes = {name: {0: "batch"} for name in (*names, "logits")}
            torch.onnx.export(model, arguments(entry, 2), path, dynamo=False, dynamic_axes=axes, **common)
            proto = onnx.load(path)
    graph = proto.graph
    for part in (*graph.node, *graph.value_info, *graph.input, *graph.output, graph):
        part.ClearField("metadata_props")  # stack traces: paths, and half of the file
    for node in graph.node:
        node.ClearField("doc_string")
    onnx.save(proto, path)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    torch.set_num_threads(2)
    export_all([e for e in ENTRIES.values() if e.exporter in ("dynamo", "torchscript")], export)
