"""``graft replace``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from graft.passes.new_class import NewClass
from graft.tools import options
from graft.tools.command import Option, takes_options
from graft.tools.new_class import from_samples
from graft.tools.patch import NEWCOMER, CompareOptions, NewcomerOptions, bring_in, check_without_module


class ReplaceOptions(NewcomerOptions):
    """A classifier, one of its classes, and what decides it: a module, or samples."""

    name: Annotated[
        str, Option("Class of MODEL that is replaced.", NEWCOMER, flags=("--class",), metavar="NAME")
    ] = Field(alias="class")


@takes_options(
    epilog="Example: graft replace digits.onnx --class 3 --with better/3.onnx --data mnist.npz -o new.onnx"
)
def command(
    subject: ReplaceOptions,
    compare: CompareOptions,
    data: options.SampledDataOptions,
    run: options.SeededRunOptions,
    output: options.ModelOutputOptions,
) -> None:
    """Replace class NAME of MODEL, a composite or any classifier with a card.

    Another module decides it (--with), or it is fitted anew to samples (--data DIR, a folder of images of it,
    or data of other classes, too). All other columns stay as they are. With a module the class is called as
    there, unless --rename gives another name, and its score is fitted to the training split of --data.
    Accuracy before and after is measured on the test split.
    """
    if subject.module is not None:
        bring_in(subject.name, subject, compare, data, run, output)
        return
    check_without_module(subject, compare, data)
    made = NewClass(subject.name, True, subject.joint, subject.mirror, data.samples_per_class)
    from_samples(made, subject, data, run, output)
