"""The list of the zoo."""

from __future__ import annotations

from benchmarks.zoo import Entry, Family, Input, image

TOKENS = (Input("input_ids", (12,), "tokens", high=100), Input("attention_mask", (12,), "mask"))
IMAGE = (image("pixel_values"),)
LARGER = (image("pixel_values", 64),)

# name: architecture, family, inputs, opset asked of the TorchScript exporter, of the dynamo exporter
TORCH: dict[str, tuple[str, Family, tuple[Input, ...], int, int]] = {
    "resnet": ("ResNet", "cnn", IMAGE, 11, 18),
    "regnet": ("RegNet", "cnn", IMAGE, 12, 18),
    "convnext": ("ConvNeXt", "cnn", IMAGE, 13, 20),
    "convnextv2": ("ConvNeXt V2", "cnn", IMAGE, 17, 18),
    "mobilenetv1": ("MobileNet V1", "cnn", IMAGE, 13, 18),
    "mobilenetv2": ("MobileNet V2", "cnn", IMAGE, 14, 18),
    "efficientnet": ("EfficientNet", "cnn", IMAGE, 15, 18),
    "bit": ("BiT", "cnn", IMAGE, 16, 21),
    "poolformer": ("PoolFormer", "cnn", IMAGE, 17, 21),
    "hgnetv2": ("HGNetV2", "cnn", IMAGE, 17, 18),
    "focalnet": ("FocalNet", "cnn", IMAGE, 17, 18),
    "vit": ("ViT", "transformer", IMAGE, 14, 18),
    "vit_fused": ("ViT (fused attention)", "transformer", IMAGE, 17, 23),
    "deit": ("DeiT", "transformer", IMAGE, 17, 20),
    "dinov2": ("DINOv2", "transformer", IMAGE, 17, 18),
    "beit": ("BEiT", "transformer", IMAGE, 17, 18),
    "swin": ("Swin", "transformer", IMAGE, 17, 18),
    "swinv2": ("Swin V2", "transformer", IMAGE, 17, 18),
    "levit": ("LeViT", "transformer", LARGER, 13, 18),
    "cvt": ("CvT", "transformer", LARGER, 17, 18),
    "segformer": ("SegFormer", "transformer", LARGER, 17, 18),
    "pvt": ("PVT", "transformer", LARGER, 17, 18),
    "mobilevit": ("MobileViT", "transformer", LARGER, 17, 18),
    "swiftformer": ("SwiftFormer", "transformer", LARGER, 17, 18),
    "bert": ("BERT", "transformer", TOKENS, 14, 18),
    "roberta": ("RoBERTa", "transformer", TOKENS, 17, 18),
    "distilbert": ("DistilBERT", "transformer", TOKENS, 17, 18),
    "albert": ("ALBERT", "transformer", TOKENS, 17, 18),
    "electra": ("ELECTRA", "transformer", TOKENS, 17, 18),
}

# name: architecture, size of the image, opset
KERAS: dict[str, tuple[str, int, int]] = {
    "vgg": ("VGG-16", 32, 13),
    "xception": ("Xception", 72, 15),
    "densenet": ("DenseNet", 32, 17),
    "mobilenetv3": ("MobileNet V3", 32, 17),
    "resnetv2": ("ResNet-50 V2", 32, 17),
    "inception": ("Inception V3", 76, 17),
    "nasnet": ("NASNet", 32, 17),
    "efficientnetv2": ("EfficientNet V2", 32, 17),
}

# name: architecture, opset
SKLEARN: dict[str, tuple[str, int]] = {
    "mlp_sklearn": ("StandardScaler, MLP with ReLU", 14),
    "mlp_tanh_sklearn": ("StandardScaler, MLP with tanh", 17),
}

# name: architecture, family, opset
FLAX: dict[str, tuple[str, Family, int]] = {
    "resnet_flax": ("ResNet", "cnn", 21),
    "mixer_flax": ("MLP-Mixer", "transformer", 21),
    "vit_flax": ("ViT", "transformer", 21),
}


def _torch() -> list[Entry]:
    found = []
    for name, (architecture, family, inputs, script, dynamo) in TORCH.items():
        found.append(Entry(f"{name}_torchscript", "torchscript", architecture, family, inputs, opset=script))
        found.append(Entry(f"{name}_dynamo", "dynamo", architecture, family, inputs, opset=dynamo))
    return found


def _keras() -> list[Entry]:
    return [
        Entry(
            f"{name}_keras",
            "keras",
            architecture,
            "cnn",
            (image("images", size, "NHWC"),),
            output="probabilities",
            kind="probabilities",
            opset=opset,
        )
        for name, (architecture, size, opset) in KERAS.items()
    ]


def _sklearn() -> list[Entry]:
    features = (Input("features", (32,), "tensor"),)
    return [
        Entry(name, "sklearn", architecture, "mlp", features, "output_probability", "probabilities", opset)
        for name, (architecture, opset) in SKLEARN.items()
    ]


def _flax() -> list[Entry]:
    inputs = (image("images", layout="NHWC"),)
    return [
        Entry(name, "flax", architecture, family, inputs, opset=opset)
        for name, (architecture, family, opset) in FLAX.items()
    ]


ENTRIES: dict[str, Entry] = {entry.name: entry for entry in (*_torch(), *_keras(), *_flax(), *_sklearn())}

STORED = (
    *("resnet_torchscript", "regnet_dynamo", "levit_dynamo", "convnext_dynamo", "vit_dynamo", "swin_dynamo"),
    *("bert_torchscript", "mobilenetv3_keras", "densenet_keras", "inception_keras", "mixer_flax"),
    "mlp_sklearn",
)
"""The models in tests/zoo: one of each family, from every exporter."""
