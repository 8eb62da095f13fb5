"""Mutants of command lines: values that options may not have, options of other commands, other files."""

from __future__ import annotations

import random

from tests.fuzz.mutate_text import NUMBERS, WORDS

VALUES = (
    *("0", "-1", "1", "0.5", "50%", "101%", "nan", "inf", "-inf", "1e400", "", " ", "99999", "2147483648"),
    *("18446744073709551616", "9" * 400, "x", "ant", "ant,ant", "ant,bee", "(other)", "*", "**", "[", "a=b"),
    *(
        "x:1,3",
        "x:-1",
        "x:0,0",
        "x:99999999999,2",
        "x:" + "1," * 900,
        "=",
        "=0.5",
        "*=0.5",
        "*=nan",
        "@no.txt",
    ),
    *("@data.npz", "@/dev/zero", "@pipe", ".", "..", "/", "/dev/null", "/dev/zero", "data.npz", "model.onnx"),
    *(
        "model.yaml",
        "images",
        "modules",
        "cpu",
        "cuda",
        "cpu,cpu",
        "abacus",
        "train",
        "test",
        "é",
        "\x1b[31m",
    ),
)
FLAGS = (
    *(
        "--together",
        "--other",
        "--no-rest",
        "--mirror",
        "--no-verify",
        "--dry-run",
        "--json",
        "--quiet",
        "-q",
    ),
    *("--verbose", "-v", "--force", "--joint", "--continuous", "--strict-providers", "--help", "--nothing"),
)
NAMED = (
    *("--classes", "--keep", "--keep-by", "--round-to", "--max-drop", "--plan", "--method", "--compensate"),
    *(
        "--profile",
        "--data",
        "--split",
        "--samples-per-class",
        "--ignore-label",
        "--test-split",
        "--providers",
    ),
    *(
        "--threads",
        "--seed",
        "--opset",
        "--ir-version",
        "--input-shape",
        "--card",
        "--freeze",
        "--keep-layer",
    ),
    *("--batch", "--min-top1", "--baseline", "--class", "--with", "--rename", "--scores", "--input", "-o"),
    *("--strategy", "--parent", "--false-positive-rate", "--input-type", "--plan-time", "--memory"),
)
CHOICES = {
    "--method": ("ablation", "relevance", "contrast", "activity", "magnitude", "random"),
    "--compensate": ("none", "mean", "fold", "refit"),
    "--keep-by": ("macs", "parameters", "latency"),
    "--scores": ("joint", "calibrated", "typicality", "odds"),
    "--strategy": ("auto", "trunk", "branches"),
    "--input": ("raw", "parent"),
    "--opset": ("11", "13", "17", "21", "99"),
    "--ir-version": ("4", "8", "10", "99"),
}


def mutate_options(rng: random.Random, arguments: list[str]) -> tuple[list[str], str]:
    """A changed command line, and what was done."""
    found = list(arguments)
    done = []
    for _ in range(rng.choice([1, 1, 2, 3])):
        how = rng.choice(["value", "value", "add", "add", "flag", "drop", "swap", "argument"])
        at = rng.randrange(1, len(found)) if len(found) > 1 else 0
        if how == "value":
            found[at] = _value(rng, found[at - 1])
        elif how == "add":
            name = rng.choice(NAMED)
            found += [name, _value(rng, name)]
        elif how == "flag":
            found.insert(at, rng.choice(FLAGS))
        elif how == "drop":
            del found[at]
        elif how == "swap":
            other = rng.randrange(1, len(found)) if len(found) > 1 else 0
            found[at], found[other] = found[other], found[at]
        else:
            found.insert(at, _value(rng, ""))
        done.append(how)
    return [each.replace("\0", "") for each in found], ", ".join(done)  # an argument ends at a zero


def _value(rng: random.Random, name: str) -> str:
    if name in CHOICES and rng.random() < 0.7:
        return rng.choice(CHOICES[name])
    return str(rng.choice(rng.choice([VALUES, VALUES, WORDS, NUMBERS])))
