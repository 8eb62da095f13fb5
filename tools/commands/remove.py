"""``graft remove``."""

from __future__ import annotations

from pathlib import Path

import click

from graft.passes.base import Context
from graft.passes.remove import Remove
from graft.rewriter.files import refuse_overwrite
from graft.rewriter.graph.model import Model
from graft.rewriter.record.provenance import numbering
from graft.rewriter.run.session import Device
from graft.tools import console as show
from graft.tools import options
from graft.tools.patch import Data, about, measured, told, written


@click.command(epilog="Example: graft remove digits.onnx --class 3 -o fewer.onnx")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--class", "names", required=True, multiple=True, metavar="NAME", help="A class to drop. Repeatable."
)
@options.data(required=False, multiple=True)
@options.card
@options.test_split
@options.ignore_label
@options.running
@options.writing("The model to write.")
@options.common
def command(
    model: Path,
    names: tuple[str, ...],
    data: tuple[options.Prefixed, ...],
    card: Path | None,
    test_split: str,
    ignore_label: str | None,
    device: Device,
    output: Path,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Drop classes of MODEL, a composite or any classifier with a card, and what only they need.

    With --data the others are measured on the test split, before and after.
    """
    refuse_overwrite(output, force)
    before = Model.load(model, card)
    before.card = before.require_card(model)
    after = Remove(names)(before, Context(device=device)).model
    names = tuple(dict.fromkeys(names))
    result = {**about(after, output, device), "removed": list(names)}
    if data:
        numbers = {"": numbering(before) or before.require_card().labels}
        samples = Data(data, ignore_label, {}, numbers)
        result.update(measured(before, after, names, (), samples, test_split, device))
    result.update(written(after, output, force, dry_run))
    show.emit("remove", result, as_json, lambda: told(result, f"{show.classes(names)} removed"))
