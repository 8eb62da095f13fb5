"""What is printed: control characters are shown, not obeyed; messages are short; every console takes it."""

import io
import logging
import re
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

from graft.rewriter.errors import GraftError
from graft.tools import cli, console, terminal
from graft.tools.commands import inspect

MODELS = Path(__file__).parents[2] / "models"
TOOLS = Path(terminal.__file__).parent
ESCAPES = "\x1b]0;title\x07\x1b[2K\r\n\x9b1mA\u202eB\u2028C"
SHOWN = "\\x1b]0;title\\x07\\x1b[2K\\r\\n\\x9b1mA\\u202eB\\u2028C"


@pytest.fixture(autouse=True)
def _handlers_as_before() -> Iterator[None]:
    log = logging.getLogger("graft")
    before, level = list(log.handlers), log.level
    yield
    log.handlers[:] = before
    log.setLevel(level)


def test_control_characters_are_shown() -> None:
    assert terminal.printable(ESCAPES) == SHOWN
    assert terminal.printable("zéro 一 👩‍👩‍👧 \\x1b") == "zéro 一 👩‍👩‍👧 \\x1b"


def test_every_way_of_printing(capsys: pytest.CaptureFixture[str]) -> None:
    console.note(ESCAPES)
    console.say(ESCAPES, hint=ESCAPES)
    console.table(ESCAPES, [ESCAPES], [[ESCAPES]])
    terminal.trace(f"first\n{ESCAPES[:5]}")
    out, err = capsys.readouterr()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\u2028]", out + err)
    assert out.count(SHOWN) == 4 and err.count(SHOWN) == 2
    assert len(err.splitlines()) == 3


def test_no_other_way_of_printing() -> None:
    """Text reaches a terminal through tools/terminal.py and the tables and bars of tools/console.py only."""
    found = {
        path.relative_to(TOOLS).as_posix()
        for path in TOOLS.rglob("*.py")
        if re.search(r"\bclick\.s?echo\(|(?<![\w.])print\(|\.write\(|print_exc", path.read_text("utf-8"))
    }
    assert found == {"terminal.py"}


def test_names_of_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = onnx.load(MODELS / "mnist_torch.onnx")
    for node in model.graph.node:
        node.name += "\x1b]0;title\x07\n[red]"
    onnx.save(model, tmp_path / "m.onnx")
    shutil.copy(MODELS / "mnist_torch.yaml", tmp_path / "m.yaml")
    assert cli.run(["inspect", str(tmp_path / "m.onnx")]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\\x1b]0;title\\x07\\n[red]" in out


@pytest.mark.parametrize(
    "line",
    [
        ["inspect", "no\x1b[2Kmodel.onnx"],
        ["in\x1b[2Kspect"],
        ["inspect", "--ca\x1b[2Krd"],
        ["compose", "-o", "x.onnx", "--strategy", "\x1b[2K"],
        ["inspect", "a", "b\x1b[2K"],
    ],
    ids=["path", "command", "option", "value", "argument"],
)
def test_what_the_command_line_says(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(line) == 2
    err = capsys.readouterr().err
    assert "\x1b" not in err and "\\x1b[2K" in err and len(err.splitlines()) == 1


def test_messages_have_500_characters() -> None:
    assert terminal.shortened("a b", "c") == ("a b", "c")
    name = "n" * 5000
    message, hint = terminal.shortened(
        f"cannot write /x/{name}.onnx: File name too long", "choose another -o"
    )
    assert len(message) + len(hint) + 2 == 500
    assert re.fullmatch(r"cannot write /x/n+\.\.\.n+\.onnx: File name too long", message)
    assert hint == "choose another -o"


def test_long_names_give_way_evenly() -> None:
    message, _ = terminal.shortened(f"{'a' * 300} and {'b' * 900} differ", "", 200)
    assert re.fullmatch(r"a+\.\.\.a+ and b+\.\.\.b+ differ", message) and len(message) == 200


def test_long_text_of_short_words() -> None:
    message, hint = terminal.shortened("word " * 900 + "reason", "do this", 300)
    assert len(message) + len(hint) + 2 == 300
    assert message.startswith("word word") and message.endswith("reason") and hint == "do this"
    message, hint = terminal.shortened("m " * 900, "h " * 900, 300)
    assert len(message) + len(hint) + 2 == 300


def test_a_long_error(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise GraftError("some-code", f"expected x, found {'y' * 9000}", "correct it")

    monkeypatch.setattr(inspect.command, "callback", fail)
    assert cli.run(["inspect", "x.onnx"]) == 2
    err = capsys.readouterr().err
    assert len(err) <= terminal.LONGEST + 1 and err.endswith("; correct it\n")


def test_a_console_that_cannot_show_a_label(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "ascii", "strict"))
    with terminal.prepared():
        console.note("zéro")
        console.table("一", ["a"], [["é"]])
        sys.stdout.flush()
    assert raw.getvalue().decode("ascii").split() == ["z\\xe9ro", "\\u4e00", "a", "\\xe9"]


def test_warnings_of_libraries_are_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.prepared():
        warnings.simplefilter("always")
        warnings.warn("overflow encountered", RuntimeWarning, stacklevel=1)
        logging.getLogger("some.library").warning("line")
    assert capsys.readouterr() == ("", "")
