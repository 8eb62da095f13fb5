"""Train the small recurrent classifier of this folder with PyTorch and write its files.

Graft never imports this script. It is here so that ``languages_torch.onnx`` can be made again and
so that anyone can see what the network is: which of ten languages is a short text in? It writes
three files beside itself:

* ``languages_torch.onnx``: the trained network, opset 18, dynamic batch, one file;
* ``languages_torch.yaml``: its card, with the accuracy that ONNX Runtime measures;
* ``languages_sample.npz``: a class-balanced sample of the texts, training and test part.

The texts are the messages of Django, which its wheel ships in a hundred languages. It needs
Python 3.11 or newer, ``torch==2.13.0`` (CPU), ``onnx``, ``onnxscript``, ``onnxruntime``
and ``numpy``::

    pip download --no-deps django==5.2.19
    python models/languages_torch.py --data django-5.2.19-py3-none-any.whl

A message and its translations are all in the training part or all in the test part. The seed is 0
throughout, one process and two threads are used, and the number of epochs was fixed beforehand; the
test texts only measure the result. The weights may differ a little between processors, because
floating-point sums are ordered differently.
"""

from __future__ import annotations

import argparse
import gettext
import hashlib
import html
import io
import itertools
import json
import math
import re
import textwrap
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch
from torch import Tensor, nn
from torch.nn import functional

Tokens = npt.NDArray[np.uint8]
Part = tuple[Tokens, npt.NDArray[np.int64]]

SEED = 0
THREADS = 2
LANGUAGES = {
    "da": "Danish",
    "de": "German",
    "es": "Spanish",
    "fi": "Finnish",
    "fr": "French",
    "hu": "Hungarian",
    "it": "Italian",
    "nl": "Dutch",
    "pl": "Polish",
    "tr": "Turkish",
}
ALPHABET = " 'abcdefghijklmnopqrstuvwxyzßàáâãäåæçèéêëìíîïñòóôõöøùúûüąćęğłńœśşźż\u0131"
"""The first is token 2; 0 fills up, 1 is any other character."""
LENGTH = 32
FEWEST = 12
"""Texts with fewer characters are left out."""
TEST_SHARE = 5
EMBEDDING, UNITS = 16, 64
EPOCHS = 12
BATCH = 128
PEAK_RATE = 0.01
WEIGHT_DECAY = 0.05
DROPOUT = 0.3
SAMPLE_TRAIN = 400
SAMPLE_TEST = 100

FILLED_IN = re.compile(r"%\(\w+\)\w|%\w|\{[^}]*\}|<[^>]*>|https?:\S*")
NOT_LETTERS = re.compile(r"(?:(?!')[\W\d_])+")
CARD = """\
graft: 1
name: ten languages by their letters, GRU (PyTorch)
input: {{name: letters, kind: tokens, vocabulary: letters of languages_torch}}
output: {{name: logits, kind: logits}}
labels: [{labels}]
expect: {{top1: {top1:.4f}}}
license: {license}
source: {source}
"""
LICENSE = (
    "weights as Graft itself; data Copyright (c) Django Software Foundation and individual contributors, "
    "BSD-3-Clause"
)
SOURCE = "trained by models/languages_torch.py on the translations in the wheel django 5.2.19"


def messages(wheel: Path, language: str) -> Iterator[tuple[str, str]]:
    """Messages of all catalogues of a language: the English text and the translation."""
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(f"/locale/{language}/LC_MESSAGES/django.mo"):
                catalogue = gettext.GNUTranslations(io.BytesIO(archive.read(name)))
                for key, text in catalogue._catalog.items():  # type: ignore[attr-defined, unused-ignore]
                    source = key[0] if isinstance(key, tuple) else key
                    if source and isinstance(text, str) and text != source:
                        yield source, text


def words(text: str) -> str:
    """A text in small letters, without what is to be filled in, marks, and digits."""
    kept = FILLED_IN.sub(" ", html.unescape(text).replace("\u2019", "'"))
    return " ".join(NOT_LETTERS.sub(" ", kept).replace("İ", "i").lower().split())


def pieces(text: str) -> Iterator[str]:
    """A text in pieces of whole words that are long enough and not too long."""
    for line in textwrap.wrap(words(text), LENGTH):
        if len(line) >= FEWEST:
            yield line


def overlapping(text: str) -> Iterator[str]:
    """As :func:`pieces`, from every word on the piece that begins there."""
    found = words(text).split()
    for first in range(len(found)):
        yield from itertools.islice(pieces(" ".join(found[first:])), 1)


def tokens(text: str) -> Tokens:
    """The letters of a text as numbers, filled up in front: (LENGTH,)."""
    found = [ALPHABET.find(letter) + 2 for letter in text]
    return np.array([0] * (LENGTH - len(found)) + found, np.uint8)


def read(wheel: Path) -> tuple[Part, Part]:
    """All texts of the training and the test part: tokens (n, LENGTH) and class numbers (n,)."""
    parts: list[dict[tuple[str, int], None]] = [{}, {}]
    for number, language in enumerate(LANGUAGES):
        for source, text in messages(wheel, language):
            test = hashlib.sha256(source.encode()).digest()[0] % TEST_SHARE == 0
            cut = pieces if test else overlapping
            parts[test].update(dict.fromkeys((piece, number) for piece in cut(text)))
    train, test_only = parts[0], parts[1].keys() - parts[0].keys()
    return _part([*train]), _part(sorted(test_only))


def _part(texts: list[tuple[str, int]]) -> Part:
    return np.stack([tokens(text) for text, _ in texts]), np.array([number for _, number in texts])


def balanced(labels: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.intp]:
    """Choose ``count`` indices of each class, in shuffled order."""
    rng = np.random.default_rng(SEED)
    chosen = [
        rng.choice(np.flatnonzero(labels == each), count, replace=False) for each in range(len(LANGUAGES))
    ]
    return rng.permutation(np.concatenate(chosen))


class LanguageNet(nn.Module):  # type: ignore[misc, unused-ignore]
    """An embedding, a GRU whose last state is all that counts, a linear layer."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.embedding = nn.Embedding(len(ALPHABET) + 2, EMBEDDING)
        self.recurrent = nn.GRU(EMBEDDING, UNITS, batch_first=True)
        self.dropout = nn.Dropout(DROPOUT)
        self.head = nn.Linear(UNITS, len(LANGUAGES))

    def forward(self, letters: Tensor) -> Tensor:
        """Map letters [batch, LENGTH] to logits [batch, 10]."""
        _, last = self.recurrent(self.dropout(self.embedding(letters)))
        logits: Tensor = self.head(self.dropout(last[0]))
        return logits


def train_model(texts: Tokens, labels: npt.NDArray[np.int64]) -> LanguageNet:
    """Train on every text of the training part and return the network in evaluation mode."""
    torch.manual_seed(SEED)
    torch.set_num_threads(THREADS)
    inputs, targets = torch.from_numpy(texts.astype(np.int64)), torch.from_numpy(labels)
    model = LanguageNet()
    model.train()
    steps = -(-len(inputs) // BATCH)
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=PEAK_RATE, total_steps=EPOCHS * steps)
    for epoch in range(1, EPOCHS + 1):
        total = 0.0
        order = torch.randperm(len(inputs))
        for start in range(0, len(inputs), BATCH):
            index = order[start : start + BATCH]
            loss = functional.cross_entropy(model(inputs[index]), targets[index])
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            total += loss.item() * len(index)
        print(f"epoch {epoch:2d}: loss {total / len(inputs):.4f}", flush=True)
    model.eval()
    return model


def export(model: LanguageNet, path: Path) -> None:
    """Write the trained network as one ONNX file with a dynamic batch."""
    program = torch.onnx.export(
        model,
        (torch.zeros(2, LENGTH, dtype=torch.int64),),
        dynamo=True,
        opset_version=18,
        input_names=["letters"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    if program is None:
        raise RuntimeError("the exporter returned nothing")
    proto = program.model_proto
    graph = proto.graph
    for part in (
        proto,
        graph,
        *graph.node,
        *graph.initializer,
        *graph.value_info,
        *graph.input,
        *graph.output,
    ):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    onnx.checker.check_model(proto, full_check=True)
    kinds = [node.op_type for node in proto.graph.node]
    if kinds.count("GRU") != 1:
        raise RuntimeError(f"the graph is not the one expected: {kinds}")
    onnx.save(proto, path)


def right(path: Path, part: Part) -> int:
    """Count the texts that ONNX Runtime classifies rightly."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"letters": part[0].astype(np.int64)})
    return int(np.sum(np.argmax(logits, axis=1) == part[1]))


def main() -> None:
    """Read the data, train, export, measure, and write the card and the sample."""
    parser = argparse.ArgumentParser(description="Train the language classifier of this folder.")
    parser.add_argument("--data", type=Path, required=True, help="the wheel of django")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder for the files")
    args = parser.parse_args()
    out: Path = args.out
    train, test = read(args.data)
    of_train, of_test = balanced(train[1], SAMPLE_TRAIN), balanced(test[1], SAMPLE_TEST)
    np.savez_compressed(
        out / "languages_sample.npz",
        x_train=train[0][of_train],
        y_train=train[1][of_train],
        x_test=test[0][of_test],
        y_test=test[1][of_test],
        class_names=np.array([*LANGUAGES.values()]),
    )
    print(f"{len(train[1])} texts to train with, {len(test[1])} to test with")

    path = out / "languages_torch.onnx"
    export(model := train_model(*train), path)

    count = right(path, test)
    card = CARD.format(
        labels=", ".join(LANGUAGES.values()),
        top1=math.floor(count / len(test[1]) * 10_000 + 1e-9) / 10_000,  # rounded down
        license=json.dumps(LICENSE),
        source=json.dumps(SOURCE),
    )
    (out / "languages_torch.yaml").write_text(card, encoding="utf-8")
    print(f"parameters: {sum(p.numel() for p in model.parameters())}")
    print(f"file: {path.stat().st_size} bytes")
    print(f"test texts: {count} of {len(test[1])} right")
    count = right(path, (test[0][of_test], test[1][of_test]))
    print(f"test texts of the sample: {count} of {len(of_test)} right")


if __name__ == "__main__":
    main()
