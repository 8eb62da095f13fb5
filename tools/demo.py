"""``graft demo``."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

import click

from graft.rewriter.errors import GraftError
from graft.tools import options, show

DIGITS = ("1", "4", "7")
KEEP = "0.5"


@click.command()
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Keep what is made in this folder.")
@options.common
def command(output: Path | None, as_json: bool) -> None:
    """Take a trained digit classifier apart and build a three-digit classifier from the parts.

    Uses the model and the sample of MNIST images that come with Graft, and prints the commands it
    runs. Nothing is trained.
    """
    if output is not None and output.exists():
        raise GraftError("output-exists", f"{output} exists", "choose another -o")
    with contextlib.ExitStack() as stack:
        folder = output or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="graft-demo-")))
        folder.mkdir(parents=True, exist_ok=True)
        models = stack.enter_context(resources.as_file(resources.files("graft.models")))
        story = _Story(models, folder, as_json)
        result = story.tell()
        show.emit("demo", result, as_json, lambda: _show(result, output))


class _Story:
    """The demo, one command after the other."""

    def __init__(self, models: Path, folder: Path, quiet: bool) -> None:
        self.parent = models / "mnist_torch.onnx"
        self.data = models / "mnist_sample.npz"
        self.modules = folder / "modules"
        self.composite = folder / "three_digits.onnx"
        self.quiet = quiet
        self.commands: list[str] = []

    def tell(self) -> dict[str, Any]:
        """Run the commands; what they found."""
        self._say("1. Ten modules: for each digit, the part of the network that it needs.")
        decomposed = self._run(
            "decompose", self.parent, "--data", self.data, "--keep", KEEP, "-o", self.modules
        )
        self._say(f"2. Three of them in one model: the digits {', '.join(DIGITS)}.")
        files = [self.modules / f"{digit}.onnx" for digit in DIGITS]
        composed = self._run("compose", *files, "-o", self.composite)
        self._say("3. Beside the parent, restricted to the same digits, on images that neither has seen.")
        evaluated = self._run("evaluate", self.composite, "--data", self.data, "--baseline", self.parent)
        return {
            "commands": self.commands,
            "decompose": decomposed,
            "compose": composed,
            "evaluate": evaluated,
        }

    def _say(self, text: str) -> None:
        if not self.quiet:
            show.note(f"\n{text}")

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
    modules, ours = result["decompose"]["modules"], result["evaluate"]
    parent = ours["baseline"]
    small = min(modules, key=lambda module: module["bytes"])
    show.note("")
    show.table(
        f"{ours['samples']} test images of the digits {', '.join(DIGITS)}",
        ["", "parent", "three-digit model", "ratio"],
        [
            ["top-1", show.percent(parent["top1"]), show.percent(ours["top1"]), ""],
            *(
                [
                    name,
                    show.count(parent[key]),
                    show.count(ours[key]),
                    _ratio(ours[key], parent[key]),
                ]
                for name, key in (("MACs", "macs"), ("parameters", "parameters"))
            ),
            [
                "file",
                f"{parent['bytes'] / 1e3:.0f} kB",
                f"{ours['bytes'] / 1e3:.0f} kB",
                _ratio(ours["bytes"], parent["bytes"]),
            ],
            [
                "latency, batch 32",
                f"{parent['latency_ms']['median']:.2f} ms",
                f"{ours['latency_ms']['median']:.2f} ms",
                _ratio(ours["latency_ms"]["median"], parent["latency_ms"]["median"]),
            ],
        ],
    )
    whole = result["decompose"]
    show.note(
        f"\nAll ten modules joined: {show.percent(whole['composed_top1'])} on all digits, the parent "
        f"{show.percent(whole['parent']['top1'])}. The smallest module has {small['bytes'] / 1e3:.0f} kB."
    )
    show.note(
        f"Nothing was trained. Files: {output}" if output else "Nothing was trained. Keep the files with -o."
    )


def _ratio(ours: float, theirs: float) -> str:
    return f"{ours / theirs:.2f}"
