"""``graft predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.prediction import predict
from graft.rewriter.measure.writing import write
from graft.tools import console as show
from graft.tools import options
from graft.tools.command import Argument, Option, takes_options
from graft.tools.estimates import announce_runs


class PredictOptions(options.ModelOptions):
    """A classifier and samples."""

    samples: Annotated[
        tuple[Path, ...],
        Argument(
            "SAMPLES...", "Image files, folders of them, .npy files of one raw sample each, or .npz files."
        ),
    ]
    language: Annotated[
        str | None,
        Option(
            "Of an encoder-decoder: the language to write in. Default: the only one, or what the targets in "
            "SAMPLES begin with.",
            options.MODEL,
            metavar="NAME",
        ),
    ] = None


@takes_options(epilog="Example: graft predict pets.onnx photo.jpg other.npy")
def command(subject: PredictOptions, run: options.RunOptions, output: options.PrintOptions) -> None:
    """Classify SAMPLES by MODEL: image files, folders of them, .npy files of one raw sample, .npz files.

    Of an .npz file the samples x are taken, or those of its test split. An encoder-decoder writes an answer
    to each sample, word by word.
    """
    loaded = Model.load(subject.model, subject.card)
    if loaded.require_card(subject.model).decoder is not None:
        _write(loaded, subject, run, output)
        return
    if subject.language is not None:
        raise GraftError("language-missing", "--language is for encoder-decoders", "leave it out")
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


def _write(
    model: Model, subject: PredictOptions, run: options.RunOptions, output: options.PrintOptions
) -> None:
    """Write an answer to each sample, and print them.

    Args:
        model: with a card that has a decoder.
        subject: samples and language.
        run: where the model runs.
        output: how to print.

    Raises:
        GraftError: a file cannot be read, or no language is named.
    """
    found = write(model, subject.samples, run.device(), subject.language)
    predictions = [
        {
            "sample": each.sample,
            "index": each.index,
            "language": each.language,
            "words": list(each.words),
            "text": " ".join(each.words),
        }
        for each in found.answers
    ]
    result: dict[str, Any] = {"predictions": predictions, "providers": list(found.providers)}

    def printed() -> None:
        for entry in predictions:
            show.note(f"{entry['sample']}[{entry['index']}] {entry['language']}: {entry['text']}")
        show.say(f"ran on {', '.join(found.providers)}")

    show.emit("predict", result, output.as_json, printed)


def _show(result: dict[str, Any]) -> None:
    for entry in result["predictions"]:
        best = ", ".join(f"{each['label']} {each['probability']:.3f}" for each in entry["top"][:3])
        place = f"[{entry['index']}]" if "index" in entry else ""
        show.note(f"{entry['sample']}{place}: {best}")
    show.say(f"ran on {', '.join(result['providers'])}")
