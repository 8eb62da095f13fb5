"""``graft card``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import click

from graft.rewriter.data.dataset import Dataset
from graft.rewriter.files import refuse_overwrite, writing
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.card_draft import draft_card
from graft.tools import console as show
from graft.tools import options
from graft.tools.command import Argument, Option, Options, takes_options


class CardData(Options):
    """Samples that the ways to scale pixels are tried on."""

    data: Annotated[Path | None, Option(options.FORMATS, options.DATA)] = None
    split: Annotated[
        str, Option("Split to try drafts on.", options.DATA, metavar="NAME", show_default=True)
    ] = "train"


class CardOutput(options.OutputOptions):
    """Output of ``graft card``."""

    output: Annotated[
        Path | None, Option("Card to write. Default: print it.", options.OUTPUT, ("-o", "--output"))
    ] = None


class CardModel(Options):
    """A trained classifier."""

    model: Annotated[Path, Argument("MODEL", "A trained classifier, an ONNX file.")]


@takes_options(epilog="Example: graft card resnet20.onnx --data cifar10.npz -o resnet20.yaml")
def command(subject: CardModel, data: CardData, run: options.RunOptions, output: CardOutput) -> None:
    """Draft the card of MODEL: how raw samples become its input, what its output means, its labels.

    With --data the usual ways to scale pixels are tried on some samples, and the best is taken. Check
    the draft: a wrong card looks nearly right.
    """
    if output.output:
        refuse_overwrite(output.output, output.force)
    loaded = Model.load(subject.model)
    part = Dataset.load(data.data).split(data.split) if data.data else None
    if part is not None and not part.labelled:
        logging.getLogger("graft").warning(
            "the samples of %s have no labels: the draft is not scored, its predictions say nothing about it",
            data.data,
        )
        part = None
    draft = draft_card(loaded, part, run.device())
    text = draft.card.to_yaml()
    if output.output:
        with output.target(output.output) as path, writing(path, output.force) as temporary:
            temporary.write_text(text, encoding="utf-8")
    result: dict[str, Any] = {
        "output": output.output,
        "card": text,
        "top1": draft.top1,
        "providers": list(draft.providers),
        **output.dry(),
    }
    show.emit("card", result, output.as_json, lambda: _show(result))


def _show(result: dict[str, Any]) -> None:
    if result["output"] is None:
        show.note(result["card"].rstrip())
    elif "dry_run" not in result:
        show.note(f"{result['output']} written; check it: a wrong card looks nearly right")
    if result["top1"] is not None:
        ran = ", ".join(result["providers"])
        told = f"top-1 with this card on some samples: {show.percent(result['top1'])}, ran on {ran}"
        click.echo(f"graft: {told}", err=True)
