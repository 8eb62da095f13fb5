"""Every kind of file that Graft writes, in every runtime of the extra ``runtimes``."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from graft.rewriter.graph.model import Model
from graft.rewriter.runtimes import runtimes
from graft.rewriter.runtimes.trial import Trial
from graft.rewriter.runtimes.verification import TOLERANCE, Verdict, Verification
from tests.runtimes.made import FAMILIES, Workshop

OTHERS = ("openvino", "tract", "mnn")
HERE = [name for name in OTHERS if runtimes()[name].installed]
ZIPMAP, ML, SLICE = "ZipMap", "ai.onnx.ml in front of the network", "a Slice with steps"
SCORES = "other scores in some runs, without an error"
UNABLE = {
    **{("digits_sklearn", name): ZIPMAP for name in OTHERS},
    **{("mlp_sklearn", name): ML for name in OTHERS},
    ("levit_dynamo", "tract"): SLICE,
    ("bert_torchscript", "mnn"): SCORES,
}
"""What runtimes cannot do with parents. Where it is the ZipMap alone, files without it are asked for."""


@pytest.mark.parametrize("name", OTHERS)
def test_the_runtime_is_here(name: str) -> None:
    """Say which runtimes are not looked at."""
    found = runtimes()[name]
    if not found.installed:
        pytest.skip(f"{name} is not installed: {found.command}, or '.[test,runtimes]' for all of them")
    assert found.version != "unknown"


@functools.cache
def verdicts(path: Path) -> dict[str, Verdict]:
    """What runtimes make of a file."""
    model = Model.load(path)
    asked = [runtimes()[name] for name in ("onnxruntime", *HERE)]
    verification = Verification(asked, batch=3, threads=1, timed=False)
    own = verification.subject(path, model, Trial.drawn(model, 4))
    return {each.name: each for each in verification.measure(own)}


@pytest.mark.skipif(
    not HERE, reason="no runtime beside onnxruntime is installed: pip install '.[test,runtimes]'"
)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_numbers_in_every_runtime(family: str, shop: Workshop) -> None:
    made = FAMILIES[family](shop)
    everyone = sorted({each for _, parents in made.values() for each in parents})
    wrong = [
        f"{parent.stem} in {name}: {_said(verdict)}"
        for parent in everyone
        for name, verdict in verdicts(parent).items()
        if verdict.holds(TOLERANCE) == ((parent.stem, name) in UNABLE)
        and UNABLE.get((parent.stem, name)) != SCORES
    ]
    assert not wrong, "\n".join(wrong)
    for kind, (path, parents) in made.items():
        for name, verdict in verdicts(path).items():
            able_to = all(UNABLE.get((parent.stem, name), ZIPMAP) == ZIPMAP for parent in parents)
            if able_to and not verdict.holds(TOLERANCE):
                wrong.append(f"{kind} in {name}: {_said(verdict)}")
    assert not wrong, "\n".join(wrong)


def _said(verdict: Verdict) -> str:
    return verdict.error or f"{verdict.difference}"
