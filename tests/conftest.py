"""Options of the whole suite: the seed of random graphs, and one thread for onnxruntime."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy is imported

import onnxruntime as ort
import pytest
from hypothesis import core, settings

from graft.passes.base import Context, Declined
from graft.rewriter.runtimes import runtimes
from tests.seeds import VARIABLE, graph_seed


class OneThread(ort.InferenceSession):  # type: ignore[misc]
    """A session of one thread where nothing else was asked for: every core runs tests of its own."""

    def __init__(self, source: Any, sess_options: Any = None, *given: Any, **named: Any) -> None:
        options = ort.SessionOptions() if sess_options is None else sess_options
        if options.intra_op_num_threads == 0:
            options.intra_op_num_threads = 1
        super().__init__(source, options, *given, **named)


ort.InferenceSession = OneThread
settings.register_profile("graft", database=None, deadline=None, print_blob=True)
settings.load_profile("graft")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--graph-seed", type=int, help="seed of random graphs, to repeat a run")


def pytest_configure(config: pytest.Config) -> None:
    """Draw the seed before workers start, which take it from the environment."""
    if config.getoption("--graph-seed") is not None:
        os.environ[VARIABLE] = str(config.getoption("--graph-seed"))
    core.global_force_seed = graph_seed()


def pytest_report_header() -> str:
    return _seed()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say it at the end, too: the header is not printed with -q; and which runtimes were not looked at."""
    terminalreporter.write_line(_seed())
    missing = [name for name, each in runtimes().items() if not each.installed]
    if missing:
        install = "pip install '.[test,runtimes]'"
        terminalreporter.write_line(
            f"runtimes that are not installed and not tried: {', '.join(missing)}; {install}"
        )


def _seed() -> str:
    return f"random graphs: --graph-seed {graph_seed()}"


@pytest.fixture
def declining(monkeypatch: pytest.MonkeyPatch) -> Callable[[type], Declined]:
    """Let all passes of a class decline something."""

    def let(kind: Any) -> Declined:
        call, declined = kind.__call__, Declined(f"somewhere in {kind.__name__}", "a reason")

        def wrapped(self: Any, subject: Any, context: Context) -> Any:
            report = call(self, subject, context)
            return replace(report, declined=(*report.declined, declined))

        monkeypatch.setattr(kind, "__call__", wrapped)
        return declined

    return let


@pytest.fixture
def heard() -> Iterator[None]:
    """Child processes take signals, also where the tests run in the background, which ignores them."""
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    ignored = [number for number in numbers if before[number] == signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, lambda *_: None)  # ignored here as well, but not by children
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
