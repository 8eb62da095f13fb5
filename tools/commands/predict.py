"""``graft predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from graft.rewriter.graph.model import Model
from graft.rewriter.measure.prediction import predict
from graft.rewriter.run.session import Device
from graft.tools import console as show
from graft.tools import options


@click.command(epilog="Example: graft predict pets.onnx photo.jpg other.npy")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("samples", nargs=-1, required=True, type=click.Path(path_type=Path))
@options.card
@options.running
@options.common
def command(model: Path, samples: tuple[Path, ...], card: Path | None, device: Device, as_json: bool) -> None:
    """Classify SAMPLES: image files, or .npy files of one raw sample each."""
    loaded = Model.load(model, card)
    loaded.require_card(model)
    found = predict(loaded, samples, device)
    predictions = [
        {
            "sample": each.sample,
            "label": each.label,
            "top": [{"label": name, "probability": probability} for name, probability in each.top],
        }
        for each in found.predictions
    ]
    result: dict[str, Any] = {"predictions": predictions, "providers": list(found.providers)}
    show.emit("predict", result, as_json, lambda: _show(result))


def _show(result: dict[str, Any]) -> None:
    for entry in result["predictions"]:
        best = ", ".join(f"{each['label']} {each['probability']:.3f}" for each in entry["top"][:3])
        show.note(f"{entry['sample']}: {best}")
    click.echo(f"graft: ran on {', '.join(result['providers'])}", err=True)
