"""What the design promises of the manners that commands share, sentence by sentence."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx_graphsurgeon as gs
import onnxruntime as ort
import pytest
from onnx import helper

from graft.passes.base import Context, Declined
from graft.passes.budget_search import BudgetSearch
from graft.passes.compose import Compose
from graft.passes.cut.head import Head
from graft.passes.cut.slice import Slice
from graft.passes.normalize.simplify import Normalize
from graft.passes.select.budget import Budget
from graft.passes.select.observe import Observe
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.analysed import Analysed
from graft.rewriter.groups.plan import Plan
from graft.rewriter.run.session import SHORT_NAMES
from graft.tools.cli import COMMANDS
from tests.integration import kit
from tests.integration.contract.kit import (
    LINES,
    RUNNING,
    WRITING,
    arrays,
    found,
    refused,
    resaved,
    words,
)
from tests.integration.kit import Graft, Place


def options_of(command: str) -> set[str]:
    found: click.Command = import_module(f"graft.tools.commands.{command}").command
    return {name for parameter in found.params for name in parameter.opts}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_the_common_options(command: str) -> None:
    """``--json`` on every command; ``-q``, ``-v``; ``--debug``."""
    assert options_of(command) >= {"--json", "-q", "-v", "--debug"}


@pytest.mark.parametrize(
    "command",
    [
        *WRITING,
        "demo",
    ],
)
def test_every_command_that_writes_has_the_options_for_it(command: str) -> None:
    """``-o/--output`` ... ``--force``; ``--dry-run`` on commands that write."""
    assert options_of(command) >= {"-o", "--output", "--force", "--dry-run"}


def test_which_commands_write() -> None:
    assert {name for name in COMMANDS if "-o" in options_of(name)} == {*WRITING, "curve", "demo"}


@pytest.mark.parametrize("command", RUNNING)
def test_every_command_that_runs_a_model_has_the_options_for_it(command: str) -> None:
    assert options_of(command) >= {"--providers", "--strict-providers"}


@pytest.mark.parametrize("command", LINES)
def test_one_json_object_and_nothing_else(command: str, graft: Graft, here: Place) -> None:
    """``--json`` prints one JSON object on standard output, with its schema; logs go to standard error."""
    told = graft(*words(command), "--json", "-v")
    assert found(told, command)
    assert told.out.count("\n") == 1
    plain = graft(*words(command), "-v", *(["--force"] if command in WRITING else []))
    assert plain.code == 0
    assert plain.out
    with pytest.raises(ValueError):
        plain.json  # noqa: B018 - it is a property


@pytest.mark.parametrize("command", [*LINES, "demo"])
@pytest.mark.parametrize("number", [7, 8])
def test_an_error_is_one_json_object_and_one_line(
    number: int, command: str, graft: Graft, here: Place
) -> None:
    """Also on failure (``graft/error/1``: code, message, hint); exit code 2 with one line, no traceback."""
    line = [*(words(command) if command in LINES else ["demo", "-o", "modules"])]
    line += ["--nonsense"] if number == 7 else []
    if number == 8 and command != "demo":
        line[1] = "missing"
    before = kit.listing(here.folder)
    told = graft(*line, "--json")
    assert told.code == 2
    assert told.json.keys() == {"schema", "code", "message", "hint"}
    assert told.json["schema"] == "graft/error/1"
    assert (told.json["code"] == "usage") == (number == 7)
    assert all(told.json.values())
    assert told.out.count("\n") == told.err.count("\n") == 1
    assert told.err == f"graft: error: {told.json['message']}; {told.json['hint']}\n"
    plain = graft(*line)
    assert (plain.code, plain.out, plain.err) == (2, "", told.err)
    assert kit.listing(here.folder) == before


def raising(error: BaseException) -> Callable[..., Any]:
    def call(*_: Any, **__: Any) -> Any:
        raise error

    return call


@pytest.mark.parametrize("command", LINES)
def test_what_nobody_expected_is_one_line_too(
    command: str, graft: Graft, here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2, one line that says what to do and no traceback (``--debug`` shows it)."""
    monkeypatch.setattr(Model, "from_proto", raising(RuntimeError("two\nlines")))
    told = graft(*words(command), "--json")
    assert "--debug" in refused(told, "internal")
    assert told.err.count("\n") == told.out.count("\n") == 1
    assert "Traceback" not in told.err
    debugged = graft(*words(command), "--json", "--debug")
    assert refused(debugged, "internal")
    assert "Traceback" in debugged.err
    assert not (here / "out").exists()


@pytest.mark.parametrize("command", LINES)
def test_interrupted(command: str, graft: Graft, here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 130 interrupted; nothing is left behind."""
    monkeypatch.setattr(Model, "from_proto", raising(KeyboardInterrupt()))
    before = kit.listing(here.folder)
    told = graft(*words(command))
    assert (told.code, told.out, told.err) == (130, "", "graft: interrupted\n")
    assert kit.listing(here.folder) == before


def test_interrupted_with_json(graft: Graft, here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """``--json`` prints one JSON object, also on failure."""
    monkeypatch.setattr(Model, "from_proto", raising(KeyboardInterrupt()))
    told = graft(*words("inspect"), "--json")
    assert told.code == 130
    assert told.json["schema"] == "graft/error/1"


def test_a_check_that_failed_is_told_with_the_result(graft: Graft, here: Place) -> None:
    """Exit code 1: a check failed."""
    line = ("evaluate", "trunk.onnx", "--data", "dense.npz", "--min-top1")
    top1 = found(graft(*line, "0", "--json"), "evaluate")["top1"]
    assert 0 < top1 < 1
    for least, code in ((top1 - 0.001, 0), (top1, 0), (top1 + 0.001, 1)):
        told = graft(*line, least, "--json")
        assert (told.code, told.json["schema"], told.json["top1"]) == (code, "graft/evaluate/1", top1)
        assert bool(told.err) == bool(code)


@pytest.mark.parametrize("command", ["profile", "decompose", "evaluate"])
def test_progress_is_for_terminals(
    command: str, graft: Graft, here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Progress bars go to standard error and vanish when it is no terminal; ``-q`` has none."""
    force = ["--force"] if command in WRITING else []
    told = graft(*words(command), "--json")
    assert (told.code, told.err) == (0, "")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    shown = graft(*words(command), *force, "--json")
    assert "/240" in shown.err
    assert found(shown, command)
    quiet = graft(*words(command), *force, "--json", "-q")
    assert (quiet.code, quiet.err) == (0, "")


def test_logs_go_to_standard_error(graft: Graft, here: Place) -> None:
    """Logs go to standard error; ``-q`` has no warnings, but errors."""
    few = ("--samples-per-class", "5")
    loud = graft(*words("profile", "loud"), *few)
    assert loud.err.count("graft: warning: ") == 4
    assert "warning" not in loud.out
    quiet = graft(*words("profile", "quiet"), *few, "-q")
    assert (quiet.code, quiet.err) == (0, "")
    assert quiet.out == loud.out.replace("loud", "quiet")
    assert graft("inspect", "no.onnx", "-q").err.startswith("graft: error: ")


@pytest.mark.parametrize("command", WRITING)
@pytest.mark.parametrize("there", [False, True], ids=["new", "there"])
def test_a_dry_run_prints_what_a_real_one_prints_and_leaves_nothing_behind(
    there: bool, command: str, graft: Graft, here: Place
) -> None:
    """``--dry-run`` on commands that write: everything is computed, nothing is written."""
    line = (*words(command, "deep/er/out"), "--force")
    assert not there or graft(*line).code == 0
    before = kit.listing(here.folder.parent)
    told = found(graft(*line, "--dry-run", "--json"), command)
    assert told["output"] == "deep/er/out"
    dry = graft(*line, "--dry-run")
    assert dry.code == 0 and dry.out.endswith("dry run: nothing was written\n")
    assert not [claim for claim in (" written;", "figures in", "modules in", "next:") if claim in dry.out]
    assert kit.listing(here.folder.parent) == before
    real = found(graft(*line, "--json"), command)
    assert kit.untimed(told) == {**kit.untimed(real), "dry_run": True}
    assert (here / "deep/er/out").exists()


@pytest.mark.parametrize("command", WRITING)
def test_a_dry_run_refuses_what_a_real_one_refuses(command: str, graft: Graft, here: Place) -> None:
    (here / "out").write_text("mine")
    refused(graft(*words(command), "--dry-run", "--json"), "output-exists")


@pytest.mark.parametrize("command", ["replace", "add"])
def test_what_was_declined_is_said_with_its_reason(command: str, graft: Graft, here: Place) -> None:
    """In ``--json``, and with ``-v`` as lines on standard error."""
    resaved(here, x_train=None, y_train=None)
    line = (*words(command), "--data", "dense.npz", "--json")
    reason = "scores are not fitted to data: dense.npz has no training split"
    quiet = graft(*line)
    assert found(quiet, command)["declined"] == [reason]
    assert quiet.err == ""
    assert graft(*line, "-v", "--force").err == f"graft: declined: {reason}\n"


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        (Normalize, LINES["inspect"]),
        (Normalize, LINES["profile"] + " -o out"),
        (Observe, LINES["profile"] + " -o out"),
        (Observe, LINES["decompose"] + " -o out"),
        (Observe, "curve dense.onnx --data dense.npz --classes ant,cow --budgets 0.7 -o out.json"),
        (Head, LINES["plan"] + " -o out"),
        (Budget, LINES["plan"] + " -o out"),
        (BudgetSearch, "decompose dense.onnx --data dense.npz --max-drop 50 -o out"),
        (Slice, "curve dense.onnx --data dense.npz --classes ant,cow --budgets 0.7 -o out.json"),
        (Compose, "evaluate modules --data dense.npz"),
        (Compose, "evaluate dense.onnx --data dense.npz --baseline modules"),
    ],
)
def test_what_passes_declined_is_said_with_its_reason(
    kind: type, line: str, graft: Graft, here: Place, declining: Callable[[type], Declined]
) -> None:
    declined, words = declining(kind), line.split()
    told = found(graft(*words, "--json", "-v"), words[0])
    assert told["declined"].count(str(declined)) == 1
    again = [] if words[0] in ("evaluate", "inspect") else ["--force"]
    assert f"graft: declined: {declined}\n" in graft(*words, *again, "-v").err
    if words[0] == "decompose":
        assert str(declined) in (here / "out/graft.json").read_text()


@pytest.mark.parametrize("command", ["decompose", "compose", "replace", "add", "remove"])
def test_what_was_declined_is_in_the_result(command: str, graft: Graft, here: Place) -> None:
    result = found(graft(*words(command), "--json"), command)
    for entry in result["modules"] if command == "decompose" else [result]:
        assert all(isinstance(reason, str) for reason in entry["declined"])


@pytest.mark.parametrize("command", WRITING)
def test_output_is_written_whole_or_not_at_all(
    command: str, graft: Graft, here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``-o`` never overwrites without ``--force`` and is written whole or not at all."""
    line = words(command, "sub/out")
    assert graft(*line).code == 0
    before = kit.listing(here.folder)
    refused(graft(*line, "--json"), "output-exists")
    assert kit.listing(here.folder) == before
    kit.full_disk(monkeypatch)
    for output in ("sub/out", "sub/new"):
        assert graft(*words(command, output), "--force").code == 2
    monkeypatch.undo()
    assert kit.listing(here.folder) == before


@pytest.mark.parametrize("command", WRITING)
def test_a_full_disk_is_told_as_such(
    command: str, graft: Graft, here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2 for a bad file, with one line that says what to do."""
    kit.full_disk(monkeypatch)
    told = graft(*words(command), "--json")
    monkeypatch.undo()
    assert "space" in refused(told, "output-unwritable")


class Shifted(Slice):
    """Cuts the wrong channels."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(Plan(plan.parent, {name: np.roll(kept, 1) for name, kept in plan.kept.items()}))


class Adding(Slice):
    """Leaves a node of an unknown operator behind."""

    operator, domain = "Frobnicate", ""

    def __call__(self, subject: Analysed, context: Context) -> Any:
        result = super().__call__(subject, context)
        model, graph = subject.model, subject.model.graph
        output = graph.outputs[0]
        inner = output.inputs[0]
        before = gs.Variable("before", output.dtype, output.shape)
        inner.outputs = [before]
        graph.nodes.append(
            gs.Node(self.operator, "added", {}, [before], [output], domain=self.domain or None)
        )
        if self.domain:
            graph.import_domains = [helper.make_opsetid("", model.opset), helper.make_opsetid(self.domain, 1)]
        return result


class Foreign(Adding):
    """Leaves a node behind that the checker does not know and onnxruntime does not run."""

    operator, domain = "Anything", "some.where"


@pytest.mark.parametrize(
    ("command", "slicing", "code"),
    [
        ("decompose", Shifted, "law-broken"),
        ("compose", Shifted, "law-broken"),
        ("decompose", Adding, "result-invalid"),
        ("compose", Adding, "result-invalid"),
        ("decompose", Foreign, "model-not-runnable"),
        ("compose", Foreign, "model-not-runnable"),
    ],
)
def test_a_written_model_was_checked(
    command: str, slicing: type[Slice], code: str, graft: Graft, here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A written model has passed onnx.checker, an onnxruntime load and the law on a few samples."""
    content = arrays(here)
    resaved(here, x_test=None, y_test=None, **{key: content[key] for key in ("x_train", "y_train")})
    monkeypatch.setattr("graft.passes.decompose.Slice", slicing)
    before = kit.listing(here.folder)
    refused(graft(*words(command), "--json"), code)
    assert kit.listing(here.folder) == before
    if slicing is Shifted or command == "decompose":
        plain = ("--method", "relevance", "--compensate", "fold") if command == "decompose" else ()
        assert graft(*words(command), *plain, "--no-verify").code == 0, "and is not run otherwise"
        assert (here / "out").exists()


@pytest.mark.parametrize("command", RUNNING)
def test_strict_providers_fails_instead_of_falling_back(command: str, graft: Graft, here: Place) -> None:
    """``--providers cuda,cpu``; ``--strict-providers`` fails instead of falling back."""
    there = ort.get_available_providers()
    missing = next(name for name, full in SHORT_NAMES.items() if full not in there)
    wanted = ("--providers", f"{missing},cpu")
    told = graft(*words(command), *wanted, "--json")
    assert found(told, command)
    assert f"{missing} was asked for, cpu runs" in told.err
    (here / "out").exists() and (shutil.rmtree if (here / "out").is_dir() else Path.unlink)(here / "out")
    refused(graft(*words(command), *wanted, "--strict-providers", "--json"), "provider-missing")
    assert not (here / "out").exists()
    assert graft(*words(command), "--providers", "cpu", "--strict-providers").code == 0


@pytest.mark.parametrize(
    "command",
    [
        *("profile", "compose", "evaluate", "predict"),
        *("card", "decompose"),
    ],
)
def test_json_says_what_really_ran(command: str, graft: Graft, here: Place) -> None:
    """What really ran is printed."""
    assert found(graft(*words(command), "--providers", "cpu", "--json"), command)["providers"] == ["cpu"]


@pytest.mark.parametrize(
    "command",
    [
        *("profile", "evaluate"),
        *("card", "decompose", "compose", "predict"),
    ],
)
def test_people_are_told_what_really_ran(command: str, graft: Graft, here: Place) -> None:
    told = graft(*words(command), "--providers", "cpu")
    assert re.search(r"\bcpu\b", told.out + told.err)
