"""``graft demo``."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import tempfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnxruntime as ort

from graft.rewriter.card.card import Card
from graft.rewriter.data.dataset import Dataset
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import CARD_KEY
from graft.tools import console as show
from graft.tools import options
from graft.tools.command import Option, takes_options

KEEP = "0.6"


@dataclass(frozen=True)
class _Bundled:
    """A model that comes with Graft, its data, and the classes that the demo takes from it."""

    model: str
    data: str
    framework: str
    classes: tuple[str, ...]


BUNDLED = (
    _Bundled("mnist_torch", "mnist_sample", "PyTorch", ("3", "8")),
    _Bundled("fashion_keras", "fashion_sample", "Keras", ("Trouser", "Sneaker")),
    _Bundled("digits_sklearn", "digits_sample", "scikit-learn", ("two", "six")),
)
"""The classes were chosen on training images; docs/results.md has the mean over random choices."""


class DemoOutput(options.OutputOptions):
    """Output of ``graft demo``."""

    output: Annotated[
        Path | None,
        Option("Folder for the files. Default: they are deleted.", options.OUTPUT, ("-o", "--output")),
    ] = None


@takes_options()
def command(output: DemoOutput) -> None:
    """Build one classifier from parts of three, trained with PyTorch, Keras and scikit-learn.

    Uses the models and the samples that come with Graft, and prints the commands that it runs. Nothing is
    trained. Takes about a minute.
    """
    target = output.output
    if target is not None and target.exists() and not output.force:
        raise GraftError("output-exists", f"{target} exists", "choose another -o or add --force")
    with contextlib.ExitStack() as stack:
        if target is None or output.dry_run:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="graft-demo-")))
        else:
            folder = target
        models = stack.enter_context(resources.as_file(resources.files("graft.models")))
        result = _Story(models, folder, output.force, quiet=output.as_json).tell()
        result.update({"output": target, **output.dry()})
        show.emit("demo", result, output.as_json, lambda: _show(result, None if output.dry_run else target))


class _Story:
    """The demo, one command after the other."""

    def __init__(self, models: Path, folder: Path, force: bool, quiet: bool) -> None:
        self.models = models
        self.folder = folder
        self.quiet = quiet
        self.writing = ("--force",) if force else ()
        self.commands: list[str] = []

    def tell(self) -> dict[str, Any]:
        """Run the commands and return their results."""
        self._say("1. From each of three networks, a module for each of two classes: the part that it needs.")
        decomposed = []
        for each in BUNDLED:
            names = ("--classes", ",".join(each.classes), "--keep", KEEP)
            target = self.folder / each.model
            decomposed.append(
                self._run(
                    *("decompose", self._model(each), "--data", self._data(each), *names),
                    *("-o", target, *self.writing),
                )
            )
        self._say("2. All six modules in one model, which takes raw pixels.")
        composite = self.folder / "six_classes.onnx"
        files = [self.folder / each.model for each in BUNDLED]
        composed = self._run("compose", *files, "-o", composite, *self.writing)
        self._say("3. The model on images that no network has seen, and each parent on its own two classes.")
        data = [word for each in BUNDLED for word in ("--data", self._data(each))]
        evaluated = self._run("evaluate", composite, *data)
        parents = [
            self._run(
                "evaluate", self._model(each), "--data", self._data(each), "--classes", ",".join(each.classes)
            )
            for each in BUNDLED
        ]
        self._say("4. It is an ordinary ONNX file: onnxruntime alone runs it.")
        return {
            "commands": self.commands,
            "decompose": decomposed,
            "compose": composed,
            "evaluate": evaluated,
            "parents": parents,
            "alone": self._alone(composite),
        }

    def _alone(self, composite: Path) -> dict[str, Any]:
        """Raw test images through onnxruntime, without Graft."""
        session = ort.InferenceSession(composite, providers=["CPUExecutionProvider"])
        labels = Card.from_json(session.get_modelmeta().custom_metadata_map[CARD_KEY]).labels
        test = Dataset.load(self._data(BUNDLED[1])).split("test")
        wanted = (test.class_names or ()).index(BUNDLED[1].classes[0])
        images = test.raw(np.flatnonzero(test.labels == wanted))[""][..., None]
        line = 'onnxruntime.InferenceSession("six_classes.onnx").run(None, {"image": images})'
        if not self.quiet:
            show.note(f">>> {line}")
        scores = session.run(None, {"image": images})[0]
        found = np.asarray(scores).argmax(axis=1) == labels.index(BUNDLED[1].classes[0])
        return {
            "code": line,
            "input": [str(images.dtype), *images.shape],
            "class": BUNDLED[1].classes[0],
            "recall": float(found.mean()),
        }

    def _model(self, each: _Bundled) -> Path:
        return self.models / f"{each.model}.onnx"

    def _data(self, each: _Bundled) -> Path:
        return self.models / f"{each.data}.npz"

    def _say(self, text: str) -> None:
        if not self.quiet:
            show.note("")
            show.note(text)

    def _run(self, *arguments: object) -> dict[str, Any]:
        """Run a command of Graft as a person would, and read its JSON."""
        from graft.tools.cli import graft

        words = [str(argument) for argument in arguments]
        line = shlex.join(["graft", *words])
        self.commands.append(line)
        if not self.quiet:
            show.note(f"$ {line}")
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            graft.main([*words, "--json"], prog_name="graft", standalone_mode=False)
        found: dict[str, Any] = json.loads(output.getvalue())
        return found


def _show(result: dict[str, Any], output: Path | None) -> None:
    ours, parents = result["evaluate"], result["parents"]
    alone = result["alone"]
    show.note(f"    {alone['class']}: {show.percent(alone['recall'])} of {alone['input'][1]} images found")
    rows = [
        [
            f"{each.framework}: {', '.join(each.classes)}",
            show.percent(parent["top1"]),
            show.percent(_recall(ours, each.classes)),
            show.count(parent["macs"]),
            f"{parent['bytes'] / 1e3:.0f} kB",
            f"{parent['latency_ms']['median']:.2f} ms",
        ]
        for each, parent in zip(BUNDLED, parents, strict=True)
    ]
    rows.append(
        [
            "one model of all six",
            "",
            show.percent(ours["top1"]),
            show.count(ours["macs"]),
            f"{ours['bytes'] / 1e3:.0f} kB",
            f"{ours['latency_ms']['median']:.2f} ms",
        ]
    )
    show.note("")
    show.table(
        f"{ours['samples']} test images: right by the parent among two classes, by the one model among six",
        ["", "parent", "one model", "MACs", "file", "latency"],
        rows,
    )
    whole = sum(parent["macs"] for parent in parents)
    show.note(f"Latency: a batch of {ours['latency_ms']['batch']} on {', '.join(ours['providers'])}.")
    show.note(
        f"The model has {show.percent(ours['macs'] / whole, 0)} of its parents' MACs. Nothing was trained."
    )
    show.note(f"Files: {output}" if output else "Keep the files with -o.")


def _recall(result: dict[str, Any], classes: tuple[str, ...]) -> float:
    """Return the recall of all samples of ``classes``."""
    entries = [result["per_class"][name] for name in classes]
    return float(sum(e["recall"] * e["support"] for e in entries) / sum(e["support"] for e in entries))
