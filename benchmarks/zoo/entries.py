"""What is in the zoo."""

from __future__ import annotations

from benchmarks.zoo import Entry, Input, image

TOKENS = (Input("input_ids", (12,), "tokens", high=100), Input("attention_mask", (12,), "mask"))
IMAGE = (image("pixel_values"),)
LARGER = (image("pixel_values", 64),)

# name: architecture, family, inputs, opset asked of the TorchScript exporter, of the dynamo exporter
TORCH: dict[str, tuple[str, str, tuple[Input, ...], int, int]] = {
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
    "pvt": ("PVT", "transformer", IMAGE, 17, 18),
    "mobilevit": ("MobileViT", "transformer", LARGER, 17, 18),
    "swiftformer": ("SwiftFormer", "transformer", LARGER, 17, 18),
    "bert": ("BERT", "transformer", TOKENS, 14, 18),
    "roberta": ("RoBERTa", "transformer", TOKENS, 17, 18),
    "distilbert": ("DistilBERT", "transformer", TOKENS, 17, 18),
    "albert": ("ALBERT", "transformer", TOKENS, 17, 18),
    "electra": ("ELECTRA", "transformer", TOKENS, 17, 18),
}


def _torch() -> list[Entry]:
    found = []
    for name, (architecture, family, inputs, script, dynamo) in TORCH.items():
        found.append(
            Entry(f"{name}_torchscript", "torchscript", architecture, family, inputs, opset=script)
        )
        found.append(Entry(f"{name}_dynamo", "dynamo", architecture, family, inputs, opset=dynamo))
    return found


ENTRIES: dict[str, Entry] = {entry.name: entry for entry in (*_torch(),)}
