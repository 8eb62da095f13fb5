"""``graft predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from graft.rewriter.card.input_card import InputCard
from graft.rewriter.data.images import fit_images, read_image
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.evaluation import check_finite, columns
from graft.rewriter.run.session import Device, fit
from graft.tools import console as show
from graft.tools import options

TOP = 5


@click.command(epilog="Example: graft predict pets.onnx photo.jpg other.npy")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("samples", nargs=-1, required=True, type=click.Path(path_type=Path))
@options.card
@options.running
@options.common
def command(model: Path, samples: tuple[Path, ...], card: Path | None, device: Device, as_json: bool) -> None:
    """Classify SAMPLES: image files, or .npy files of one raw sample each."""
    loaded = Model.load(model, card)
    found = loaded.require_card(model)
    if len(found.inputs) != 1:
        raise GraftError("data-inputs", "predict takes models with one input", "use 'graft evaluate'")
    raw = [_read(path, found.inputs[0]) for path in samples]
    session = device.open(loaded)
    predictions = []
    for path, sample in zip(samples, raw, strict=True):
        scores = session.run(fit(found.prepare({"": sample[None]}), session.batch), [found.output.name])[
            found.output.name
        ]
        scores = check_finite(scores, f"{found.output.name} for {path}")
        scores = columns(scores, found.output.kind, len(found.labels))
        shares = _shares(scores.reshape(-1, scores.shape[-1])[-1], found.output.kind)
        order = np.argsort(-shares, kind="stable")[:TOP]
        names = [{"label": found.labels[i], "probability": float(shares[i])} for i in order]
        predictions.append({"sample": path, "label": names[0]["label"], "top": names})
    result: dict[str, Any] = {"predictions": predictions, "providers": list(session.providers)}
    show.emit("predict", result, as_json, lambda: _show(result))


def _read(path: Path, card: InputCard) -> np.ndarray:
    if not path.is_file():
        raise GraftError("data-missing", f"no sample at {path}", "check the path")
    if path.suffix.lower() != ".npy":
        return read_image(path, card)
    try:
        sample = np.asarray(np.load(path, allow_pickle=False))
        return fit_images(sample[None], card)[0] if card.kind == "image" and card.resize else sample
    except (ValueError, EOFError, OSError) as error:
        raise GraftError(
            "data-unreadable", f"{path} is no .npy file of numbers", "save it with numpy.save"
        ) from error


def _shares(scores: np.ndarray, kind: str) -> np.ndarray:
    """Scores of one sample as shares of certainty."""
    if kind != "logits":
        return scores
    powers = np.exp(scores - scores.max())
    return np.asarray(powers / powers.sum())


def _show(result: dict[str, Any]) -> None:
    for entry in result["predictions"]:
        best = ", ".join(f"{each['label']} {each['probability']:.3f}" for each in entry["top"][:3])
        show.note(f"{entry['sample']}: {best}")
    click.echo(f"graft: ran on {', '.join(result['providers'])}", err=True)
