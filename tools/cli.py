"""The command ``graft``: finds the subcommand, turns errors into one line and an exit code."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

import click

from graft.rewriter.errors import GraftError
from graft.tools.exits import BAD_REQUEST, DONE, INTERRUPTED

COMMANDS = (
    *("demo", "card", "profile", "plan", "decompose", "compose"),
    *("replace", "add", "remove", "evaluate", "curve", "predict", "inspect"),
)


def _version() -> str:
    try:
        return version("onnx-graft")
    except PackageNotFoundError:
        return "unknown"


class _Commands(click.Group):
    """Imports a command's module only when it is asked for: ``graft --help`` stays fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = import_module(f"graft.tools.commands.{name}").command
        return command


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with 'graft demo'. Every command has --help with an example, and --json.",
)
@click.version_option(_version(), prog_name="graft")
def graft() -> None:
    r"""Cut trained ONNX classifiers into per-class modules, and join modules into new classifiers.

    \b
    graft profile    what does every channel do for every class?
    graft decompose  cut the channels that a class needs out as a smaller model, a module
    graft compose    join modules into a new classifier, without training
    graft replace    let another module decide a class (add, remove: one more, one less)
    graft evaluate   accuracy, size and speed, beside a baseline
    """


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line ``arguments`` (default: those of the process); the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    logging.getLogger("graft").handlers[:] = [_Lines()]
    try:
        result = graft.main(given, prog_name="graft", standalone_mode=False)
        return result if isinstance(result, int) else DONE
    except GraftError as error:
        return _fail(given, error.code, error.message, error.hint)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "graft"
        return _fail(given, "usage", error.format_message().rstrip("."), f"see '{command} --help'")
    except (click.Abort, KeyboardInterrupt):
        if "--json" in given:
            _print_error("interrupted", "interrupted", "run it again")
        click.echo("graft: interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        return INTERRUPTED
    except MemoryError:
        return _fail(given, "memory", "not enough memory", "use fewer samples or a smaller model")
    except Exception as error:
        name = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        return _fail(given, "internal", f"unexpected {name}", "add --debug to see where, and report it")


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run())


class _Lines(logging.Handler):
    """Log records as lines on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        word = "warning: " if record.levelno >= logging.WARNING else ""
        click.echo(f"graft: {word}{record.getMessage()}", err=True)


def _fail(arguments: Sequence[str], code: str, message: str, hint: str) -> int:
    if "--debug" in arguments:
        traceback.print_exc()
    message = " ".join(message.split())
    if "--json" in arguments:
        _print_error(code, message, hint)
    click.echo(f"graft: error: {message}{f'; {hint}' if hint else ''}", err=True)
    return BAD_REQUEST


def _print_error(code: str, message: str, hint: str) -> None:
    error = {"schema": "graft/error/1", "code": code, "message": message, "hint": hint}
    click.echo(json.dumps(error))
