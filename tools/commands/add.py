"""``graft add``."""

from __future__ import annotations

from typing import Any

import click

from graft.tools.patch import bring_in, newcomer_options


@click.command(
    epilog="Example: graft add digits.onnx --with Sneaker.onnx --data a.npz --data b.npz -o more.onnx"
)
@newcomer_options
def command(**given: Any) -> None:
    """Add a class to MODEL, a composite or any classifier with a card, that another module decides.

    All other columns stay as they are. With --data the newcomer's score is fitted to the training split, and
    the patch is reported on the test split.
    """
    bring_in("add", None, **given)
