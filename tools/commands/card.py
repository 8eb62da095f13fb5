"""``graft card``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

from graft.rewriter.card.card import Card
from graft.rewriter.card.input_card import InputCard
from graft.rewriter.card.output_card import OutputCard
from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.samples import Samples
from graft.rewriter.data.split import Split
from graft.rewriter.errors import GraftError
from graft.rewriter.files import writing
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.evaluation import score
from graft.rewriter.run.session import Device
from graft.tools import console as show
from graft.tools import options

TRIES = 500
SCALES: tuple[tuple[str, float, tuple[float, ...], tuple[float, ...]], ...] = (
    ("0..1", 1 / 255, (0.0,), (1.0,)),
    ("-1..1", 1 / 255, (0.5,), (0.5,)),
    ("0..255", 1.0, (0.0,), (1.0,)),
    ("(p - 127) / 128", 1.0, (127.0,), (128.0,)),
    ("ImageNet mean and std", 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ("MNIST mean and std", 1 / 255, (0.1307,), (0.3081,)),
)
"""What trainers commonly do with pixels; a draft takes the first, or with samples the best."""


@click.command(epilog="Example: graft card resnet20.onnx --data cifar10.npz -o resnet20.yaml")
@click.argument("model", type=click.Path(path_type=Path))
@options.data(required=False)
@options.split
@options.running
@options.writing("The card to write. Default: print it.", required=False)
@options.common
def command(
    model: Path,
    data: Path | None,
    split: str,
    device: Device,
    output: Path | None,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Draft the card of MODEL: how raw samples become its input, what its output means, its labels.

    With --data the usual ways to scale pixels are tried on some samples, and the best is taken. Check
    the draft: a wrong card looks nearly right.
    """
    loaded = Model.load(model)
    part = Dataset.load(data).split(split) if data else None
    drafts = list(_drafts(loaded, part))
    best, accuracy = drafts[0], None
    if part:
        tried = [(_accuracy(loaded, draft, part, device), draft) for draft in drafts]
        accuracy, best = max(tried, key=lambda pair: pair[0])
    if output and not dry_run:
        with writing(output, force) as temporary:
            temporary.write_text(best.to_yaml(), encoding="utf-8")
    ran = list(device.open(loaded).providers) if part else []
    result: dict[str, Any] = {"output": output, "card": best.to_yaml(), "top1": accuracy, "providers": ran}
    show.emit("card", result, as_json, lambda: _show(result))


def _drafts(model: Model, part: Split | None) -> Iterator[Card]:
    """Cards that fit the model, one for each way to scale pixels."""
    if len(model.inputs()) != 1:
        raise GraftError("card-draft", "a draft is made for models with one input", "write the card by hand")
    ((name, (dtype, shape)),) = model.inputs().items()
    output = _output(model)
    size = model.outputs()[output.name][1][-1]
    if part is not None and part.class_names:
        labels = part.class_names
    else:
        number = size if isinstance(size, int) else int(part.labels.max()) + 1 if part else 2
        labels = tuple(str(label) for label in range(number))
    channels_last = len(shape) == 4 and shape[3] in (1, 3)
    if dtype is not None and dtype.kind in "iu":
        inputs = [InputCard(name=name, kind="tokens")]
    elif len(shape) != 4 or not (channels_last or shape[1] in (1, 3)):
        inputs = [InputCard(name=name, kind="tensor")]
    else:
        channels = shape[3] if channels_last else shape[1]
        sides = shape[1:3] if channels_last else shape[2:4]
        height, width = (side if isinstance(side, int) else 224 for side in sides)
        inputs = [
            InputCard(
                name=name,
                kind="image",
                layout="NHWC" if channels_last else "NCHW",
                color="GRAY" if channels == 1 else "RGB",
                size=(height, width),
                scale=scale,
                mean=mean,
                std=std,
            )
            for _, scale, mean, std in SCALES
            if len(mean) in (1, channels)
        ]
    for each in inputs:
        yield Card(inputs=(each,), output=output, labels=labels)


def _output(model: Model) -> OutputCard:
    """The first output of numbers; probabilities where a Softmax makes it."""
    for tensor in model.graph.outputs:
        if tensor.dtype is not None and np.dtype(tensor.dtype).kind == "f":
            softmax = bool(tensor.inputs) and tensor.inputs[0].op == "Softmax"
            return OutputCard(name=tensor.name, kind="probabilities" if softmax else "logits")
    raise GraftError("card-draft", "the model has no output of numbers", "write the card by hand")


def _accuracy(model: Model, card: Card, part: Split, device: Device) -> float:
    try:
        samples = Samples.match(part, card)
        picked = np.random.default_rng(0).permutation(len(samples))[:TRIES]
        return float(score(model, samples.take(np.sort(picked)), device).summary()["top1"])
    except GraftError as error:
        if error.code in ("output-nan", "run-failed"):
            return 0.0
        raise


def _show(result: dict[str, Any]) -> None:
    if result["output"] is None:
        show.note(result["card"].rstrip())
    else:
        show.note(f"{result['output']} written; check it: a wrong card looks nearly right")
    if result["top1"] is not None:
        ran = ", ".join(result["providers"])
        told = f"top-1 with this card on some samples: {show.percent(result['top1'])}, ran on {ran}"
        click.echo(f"graft: {told}", err=True)
