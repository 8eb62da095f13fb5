"""Train the small translator of this folder with PyTorch and write its files.

Graft never imports this script. It is here so that ``translate_torch.onnx`` can be made again and so that
anyone can see what the network is: one encoder-decoder that writes an English sentence in French, German or
Italian; the first word that it is fed says in which. It writes four files beside itself:

* ``translate_torch.onnx``: the trained network, opset 18, dynamic batch and number of steps, one file;
* ``translate_torch.yaml``: its card, with the share of words that ONNX Runtime gets right;
* ``translate_words.txt``: the words that it writes, one a line, in the order of its columns;
* ``translate_sample.npz``: all sentences, as numbers of words, training and test part.

The sentences are those of Tatoeba (https://tatoeba.org) in four aligned columns, licence CC BY 2.0 FR, as
selected by Imtiaz et al. (ICSE 2023): a text file, xz-compressed, with English, French, German and Italian
between tabs. It needs Python 3.11 or newer, ``torch==2.13.0`` (CPU), ``onnx``, ``onnxscript``,
``onnxruntime`` and ``numpy``::

    python models/translate_torch.py --data translation/tatoeba4.txt.xz

A sentence and its translations are all in the training part or all in the test part. The number of epochs,
dropout and label smoothing were chosen on 500 training sentences that were held out; the test sentences
only measure the result. The seed is 0, one thread is used. The weights may differ a little between
processors, because floating-point sums are ordered differently.
"""

from __future__ import annotations

import argparse
import json
import lzma
import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch
from torch import Tensor, nn
from torch.nn import functional

Numbers = npt.NDArray[np.int64]
Row = list[list[str]]
"""The words of a sentence in English, French, German and Italian."""

SEED = 0
THREADS = 1
LANGUAGES = {"French": "<fr>", "German": "<de>", "Italian": "<it>"}
"""Each language, and the word that an answer in it begins with."""
WORD = re.compile(r"[\w']+|[.,!?]")
PADDING, UNKNOWN, END = range(3)
SPECIAL = ["(padding)", "(unknown)", "(end)"]
ENGLISH_WORDS, TARGET_WORDS = 1000, 900
"""The most frequent words that are known: of English, and of each other language."""
LONGEST_SOURCE, LONGEST_TARGET = 6, 8
TEST_SENTENCES, SPLIT_SEED = 600, 19
EMBEDDING, UNITS = 64, 128
DROPOUT, SMOOTHING = 0.2, 0.1
EPOCHS, BATCH = 28, 128
RATE, LAST_RATE = 2e-3, 5e-5
CARD = """\
graft: 1
name: English to French, German and Italian, GRU encoder-decoder (PyTorch)
inputs:
  - {{name: source, kind: tokens, vocabulary: English words of translate_torch, unknown: 1}}
  - {{name: target, kind: tokens, vocabulary: words of translate_torch, unknown: 1}}
output: {{name: logits, kind: logits, steps: true}}
labels: translate_words.txt
decoder: {{input: target, starts: {{{starts}}}, end: {end}, padding: {padding}, longest: {longest}}}
expect: {{top1: {top1:.4f}}}
license: {license}
source: {source}
"""
LICENSE = (
    "weights as Graft itself; sentences by the contributors of Tatoeba (https://tatoeba.org), CC BY 2.0 FR"
)
SOURCE = "trained by models/translate_torch.py on sentences of Tatoeba selected by Imtiaz et al. (ICSE 2023)"


def read(file: Path) -> list[Row]:
    """Return the words of all sentences, in the order of the file."""
    with lzma.open(file, "rt", encoding="utf-8", newline="\n") as lines:
        return [[WORD.findall(text.lower()) for text in line.rstrip("\n").split("\t")] for line in lines]


def most_frequent(texts: Iterable[Sequence[str]], count: int) -> list[str]:
    """Return the most frequent words; of equally frequent ones those seen first."""
    return [word for word, _ in Counter(word for text in texts for word in text).most_common(count)]


def vocabularies(rows: Sequence[Row]) -> tuple[dict[str, int], dict[str, int]]:
    """Return the numbers of English words, and of the words of all other languages together."""
    english = ["(padding)", "(unknown)", *most_frequent((row[0] for row in rows), ENGLISH_WORDS)]
    others = [*SPECIAL, *LANGUAGES.values()]
    for column in range(1, 1 + len(LANGUAGES)):
        others += most_frequent((row[column] for row in rows), TARGET_WORDS)
    return {word: n for n, word in enumerate(english)}, {
        word: n for n, word in enumerate(dict.fromkeys(others))
    }


def split(
    rows: Sequence[Row], english: dict[str, int], others: dict[str, int]
) -> tuple[list[Row], list[Row]]:
    """Return the sentences that are short and of known words alone, to train with and to test with."""
    found: dict[str, Row] = {}
    for row in rows:
        short = len(row[0]) <= LONGEST_SOURCE and all(len(text) <= LONGEST_TARGET for text in row[1:])
        if short and set(row[0]) <= english.keys() and all(set(text) <= others.keys() for text in row[1:]):
            found.setdefault(" ".join(row[0]), row)
    order = sorted(found)
    random.seed(SPLIT_SEED)
    random.shuffle(order)
    chosen = [found[text] for text in order]
    return chosen[TEST_SENTENCES:], chosen[:TEST_SENTENCES]


def numbers(rows: Sequence[Row], english: dict[str, int], others: dict[str, int]) -> dict[str, Numbers]:
    """Return the sentences in each language in turn: what is read, what is written, and what comes next."""
    count, steps = len(rows) * len(LANGUAGES), LONGEST_TARGET + 1
    found = {
        "source": np.zeros((count, LONGEST_SOURCE), np.int64),
        "target": np.zeros((count, steps), np.int64),
        "next": np.zeros((count, steps), np.int64),
    }
    for place in range(count):
        row, language = divmod(place, len(LANGUAGES))
        source = [english[word] for word in rows[row][0]]
        found["source"][place, LONGEST_SOURCE - len(source) :] = source[::-1]
        written = [others[word] for word in rows[row][1 + language]]
        start = others[[*LANGUAGES.values()][language]]
        found["target"][place, : len(written) + 1] = [start, *written]
        found["next"][place, : len(written) + 1] = [*written, END]
    return found


class Translator(nn.Module):  # type: ignore[misc, unused-ignore]
    """A GRU that reads the sentence, and one that starts from its last state and writes."""

    def __init__(self, english: int, others: int) -> None:
        """Make the layers.

        Args:
            english: number of words that are read.
            others: number of words that are written.
        """
        super().__init__()
        self.read = nn.Embedding(english, EMBEDDING)
        self.written = nn.Embedding(others, EMBEDDING)
        self.encoder = nn.GRU(EMBEDDING, UNITS, batch_first=True)
        self.decoder = nn.GRU(EMBEDDING, UNITS, batch_first=True)
        self.dropout = nn.Dropout(DROPOUT)
        self.head = nn.Linear(UNITS, others)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Map words [batch, 6] and [batch, steps] to logits [batch, steps, words]."""
        _, last = self.encoder(self.dropout(self.read(source)))
        states, _ = self.decoder(self.dropout(self.written(target)), last)
        logits: Tensor = self.head(self.dropout(states))
        return logits


def train_model(data: dict[str, Numbers], english: int, others: int) -> Translator:
    """Train by teacher forcing and return the network in evaluation mode."""
    torch.manual_seed(SEED)
    torch.set_num_threads(THREADS)
    source, target, following = (torch.from_numpy(data[name]) for name in ("source", "target", "next"))
    model = Translator(english, others)
    model.train()
    steps = EPOCHS * -(-len(source) // BATCH)
    optimiser = torch.optim.Adam(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, LAST_RATE / RATE, steps)
    for epoch in range(1, EPOCHS + 1):
        total, order = 0.0, torch.randperm(len(source))
        for index in order.split(BATCH):
            logits = model(source[index], target[index]).flatten(0, 1)
            loss = functional.cross_entropy(
                logits, following[index].flatten(), ignore_index=PADDING, label_smoothing=SMOOTHING
            )
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            total += loss.item() * len(index)
        print(f"epoch {epoch:2d}: loss {total / len(source):.4f}", flush=True)
    model.eval()
    return model


def export(model: Translator, path: Path) -> None:
    """Write the trained network as one ONNX file with a dynamic batch and number of steps."""
    batch, steps = torch.export.Dim("batch"), torch.export.Dim("steps")
    example = (
        torch.zeros(2, LONGEST_SOURCE, dtype=torch.int64),
        torch.zeros(2, LONGEST_TARGET + 1, dtype=torch.int64),
    )
    program = torch.onnx.export(
        model,
        example,
        dynamo=True,
        opset_version=18,
        input_names=["source", "target"],
        output_names=["logits"],
        dynamic_shapes=({0: batch}, {0: batch, 1: steps}),
        verbose=False,
    )
    if program is None:
        raise RuntimeError("the exporter returned nothing")
    proto = program.model_proto
    graph = proto.graph
    of_the_graph = (*graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output)
    for part in (proto, graph, *of_the_graph):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    onnx.checker.check_model(proto, full_check=True)
    kinds = [node.op_type for node in graph.node]
    if kinds.count("GRU") != 2:
        raise RuntimeError(f"the graph is not the one expected: {kinds}")
    onnx.save(proto, path)


def words_right(model: Translator, path: Path, data: dict[str, Numbers]) -> float:
    """Return the share of next words that ONNX Runtime gets right; the numbers have to be PyTorch's."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {name: data[name] for name in ("source", "target")})
    with torch.no_grad():
        ours = model(torch.from_numpy(data["source"]), torch.from_numpy(data["target"])).numpy()
    np.testing.assert_allclose(logits, ours, atol=1e-3)
    counted = data["next"] != PADDING
    return float((logits.argmax(axis=-1) == data["next"])[counted].mean())


def main() -> None:
    """Read the data, train, export, measure, and write card, words and sample."""
    parser = argparse.ArgumentParser(description="Train the translator of this folder.")
    parser.add_argument("--data", type=Path, required=True, help="the sentences, tatoeba4.txt.xz")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder for the files")
    args = parser.parse_args()
    out: Path = args.out
    rows = read(args.data)
    english, others = vocabularies(rows)
    train, test = (numbers(part, english, others) for part in split(rows, english, others))
    print(f"{len(train['next'])} pairs to train with, {len(test['next'])} to test with")
    arrays = {
        f"{axis}_{name}{'' if axis == 'y' else f'.{key}'}": part[key].astype(np.int16)
        for name, part in (("train", train), ("test", test))
        for axis, key in (("x", "source"), ("x", "target"), ("y", "next"))
    }
    np.savez_compressed(out / "translate_sample.npz", **arrays)  # type: ignore[arg-type, unused-ignore]
    (out / "translate_words.txt").write_text("\n".join(others) + "\n", encoding="utf-8")

    path = out / "translate_torch.onnx"
    export(model := train_model(train, len(english), len(others)), path)
    right = words_right(model, path, test)
    card = CARD.format(
        starts=", ".join(f"{name}: {others[word]}" for name, word in LANGUAGES.items()),
        end=END,
        padding=PADDING,
        longest=LONGEST_TARGET + 1,
        top1=math.floor(right * 10_000 + 1e-9) / 10_000,  # rounded down
        license=json.dumps(LICENSE),
        source=json.dumps(SOURCE),
    )
    (out / "translate_torch.yaml").write_text(card, encoding="utf-8")
    print(f"parameters: {sum(p.numel() for p in model.parameters())}")
    print(f"file: {path.stat().st_size} bytes")
    print(f"next words of the test sentences: {right:.2%} right")


if __name__ == "__main__":
    main()
