"""``graft predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from graft.rewriter.graph.model import Model
from graft.rewriter.measure.prediction import predict
from graft.tools import console as show
from graft.tools import options
from graft.tools.command import Argument, takes_options
from graft.tools.estimates import announce_runs


class PredictOptions(options.ModelOptions):
    """A classifier and samples."""

    samples: Annotated[
        tuple[Path, ...],
        Argument(
            "SAMPLES...", "Image files, folders of them, .npy files of one raw sample each, or .npz files."
        ),
    ]


@takes_options(epilog="Example: graft predict pets.onnx photo.jpg other.npy")
def command(subject: PredictOptions, run: options.RunOptions, output: options.PrintOptions) -> None:
    """Classify SAMPLES by MODEL: image files, folders of them, .npy files of one raw sample, .npz files.

    Of an .npz file the samples x are taken, or those of its test split.
    """
    loaded = Model.load(subject.model, subject.card)
    loaded.require_card(subject.model)
    found = predict(loaded, subject.samples, run.device(), timed=announce_runs("{} samples"))
    predictions = [
        {
            "sample": each.sample,
            **({} if each.index is None else {"index": each.index}),
            "label": each.label,
            "top": [{"label": name, "probability": probability} for name, probability in each.top],
        }
        for each in found.predictions
    ]
    result: dict[str, Any] = {"predictions": predictions, "providers": list(found.providers)}
    show.emit("predict", result, output.as_json, lambda: _show(result))


def _show(result: dict[str, Any]) -> None:
    for entry in result["predictions"]:
        best = ", ".join(f"{each['label']} {each['probability']:.3f}" for each in entry["top"][:3])
        place = f"[{entry['index']}]" if "index" in entry else ""
        show.note(f"{entry['sample']}{place}: {best}")
    show.say(f"ran on {', '.join(result['providers'])}")
