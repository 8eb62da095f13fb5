"""``graft replace``."""

from __future__ import annotations

from typing import Any

import click

from graft.tools.patch import bring_in, newcomer_options


@click.command(
    epilog="Example: graft replace digits.onnx --class 3 --with better/3.onnx --data mnist.npz -o new.onnx"
)
@click.option("--class", "name", required=True, metavar="NAME", help="The class to be decided anew.")
@newcomer_options
def command(name: str, **given: Any) -> None:
    """Let another module decide class NAME of MODEL, a composite or any classifier with a card.

    All other columns stay as they are. Where the module's class is called otherwise, so is the class of the
    result, unless --rename says not. With --data the newcomer's score is fitted to the training split, and
    the patch is reported on the test split.
    """
    bring_in("replace", name, **given)
