"""The command ``graft``: finds the subcommand, turns errors into one line and an exit code."""

from __future__ import annotations

import contextlib
import errno
import logging
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

from graft.rewriter.errors import GraftError, nearest
from graft.rewriter.interrupts import INTERRUPTED, listen
from graft.rewriter.memory import lacking
from graft.tools import terminal

DONE, CHECK_FAILED, BAD_REQUEST, PIPE_CLOSED = 0, 1, 2, 141
"""Exit codes of every command, and :data:`INTERRUPTED`."""
INSPECTED = 2.5
"""Memory that 'graft inspect' takes, over the weights."""
FATAL = 4
"""Severity of onnxruntime's log."""

ENDING = ("SIGTERM", "SIGHUP", "SIGBREAK")
"""Signals that ask a process to end; Windows has the last one, and its own Ctrl-C."""

FULL = {errno.ENOSPC, errno.EIO, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}

GROUPS = {
    "Start": {
        "demo": "Build one classifier from parts of three networks",
        "card": "Draft the card of a model: its inputs, its outputs and its labels",
        "inspect": "List channel groups: what can be pruned, what cannot, and why",
    },
    "Prune": {
        "profile": "Record channel statistics for every class, in one pass",
        "plan": "Choose the channels that a set of classes needs",
        "decompose": "Prune a classifier to a smaller module for each class",
        "curve": "Plot accuracy against MACs for several methods and budgets",
    },
    "Combine": {
        "compose": "Join modules into a new classifier, without training",
        "replace": "Replace a class: by another module, or from samples",
        "add": "Add a class: of another module, or from samples",
        "remove": "Remove classes",
    },
    "Measure": {
        "evaluate": "Measure accuracy, size and latency, beside a baseline",
        "predict": "Classify images or arrays",
        "verify": "Check that other runtimes, and the parent, give the same numbers",
    },
}
"""Every command by topic, with its line in ``graft --help``, which imports none of them."""

COMMANDS = tuple(name for group in GROUPS.values() for name in group)


def _version() -> str:
    try:
        return version("onnx-graft")
    except PackageNotFoundError:
        return "unknown"


class _PipeClosedError(Exception):
    """Nobody reads the output any more; click and rich would end with exit code 1."""


@contextlib.contextmanager
def _pipe_closed() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise _PipeClosedError from error
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):
            raise _PipeClosedError from end
        raise
    except KeyboardInterrupt:
        if sys.stderr is not None and sys.stderr.isatty():  # click ends the line, on which ^C stands
            raise
        raise click.Abort from None


class _Commands(click.Group):
    """Imports the module of a command only when the command is run: ``graft --help`` stays fast."""

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        with _pipe_closed():
            return super().make_context(*args, **options)

    def invoke(self, ctx: click.Context) -> Any:
        with _pipe_closed():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = import_module(f"graft.tools.commands.{name}").command
        runtime = sys.modules.get("onnxruntime")
        if runtime is not None:  # what it has to say comes as an error
            runtime.set_default_logger_severity(FATAL)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"there is no command '{args[0]}'{nearest(args[0], COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, COMMANDS))
        for title, commands in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), line) for name, line in commands.items()])


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with 'graft demo'. Every command has --help with an example, and --json.",
)
@click.version_option(_version(), prog_name="graft")
def graft() -> None:
    """Structured pruning of ONNX classifiers, without training.

    Graft prunes a trained classifier to smaller modules, one for each class or set of classes, and joins
    modules, also of different networks, into new classifiers.
    """


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line ``arguments`` (default: those of the process); the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    log = logging.getLogger("graft")
    log.handlers[:] = [_Lines()]
    # Options that name plug-ins load them, and warn, while the command line is still being read.
    log.setLevel(logging.ERROR if {"-q", "--quiet"} & set(given) else logging.WARNING)
    try:
        with terminal.prepared():
            result = graft.main(given, prog_name="graft", standalone_mode=False, obj=given)
        return result if isinstance(result, int) else DONE
    except GraftError as error:
        return _fail(given, error.code, error.message, error.hint)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "graft"
        return _fail(given, "usage", _usage(error), f"see '{command} --help'")
    except (click.Abort, KeyboardInterrupt):
        if "--json" in given:
            _print_error("interrupted", "interrupted", "run it again")
        terminal.say("interrupted")
        return INTERRUPTED
    except _PipeClosedError:
        terminal.close_stdout()
        return PIPE_CLOSED
    except OSError as error:
        if isinstance(error, FileNotFoundError) and _is_nowhere():
            return _fail(given, "folder-missing", "the current folder was deleted", "change to another one")
        return _unusable(given, error)
    except MemoryError as error:
        short = lacking(error, INSPECTED * sum(path.stat().st_size for path in _models(given)))
        return _fail(given, short.code, short.message, short.hint)
    except Exception as error:
        return _unexpected(given, error)


def _is_nowhere() -> bool:
    """Return whether the current folder is gone; libraries ask for it when they are imported."""
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


def _unexpected(given: Sequence[str], error: Exception) -> int:
    """Report an error that no rule foresaw; where a model is one that onnxruntime does not run, as that."""
    from graft.rewriter.run.unrunnable import unrunnable  # imports onnxruntime, which --help does not need

    for path in _models(given):
        with terminal.prepared():
            reason = unrunnable(path)
        if reason:
            hint = "check the model with onnxruntime, or export it again"
            return _fail(given, "model-not-runnable", f"{path}: {reason}", hint)
    name = f"{type(error).__name__}: {error}".splitlines()[0][:300]
    return _fail(given, "internal", f"unexpected {name}", "add --debug to see where, and report it")


def _models(given: Sequence[str]) -> Iterator[Path]:
    """Yield the model files that a command line names, alone or by a folder of modules."""
    for word in given:
        path = Path(word.rpartition("=")[2])
        try:
            if path.suffix == ".onnx" and path.is_file():
                yield path
            elif path.is_dir():
                yield from sorted(path.glob("*.onnx"))
        except (OSError, ValueError):
            continue


def main() -> None:
    """Entry point of the console script: signals that ask it to end do what Ctrl-C does."""
    listen()
    for name in ENDING:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores one of them
            signal.signal(number, signal.default_int_handler)
    try:
        code = run()
        for number in signal.valid_signals():
            if signal.getsignal(number) == signal.default_int_handler:  # what is left to do is to end
                signal.signal(number, signal.SIG_DFL)
    except KeyboardInterrupt:  # asked twice
        code = INTERRUPTED
    sys.exit(code)


class _Lines(logging.Handler):
    """Log records as lines on standard error; a warning that comes again says nothing new."""

    def __init__(self) -> None:
        super().__init__()
        self._warned: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        message, warning = record.getMessage(), record.levelno >= logging.WARNING
        if warning and message in self._warned:
            return
        self._warned |= {message} if warning else set()
        terminal.say(message, "graft: warning: " if warning else "graft: ")


def _usage(error: click.UsageError) -> str:
    """Return what is wrong with a command line."""
    if isinstance(error, click.NoSuchOption):
        near = nearest(error.option_name, error.possibilities or ())
        return f"there is no option '{error.option_name}'{near}"
    message = error.format_message().rstrip(".").replace("Got unexpected extra", "there is no place for the")
    return message[:1].lower() + message[1:]


def _fail(arguments: Sequence[str], code: str, message: str, hint: str) -> int:
    if "--debug" in arguments:
        terminal.trace(traceback.format_exc())
    message, hint = (terminal.printable(" ".join(each.split())) for each in (message, hint))
    message, hint = terminal.shortened(message, hint)
    if "--json" in arguments:
        _print_error(code, message, hint)
    terminal.say(message, "graft: error: ", hint)
    return BAD_REQUEST


def _unusable(arguments: Sequence[str], error: OSError) -> int:
    """Return the exit code of a command that a path ends which nobody can use, or a full disk."""
    if error.errno not in FULL:
        if error.filename is None or error.strerror is None:
            return _unexpected(arguments, error)
        what = f"cannot use {error.filename}: {error.strerror}"
        return _fail(arguments, "path-unusable", what, "check the path, and who may read and write there")
    terminal.close_stdout()
    what = error.filename or "what there is to print"
    return _fail(
        arguments, "output-unwritable", f"cannot write {what}: {error.strerror}", "free some space there"
    )


def _print_error(code: str, message: str, hint: str) -> None:
    """Print an error as JSON; where nobody reads it, or the disk is full, standard error is left."""
    error = {"schema": "graft/error/1", "code": code, "message": message, "hint": hint}
    try:
        terminal.print_json(error)
    except OSError:
        terminal.close_stdout()
