"""``graft add``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from graft.passes.new_class import NewClass
from graft.rewriter.errors import GraftError
from graft.tools import options
from graft.tools.command import Option, takes_options
from graft.tools.new_class import from_samples
from graft.tools.patch import FROM_SAMPLES, CompareOptions, NewcomerOptions, bring_in, check_without_module


class AddOptions(NewcomerOptions):
    """A classifier, and a further class: that of a module, or one from samples."""

    name: Annotated[
        str | None,
        Option(
            "Class that is fitted to --data, over the features of MODEL: samples of it alone, or of other "
            "classes, too.",
            FROM_SAMPLES,
            flags=("--class",),
            metavar="NAME",
        ),
    ] = Field(default=None, alias="class")


@takes_options(
    epilog="Example: graft add digits.onnx --with Sneaker.onnx --data a.npz --data b.npz -o more.onnx"
)
def command(
    subject: AddOptions,
    compare: CompareOptions,
    data: options.SampledDataOptions,
    run: options.SeededRunOptions,
    output: options.ModelOutputOptions,
) -> None:
    """Add a class to MODEL, a composite or any classifier with a card.

    Another module decides it (--with), or it is fitted to samples (--class crane --data DIR, a folder of
    images of it, or data of other classes, too). All other columns stay as they are. With a module and
    --data its score is fitted to the training split. Accuracy before and after is measured on the test split.
    """
    if subject.module is not None:
        if subject.name is not None:
            raise GraftError(
                "bad-request",
                "--class names a class from samples, and --with a module that decides one",
                "leave out one of them; a class of the module: --with-class NAME, another name: --rename A=B",
            )
        bring_in(None, subject, compare, data, run, output)
        return
    check_without_module(subject, compare, data)
    if subject.name is None:
        raise GraftError("bad-request", "the class from samples has no name", "name it: --class NAME")
    made = NewClass(subject.name, False, subject.joint, subject.mirror, data.samples_per_class)
    from_samples(made, subject, data, run, output)
