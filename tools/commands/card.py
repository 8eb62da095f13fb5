"""``graft card``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from graft.rewriter.data.dataset import Dataset
from graft.rewriter.files import writing
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.draft.card_draft import draft_card
from graft.tools import console as show
from graft.tools import options
from graft.tools.cli import CHECK_FAILED, DONE
from graft.tools.command import Argument, Option, Options, takes_options
from graft.tools.estimates import announce_runs

SHOWN = 6
"""Candidates that people are shown; ``--json`` has all of them."""


class CardData(Options):
    """Samples that the ways to read the input are tried on."""

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
def command(subject: CardModel, data: CardData, run: options.RunOptions, output: CardOutput) -> int:
    """Draft the card of MODEL: how raw samples become its input, what its output means, its labels.

    Labels and preprocessing come from the file, from config.json and preprocessor_config.json beside it.
    With --data the usual ways to read the input are tried, and that of the highest log-likelihood is taken;
    if even that is no better than chance, or nothing ran, the exit code is 1. Check the draft: a wrong card
    looks nearly right.
    """
    if output.output:
        output.claim(output.output)
    loaded = Model.load(subject.model, with_card=False)
    part = Dataset.load(data.data).split(data.split) if data.data else None
    if part is not None and not part.labelled:
        logging.getLogger("graft").warning(
            "the samples of %s have no labels: they show what the input is, but the draft is not scored",
            data.data,
        )
    draft = draft_card(loaded, part, run.device(), subject.model, announce_runs("{} runs of a sample"))
    text = draft.card.to_yaml()
    if output.output:
        with output.target(output.output) as path, writing(path, output.force) as temporary:
            temporary.write_text(text, encoding="utf-8")
    result: dict[str, Any] = {
        "output": output.output,
        "card": text,
        "top1": draft.top1,
        "log_likelihood": draft.log_likelihood,
        "samples": draft.samples,
        "candidates": [each.plain() for each in draft.candidates],
        "notes": list(draft.notes),
        "problem": draft.problem or None,
        "providers": list(draft.providers),
        **output.dry(),
    }
    show.emit("card", result, output.as_json, lambda: _show(result))
    if draft.problem:
        show.say(f"no success: {draft.problem}")
        return CHECK_FAILED
    return DONE


def _show(result: dict[str, Any]) -> None:
    if result["output"] is None:
        for line in result["card"].rstrip().split("\n"):
            show.note(line)
    elif "dry_run" not in result:
        show.note(f"{result['output']} written; check it: a wrong card looks nearly right")
    for note in result["notes"]:
        show.say(note)
    if len(result["candidates"]) > 1:
        show.say("tried, the best first:")
        for candidate in result["candidates"][:SHOWN]:
            show.say(_line(candidate), "  ")
        more = len(result["candidates"]) - SHOWN
        if more > 0:
            show.say(f"and {more} more, see --json", "  ")
    if result["top1"] is not None:
        ran = ", ".join(result["providers"])
        show.say(
            f"top-1 with this card on {result['samples']} samples: {show.percent(result['top1'])}, "
            f"mean log-likelihood {result['log_likelihood']:.3f}, ran on {ran}"
        )


def _line(candidate: Mapping[str, Any]) -> str:
    """Return a candidate with its figures on one line."""
    inputs = candidate.get("inputs") or [candidate["input"]]
    read = "; ".join(" ".join(_words(each)) for each in inputs)
    output = f"{candidate['output']['name']} as {candidate['output']['kind']}"
    if candidate["error"]:
        return f"{read}, {output}: did not run: {candidate['error']}"
    figures = f"top-1 {show.percent(candidate['top1'])}, log-likelihood {candidate['log_likelihood']:.3f}"
    return f"{read}, {output}: {figures} ({candidate['samples']} samples)"


def _words(card: Mapping[str, Any]) -> list[str]:
    if card["kind"] != "image":
        return [card["kind"]]
    mean, std = (",".join(f"{each:.4g}" for each in card[key]) for key in ("mean", "std"))
    return [card["layout"], card["color"], f"scale {card['scale']:.4g}", f"mean {mean}", f"std {std}"]
