"""Options and the patch report that 'graft replace', 'add' and 'remove' share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from graft.passes.base import Context
from graft.passes.compare import names as comparison_names
from graft.passes.join.merge import INPUTS
from graft.passes.join.naming import TRAIN, PatchData
from graft.passes.join.patch import Newcomer, Patch
from graft.passes.join.patch_report import describe, evaluate_before_after, held_out
from graft.passes.replace import Replace, ReplaceReport
from graft.rewriter.card.card import Card
from graft.rewriter.data.prefixed import prefixed, tested
from graft.rewriter.data.split import Split
from graft.rewriter.errors import GraftError
from graft.rewriter.files import read_whole
from graft.rewriter.graph.model import Model
from graft.rewriter.record.folder import load_module, module_files
from graft.tools import console as show
from graft.tools import languages, options, parents
from graft.tools.command import Option, Options, one_of
from graft.tools.estimates import PASSES_OF_A_FIT, Passes
from graft.tools.naming import parse_rename
from graft.tools.saving import save

NEWCOMER = "Module"
FROM_SAMPLES = "Class from samples"


class NewcomerOptions(options.ShapedModelOptions):
    """A classifier, and what decides one of its classes, or one more: a module, or samples."""

    module: Annotated[
        options.PrefixedPath | None,
        Option(
            "Module that decides, or a folder of them; PREFIX=MODULE calls its class PREFIX:NAME. Without it "
            "the class is fitted to --data.",
            NEWCOMER,
            flags=("--with",),
            metavar="MODULE",
        ),
    ] = Field(default=None, alias="with")
    with_class: Annotated[
        str | None, Option("Class of the module, where it has several.", NEWCOMER, metavar="NAME")
    ] = None
    rename: Annotated[
        tuple[str, ...],
        Option("Call class A of the module B, in the data too.", NEWCOMER, metavar="A=B"),
    ] = ()
    joint: Annotated[
        bool,
        Option("Fit one head for all classes to --data, without a module: all columns change.", FROM_SAMPLES),
    ] = False
    mirror: Annotated[bool, Option("Use mirrored images too, without a module.", FROM_SAMPLES)] = False


class CompareOptions(Options):
    """Comparison of the module's score with the others."""

    scores: Annotated[
        str | None,
        one_of(partial(comparison_names, patches=True)),
        Option(
            "Comparison of the module with the classes of MODEL. Default: fitted to --data (calibrated or "
            "joint); without, odds where it knows all classes of MODEL, else typicality.",
            options.SCORES,
        ),
    ] = None
    kind: Annotated[
        str | None,
        one_of(INPUTS),
        Option(
            "raw: images 0..255, prepared in the graph; parent: as MODEL takes them. Default: parent where "
            "the module takes the same, else raw.",
            options.SCORES,
            flags=("--input",),
        ),
    ] = Field(default=None, alias="input")


def bring_in(
    name: str | None,
    subject: NewcomerOptions,
    compare: CompareOptions,
    data: options.SampledDataOptions,
    run: options.SeededRunOptions,
    output: options.ModelOutputOptions,
) -> None:
    """Let the module decide class ``name``, or one more, and report the difference.

    Args:
        name: the class; None: one more.
        subject: the classifier and the module.
        compare: how the module is compared.
        data: what its score is fitted to, and what is measured.
        run: where models run.
        output: where the model goes.

    Raises:
        GraftError: the module does not fit, or the output is there.
    """
    module = _module_alone(subject)
    output.claim(output.output)
    before = subject.load()
    device = run.device()
    replacing = Replace(compare.scores, compare.kind, samples_per_class=data.samples_per_class)
    newcomer = Newcomer.find(_modules(module.path), str(module), subject.with_class, name)
    if languages.speaks(before):
        given = {"--rename": subject.rename, "PREFIX=": module.prefix, "--scores": compare.scores}
        languages.refuse(given, "the first word of an answer decides which of them writes it")
        languages.bring_in(before, (newcomer.model, newcomer.column, name), data, run, output)
        return
    called = prefixed(module.prefix, newcomer.column)
    renamed = parse_rename(subject.rename, [called])
    newcomer = replace(newcomer, name=renamed.get(called, called))
    sets = parents.open_sets(data.data, run.seed, (TRAIN, data.test_split), lambda _: before, device)
    samples = PatchData.of(before, sets, data.ignore_label, renamed, (module.prefix, newcomer.model))
    training, reason = samples.training()
    part = _held_out(samples, before.require_card(), (name, *renamed), newcomer.name, data.test_split)
    context = Context(data=training, device=device, seed=run.seed)
    passes = Passes([before, newcomer.model], training, PASSES_OF_A_FIT, device)
    passes.announce(f"two networks on {len(training or ())} training samples")
    report = replacing(Patch(before, newcomer, name), context)
    result = {
        "output": output.output,
        **describe(report.model, device),
        **_classes(name, newcomer, module),
        **_joining(report, reason),
    }
    if part is not None:
        models, changed = (before, report.model), ([name] if name else [], [newcomer.name])
        numbers = samples.numbers.get("")
        result.update(evaluate_before_after(models, changed, part, numbers, device))
        result.update(parents.sources_of(training, part))
    result.update(save(report.model, output.output, output), **passes.plain())
    what = _headline(name, newcomer.name, module)
    command = "replace" if name else "add"
    show.declined(result["declined"])
    show.emit(command, result, output.as_json, lambda: print_report(result, what))


def _classes(name: str | None, newcomer: Newcomer, module: options.Prefixed) -> dict[str, Any]:
    """Return the class before and after, and what decides it."""
    return {
        "class": name,
        "class_after": newcomer.name,
        "with": module.path,
        "with_class": newcomer.column,
    }


def _joining(report: ReplaceReport, reason: str | None) -> dict[str, Any]:
    """Return how the module was joined to the classifier.

    Args:
        report: of the pass.
        reason: why there are no training samples, if there are none.
    """
    return {
        "scores": report.scores,
        "fitted": report.fitted.plain() if report.fitted else None,
        "adapted": [list(steps) for steps in report.adapted],
        "declined": [*map(str, report.declined), *([reason] if reason else [])],
    }


def _module_alone(subject: NewcomerOptions) -> options.Prefixed:
    """Return the module that decides.

    Raises:
        GraftError: ``bad-request``: an option is for a class from samples.
    """
    if subject.module is None:
        raise RuntimeError("no module")
    if subject.joint or subject.mirror:
        option = "--joint" if subject.joint else "--mirror"
        raise GraftError("bad-request", f"{option} is for a class from samples", "leave out --with")
    return subject.module


def check_without_module(
    subject: NewcomerOptions, compare: CompareOptions, data: options.SampledDataOptions
) -> None:
    """Check the options of a class that is fitted to samples.

    Args:
        subject: without a module.
        compare: as nobody set it.
        data: where the samples are.

    Raises:
        GraftError: ``bad-request`` where there are no samples, or an option is for a module.
    """
    if not data.data:
        raise GraftError(
            "bad-request",
            "nothing says what decides the class",
            "name a module: --with MODULE, or samples of the class: --class NAME --data DIR",
        )
    given = {
        "--with-class": subject.with_class,
        "--rename": subject.rename,
        "--scores": compare.scores,
        "--input": compare.kind,
    }
    for option, value in given.items():
        if value:
            raise GraftError(
                "bad-request", f"{option} is for a module", f"name it, --with MODULE, or leave out {option}"
            )


def _held_out(
    samples: PatchData, card: Card, gone: Sequence[str | None], newcomer: str, split: str
) -> Split | None:
    """Return the test samples of the classes after the patch; ``None`` where there are none.

    Args:
        samples: of the patch.
        card: of the classifier.
        gone: classes that are called otherwise now.
        newcomer: the class of the module.
        split: name of the split.
    """
    held = tested(samples.data, split)
    if not held:
        return None
    stay = [name for name in card.labels if name not in gone]
    return held_out(
        replace(samples, data=held).split(split), card, (*stay, newcomer), samples.numbers.get("")
    )


def _headline(name: str | None, newcomer: str, module: options.Prefixed) -> str:
    if name is None:
        return f"{newcomer} of {module} was added"
    return f"{name} is decided by {module} now" + ("" if newcomer == name else f", as {newcomer}")


def _modules(path: Path) -> list[Model]:
    """Load the module at ``path``, any classifier with a card, or all modules of a folder."""

    def read() -> list[Model]:
        found = []
        for file in module_files([path]):
            model = load_module(file) if path.is_dir() else Model.load(file)
            model.require_card(file)
            found.append(model)
        return found

    return read_whole([path], read)


def print_report(result: dict[str, Any], what: str) -> None:
    """Print the report of a patch for people."""
    show.note(
        f"{result['output']}: {what}; {len(result['classes'])} classes, {show.count(result['macs'])} MACs, "
        f"{show.count(result['parameters'])} parameters, ran on {', '.join(result['providers'])}"
    )
    fitted = result.get("fitted")
    if fitted:
        stays = "" if fitted["used"] else "; it is not better and is not used"
        show.note(
            f"fitted to {fitted['samples']} training samples: top-1 {show.percent(fitted['top1'])} on "
            f"held-out folds, {show.percent(fitted['before'])} without{stays}"
        )
    if result.get("adapted"):
        entry = result["inputs"][0]
        show.note(f"input '{entry['name']}': {entry['color']} images {entry['size']}, 0..255")
    if "scores" in result:
        show.note(f"the newcomer is compared by {result['scores']}")
    show.print_batch(result["batch"])
    for line in result.get("declined", []):
        show.note(f"note: {line}")
    show.data_source(result)
    if "before" not in result:
        return
    both = result["before"], result["after"]
    rows = [["top-1", *(show.percent(each["top1"]) for each in both)]]
    rows.append(["others", *(show.percent(each["others"]) for each in both)])
    for key in ("precision", "recall", "f1") if any(each["class"] for each in both) else ():
        rows.append([key, *(show.percent(each["class"][key] if each["class"] else None) for each in both)])
    show.table(f"{both[1]['samples']} test samples", ["", "before", "after"], rows)
