"""Mutants of a model's file: structured changes of the graph, or changed bytes."""

from __future__ import annotations

import os
import random
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from tests.fuzz import mutate_graph, mutate_growth, mutate_tensors
from tests.fuzz.mutate_text import mutate_bytes

MUTATIONS = (
    *(*mutate_graph.MUTATIONS, *mutate_tensors.MUTATIONS, *mutate_growth.MUTATIONS),
    *mutate_tensors.MUTATIONS,
)
TIMES = (1, 1, 1, 2, 2, 4)


def mutate(rng: random.Random, model: onnx.ModelProto) -> list[str]:
    """Change a model in place; the names of the changes."""
    done = []
    for _ in range(rng.choice(TIMES)):
        change = rng.choice(MUTATIONS)
        try:
            change(rng, model)
        except (ValueError, TypeError, OverflowError, DecodeError):
            continue  # it cannot be done to what an earlier one left
        done.append(change.__name__)
    return done


def mutate_file(rng: random.Random, path: Path) -> str:
    """Change a model file, and put beside it what external data may name; what was done."""
    content = path.read_bytes()
    if rng.random() < 0.15:
        path.write_bytes(mutate_bytes(rng, content))
        return "bytes"
    model = onnx.ModelProto.FromString(content)
    done = mutate(rng, model)
    if "move_outside" in done:
        _beside(path.parent)
    path.write_bytes(model.SerializeToString())
    return ", ".join(done)


def _beside(folder: Path) -> None:
    """Files that external data may name; ``outside.bin`` lies beside the working directory."""
    (folder / "data.bin").write_bytes(bytes(range(256)) * 64)
    if hasattr(os, "mkfifo"):
        os.symlink("../outside.bin", folder / "link.bin")
        os.mkfifo(folder / "pipe")
