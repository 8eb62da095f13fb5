"""``graft card``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from graft.rewriter.data.dataset import Dataset
from graft.rewriter.files import writing
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.card_draft import draft_card
from graft.rewriter.run.session import Device
from graft.tools import console as show
from graft.tools import options


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
    draft = draft_card(loaded, part, device)
    text = draft.card.to_yaml()
    if output and not dry_run:
        with writing(output, force) as temporary:
            temporary.write_text(text, encoding="utf-8")
    result: dict[str, Any] = {
        "output": output,
        "card": text,
        "top1": draft.top1,
        "providers": list(draft.providers),
    }
    show.emit("card", result, as_json, lambda: _show(result))


def _show(result: dict[str, Any]) -> None:
    if result["output"] is None:
        show.note(result["card"].rstrip())
    else:
        show.note(f"{result['output']} written; check it: a wrong card looks nearly right")
    if result["top1"] is not None:
        ran = ", ".join(result["providers"])
        told = f"top-1 with this card on some samples: {show.percent(result['top1'])}, ran on {ran}"
        click.echo(f"graft: {told}", err=True)
