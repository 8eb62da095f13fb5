"""Encoder-decoders in 'graft compose', 'replace', 'add' and 'remove': their classes are languages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from graft.passes.base import Context
from graft.passes.cut.language import Restrict
from graft.passes.join.languages import JoinLanguages
from graft.passes.join.patch_report import describe
from graft.passes.parent import Parent
from graft.rewriter.data.prefixed import PrefixedData, joined_split, tested
from graft.rewriter.data.samples import Samples
from graft.rewriter.data.split import Split
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.evaluation import score
from graft.rewriter.record.provenance import numbering, origin_of, patched_origin, stamp
from graft.rewriter.run.session import Device
from graft.tools import console as show
from graft.tools import options, parents
from graft.tools.saving import save

FIRST_WORD = "first word"
TRAIN = "train"


def speaks(model: Model) -> bool:
    """Return whether the classes of a model are languages."""
    return model.require_card().decoder is not None


def refuse(given: Mapping[str, Any], why: str) -> None:
    """Raise where an option was given that encoder-decoders have no use for.

    Args:
        given: name of each such option to what it says.
        why: none of them applies.

    Raises:
        GraftError: ``languages-option``.
    """
    flag = next((flag for flag, value in given.items() if value), None)
    if flag is not None:
        raise GraftError("languages-option", f"{flag} is not for encoder-decoders: {why}", "leave it out")


def load_classifier(subject: options.ShapedModelOptions, command: str) -> Parent:
    """Load the model of a command that takes no encoder-decoders.

    Args:
        subject: names the model.
        command: its name.

    Raises:
        GraftError: ``languages-command``, or the model cannot be read.
    """
    parent = Parent.load(subject.model, subject.card, subject.shapes())
    if parent.card.decoder is not None:
        raise GraftError(
            "languages-command",
            f"'graft {command}' does not know encoder-decoders, whose classes are languages",
            "cut them with 'graft decompose', and measure modules with 'graft evaluate'",
        )
    return parent


def compose(
    models: Sequence[Model],
    files: Sequence[Path],
    data: options.SampledDataOptions,
    run: options.SeededRunOptions,
    output: options.VersionedOutputOptions,
    target: Path,
) -> None:
    """Join encoder-decoders, measure the result, write it, and print the report.

    Args:
        models: with their cards.
        files: where they lie.
        data: sentences to measure on.
        run: where models run.
        output: versions, and whether the file is replaced.
        target: the file.

    Raises:
        GraftError: the models do not fit together, or the file cannot be written.
    """
    device = run.device()
    report = JoinLanguages(output.opset, output.ir_version)(models, Context(device=device, seed=run.seed))
    described = describe(report.model, device)
    result = {
        "output": target,
        "strategy": "branches",
        "strategy_reason": "encoder-decoders: each writes the languages that it speaks",
        "scores": FIRST_WORD,
        **described,
        "shared_nodes": report.shared[0],
        "shared_weights": report.shared[1],
        "declined": list(map(str, report.declined)),
        "modules": [
            {"file": file, "classes": list(model.require_card().classes)}
            for file, model in zip(files, models, strict=True)
        ],
        **measured(report.model, data, run.seed, device),
    }
    result.update(save(report.model, target, output))
    show.declined(result["declined"])
    show.emit("compose", result, output.as_json, lambda: _show(result, "joined side by side"))


def bring_in(
    before: Model,
    newcomer: tuple[Model, str, str | None],
    data: options.SampledDataOptions,
    run: options.SeededRunOptions,
    output: options.ModelOutputOptions,
) -> None:
    """Let another model write a language of ``before``, or one more.

    Args:
        before: with a card that has a decoder.
        newcomer: the model, its language, and the one of ``before`` that it replaces; ``None``: one more.
        data: the training split says which words the other languages need; the test split is measured on.
        run: where models run.
        output: the file.

    Raises:
        GraftError: the models do not fit together, or the file cannot be written.
    """
    module, language, gone = newcomer
    device, card, command = run.device(), before.require_card(), "replace" if gone else "add"
    if gone:
        card.check_class(gone)
    left = tuple(name for name in card.classes if name != gone)
    samples = _training(before, data, run.seed, device) if gone and left else None
    context = Context(samples=samples, device=device, seed=run.seed)
    parts = [Restrict(left)(before, context)] if left else []
    parts.append(Restrict((language,))(module, replace(context, samples=None)))
    report = JoinLanguages()([part.model for part in parts], context)
    patch = {"command": command, "class": gone, "with": language}
    joined = origin_of(report.model)
    numbers = numbering(before) or card.labels
    record = patched_origin(before, report.model.require_card().labels, patch)
    stamp(
        report.model, "composite", record.model_copy(update={"parents": joined.parents, "numbers": numbers})
    )
    result = {
        "output": output.output,
        **describe(report.model, device),
        "class": gone,
        "class_after": language,
        "scores": FIRST_WORD,
        "declined": [str(each) for one in (*parts, report) for each in one.declined],
        **_before_after(before, report.model, data, run.seed, device),
    }
    result.update(save(report.model, output.output, output))
    show.declined(result["declined"])
    what = f"{language} is written by another model now" if gone else f"{language} was added"
    show.emit(command, result, output.as_json, lambda: _show(result, what))


def remove(
    before: Model,
    names: Sequence[str],
    data: options.SeveralDataOptions,
    run: options.RunOptions,
    output: options.ModelOutputOptions,
) -> None:
    """Remove languages of ``before``, and the words that only they need.

    Args:
        before: with a card that has a decoder.
        names: the languages.
        data: the training split says which words stay; the test split is measured on.
        run: where models run.
        output: the file.

    Raises:
        GraftError: a language is unknown, none is left, there is no data, or the file cannot be written.
    """
    card, device = before.require_card(), run.device()
    for name in names:
        card.check_class(name)
    left = tuple(name for name in card.classes if name not in names)
    if not left:
        raise GraftError("one-class", "no language would be left", "leave one")
    if before.metadata and _is_joined(before):
        raise GraftError(
            "languages-joined",
            "the model was joined of encoder-decoders side by side",
            "join those of the other languages with 'graft compose'",
        )
    samples = _training(before, data, 0, device)
    if samples is None:
        raise GraftError(
            "data-missing",
            "which words the other languages need is read off sentences in them",
            "name some: --data DATA with a training split",
        )
    report = Restrict(left)(before, Context(samples=samples, device=device))
    record = patched_origin(before, report.model.require_card().labels, {"removed": list(names)})
    stamp(report.model, "composite", record)
    result = {
        "output": output.output,
        **describe(report.model, device),
        "removed": list(names),
        "declined": list(map(str, report.declined)),
        **_before_after(before, report.model, data, 0, device),
    }
    result.update(save(report.model, output.output, output))
    show.declined(result["declined"])
    show.emit("remove", result, output.as_json, lambda: _show(result, f"{show.classes(names)} removed"))


def measured(
    model: Model, data: options.SeveralDataOptions, seed: int, device: Device, like: Model | None = None
) -> dict[str, Any]:
    """Return ``samples`` and ``top1``, the share of words that are right behind the reference's.

    Args:
        model: with a card that has a decoder.
        data: its test split is measured on; nothing is returned where there is none.
        seed: draws splits where the data has none.
        device: where the model runs.
        like: only sentences in languages that this model speaks, too, count.
    """
    part = _part(model, data, data.test_split, seed, device)
    if part is None:
        return {}
    samples = Samples.match(part, model.require_card(), names=numbering(model))
    shared = [name for name in model.require_card().classes if like is None or name in _languages(like)]
    if not shared:
        return {}
    found = score(model, samples.speaking(shared), device)
    return {"samples": found.samples, "top1": float(found.correct.mean())}


def _before_after(
    before: Model, after: Model, data: options.SeveralDataOptions, seed: int, device: Device
) -> dict[str, Any]:
    """Return what both models get right, each of its languages, and of those that both speak."""
    first, second = (measured(model, data, seed, device) for model in (before, after))
    if not first or not second:
        return {}
    shared = (measured(one, data, seed, device, two) for one, two in ((before, after), (after, before)))
    both = [
        {**whole, "shared": part.get("top1")} for whole, part in zip((first, second), shared, strict=True)
    ]
    return {"before": both[0], "after": both[1]}


def _languages(model: Model) -> tuple[str, ...]:
    return model.require_card().classes


def _is_joined(model: Model) -> bool:
    """Return whether networks for different languages run side by side in a model."""
    return "graft.origin" in model.metadata and origin_of(model).options.get("scores") == FIRST_WORD


def _training(model: Model, data: options.SeveralDataOptions, seed: int, device: Device) -> Samples | None:
    """Return the training samples; ``None`` where there are none."""
    part = _part(model, data, TRAIN, seed, device)
    return None if part is None else Samples.match(part, model.require_card(), names=numbering(model))


def _part(
    model: Model, data: options.SeveralDataOptions, split: str, seed: int, device: Device
) -> Split | None:
    """Return a split of all data sets; ``None`` where they have none of that name."""
    labeller: Callable[[PrefixedData], Model] = lambda _: model  # noqa: E731
    sets = parents.open_sets(data.data, seed, (split,), labeller, device)
    held = tested(sets, split) if split != TRAIN else [each for each in sets if each.dataset.has(split)]
    return joined_split(held, split, data.ignore_label) if held else None


def _show(result: dict[str, Any], what: str) -> None:
    """Print the report for people."""
    show.note(
        f"{result['output']}: {what}; {show.classes(result['classes'])}, {show.count(result['macs'])} MACs, "
        f"{show.count(result['parameters'])} parameters, ran on {', '.join(result['providers'])}"
    )
    for reason in result["declined"]:
        show.note(f"note: {reason}")
    if "top1" in result:
        show.note(
            f"{show.percent(result['top1'])} of the words of {result['samples']} test samples are right"
        )
    if "before" in result:
        both = result["before"], result["after"]
        rows = [
            ["words right", *(show.percent(each["top1"]) for each in both)],
            ["of languages of both", *(show.percent(each["shared"]) for each in both)],
        ]
        show.table(f"{both[1]['samples']} test samples", ["", "before", "after"], rows)
