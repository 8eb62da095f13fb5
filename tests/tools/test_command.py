"""Commands: parameters, titled groups of options, help texts, and the nearest name of a misspelt one."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest

from graft import tools
from graft.tools import cli
from graft.tools.cli import COMMANDS, GROUPS, run
from graft.tools.command import GENERAL, Command, Option, fields

TITLES = {
    *(
        "Model",
        "What to prune",
        "What to join",
        "What to measure",
        "What to check",
        "What to remove",
        "Module",
    ),
    "Class from samples",
    *("Data", "Method", "Scores", "Input", "Run", "Output", GENERAL),
}
FIRST = {"decompose": ["Model", "What to prune", "Method", "Data", "Run", "Output", GENERAL]}
LONGEST, MOST_PARAMETERS, MOST_MODELS = 60, 8, 6


def command_of(name: str) -> Command:
    found: Command = import_module(f"graft.tools.commands.{name}").command
    return found


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 100 columns."""
    monkeypatch.setenv("COLUMNS", "100")


def help_of(*names: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert run([*names, "--help"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_takes_few_models(name: str) -> None:
    command = command_of(name)
    parameters = inspect.signature(command.function).parameters
    assert len(parameters) <= MOST_MODELS
    assert list(parameters) == list(command.models)
    taken = [each for model in command.models.values() for each, *_ in fields(model)]
    assert len(taken) == len(set(taken)) == len(command.params)


def test_functions_fit_on_a_screen() -> None:
    """At most 60 lines and eight parameters, in all of ``tools``."""
    for file in Path(next(iter(tools.__path__))).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef):
                where = f"{file.name}:{node.name}"
                assert (node.end_lineno or 0) - node.lineno < LONGEST, where
                given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                assert len([each for each in given if each.arg != "self"]) <= MOST_PARAMETERS, where


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.usefixtures("wide")
def test_every_option_is_in_a_titled_group(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command, text = command_of(name), help_of(name, capsys=capsys)
    titles = [title for title in re.findall(r"^(\S.*):$", text, re.MULTILINE) if title != "Arguments"]
    assert set(titles) <= TITLES
    assert titles == FIRST.get(name, titles)
    assert titles[-2:] == ["Output", GENERAL]
    shown = {}
    for section in re.split(r"^(?=\S.*:$)", text, flags=re.MULTILINE)[1:]:
        title = section.partition(":")[0]
        for flag in re.findall(r"^ {2}(?:-\w, | {4})(--[\w-]+)", section, re.MULTILINE):
            assert flag not in shown
            shown[flag] = title
    described = [pair for model in command.models.values() for pair in fields(model)]
    for field, meta, _ in described:
        if isinstance(meta, Option):
            flag = meta.flags[-1] if meta.flags else f"--{field.replace('_', '-')}"
            assert shown.pop(flag) == meta.group
            assert meta.help.endswith(".") and meta.help[0].islower() == (": " in meta.help.split()[0] + " ")
    assert shown == {"--help": GENERAL}
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.usefixtures("wide")
def test_help_has_a_line_for_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    lines = help_of(capsys=capsys).splitlines()
    assert not any("..." in line for line in lines[1:])
    assert not any("\b" in line or r"\b" in line for line in lines)
    for title, commands in GROUPS.items():
        start = lines.index(f"{title}:") + 1
        rows = lines[start : start + len(commands)]
        assert [row.split(maxsplit=1) for row in rows] == [list(row) for row in commands.items()]


def test_help_imports_no_command() -> None:
    """It is fast: neither onnx nor a command is loaded."""
    code = (
        "import sys; from graft.tools.cli import run; run(['--help']);"
        "print([name for name in sys.modules if name in ('onnx', 'onnxruntime', 'numpy', 'pydantic')"
        " or name.startswith(('graft.passes', 'graft.tools.commands.'))])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_line_of_a_command_begins_as_its_help(name: str) -> None:
    """Both begin with the same verb."""
    line = next(group[name] for group in cli.GROUPS.values() if name in group)
    assert (command_of(name).help or "").split()[0] == line.split()[0]


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("decompoze a.onnx", "decompose"),
        ("evalute a.onnx", "evaluate"),
        ("decompose a.onnx --data d.npz --kep 0.5 -o out", "--keep"),
        ("compose a.onnx --strategi trunk -o out", "--strategy"),
        ("decompose a.onnx --data d.npz --method contrst -o out", "contrast"),
        ("decompose a.onnx --data d.npz --compensate foldd -o out", "fold"),
        ("decompose a.onnx --data d.npz --keep-by mac -o out", "macs"),
        ("curve a.onnx --data d.npz --methods ablation,contrst -o out", "contrast"),
        ("compose a.onnx --strategy trunc -o out", "trunk"),
        ("replace a.onnx --class 3 --with b.onnx --scores calibrate -o out", "calibrated"),
    ],
)
def test_a_misspelt_name_gets_the_nearest_one(
    words: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words.split()) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"; did you mean '{meant}'?; see 'graft " in error


def test_a_name_like_no_other_gets_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["xyzzy"]) == 2
    assert capsys.readouterr().err == "graft: error: there is no command 'xyzzy'; see 'graft --help'\n"


@pytest.mark.parametrize(("quiet", "warnings"), [((), 1), (("-q",), 0), (("--quiet",), 0)])
@pytest.mark.parametrize(
    ("group", "words"),
    [
        ("graft.methods", "decompose a.onnx --data d.npz --method relevance -o out"),
        ("graft.methods", "decompose --help"),
        ("graft.methods", "compose --help"),
        ("graft.comparisons", "replace a.onnx --class a --with b.onnx --scores joint -o out"),
    ],
)
def test_a_broken_plug_in_warns_where_it_matters(
    group: str, words: str, quiet: tuple[str, ...], warnings: int, tmp_path: Path
) -> None:
    """Only a command that names methods loads them, and none warns in quiet."""
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\nbroken = no_such_module:Plain\n")
    code = "import sys; sys.path.insert(0, sys.argv[1]); from graft.tools.cli import run; run(sys.argv[2:])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), *words.split()[:1], *quiet, *words.split()[1:]],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    expected = 0 if words.startswith("compose") else warnings
    assert done.stderr.count("is left out") == expected, done.stderr


@pytest.mark.parametrize("flag", ["--false-positive-rate", "--false-alarms"])
def test_a_former_name_is_an_alias_that_help_leaves_out(
    flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = command_of("compose")
    context = command.make_context("compose", ["a.onnx", "-o", "out", flag, "0.1"])
    assert context.params["false_positive_rate"] == 0.1
    assert "--false-alarms" not in help_of("compose", capsys=capsys)


def test_options_are_click_parameters_of_their_fields() -> None:
    command = command_of("decompose")
    for parameter in command.params:
        assert isinstance(parameter, click.Option | click.Argument)
    context = command.make_context("decompose", ["m.onnx", "--data", "d.npz", "--keep", "50%", "-o", "out"])
    assert context.params["keep"] == 0.5
    assert context.params["round_to"] is None
    assert context.params["compensate"] == "refit"
