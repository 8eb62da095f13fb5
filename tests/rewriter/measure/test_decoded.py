"""What an encoder-decoder writes, and how good that is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graft.passes.base import Context
from graft.passes.cut.language import Restrict
from graft.rewriter.errors import GraftError
from graft.rewriter.measure import translation
from graft.rewriter.measure.decoded import Decoded, decoded
from graft.rewriter.measure.translation import bleu, chrf
from graft.rewriter.measure.writing import write
from graft.rewriter.run.decoding import Decoding
from tests import small, translator
from tests.translator import WORDS


def test_answers_and_references_are_words() -> None:
    model = translator.model(3)
    samples, found = translator.samples(model, 10), translator.arrays(10)
    red, blue = decoded(model, samples, small.CPU)
    assert (red.language, blue.language) == ("Red", "Blue") and len(red.answers) == len(blue.answers) == 5
    assert blue.references[0] == tuple(WORDS[n] for n in found["y"][1] if n > translator.END)
    answers = Decoding(model, small.CPU).answers({"source": found["source"]}, found["target"][:, 0])
    assert red.answers == tuple(tuple(WORDS[n] for n in each) for each in answers[::2])


def test_references_keep_words_that_a_module_lacks() -> None:
    model = translator.model(3)
    fewer = translator.samples(model, 6)
    module = Restrict(("Red",))(model, Context(samples=fewer, device=small.CPU)).model
    assert len(module.require_card().labels) < 10
    (red,) = decoded(module, translator.samples(module, 40), small.CPU)
    (whole, _) = decoded(model, translator.samples(model, 40), small.CPU)
    assert red.references == whole.references


def test_figures() -> None:
    texts = (("a", "b", "c", "d", "e"), ("f", "g"))
    same = Decoded("Red", texts, texts).figures()
    assert same["exact"] == 1.0 and same["samples"] == 2
    half = Decoded("Red", (texts[0], ("f", "h")), texts).figures()
    assert half["exact"] == 0.5


def test_bleu_and_chrf() -> None:
    """Four of five words, three of four pairs, two of three triples, one of two quadruples: 0.669."""
    pytest.importorskip("sacrebleu")
    answer, reference = [("a", "b", "c", "d", "x")], [("a", "b", "c", "d", "e")]
    assert bleu(answer, reference) == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)
    assert bleu(reference, reference) == pytest.approx(100)
    assert chrf(reference, reference) == pytest.approx(100) and chrf(answer, reference) < 90


def test_without_sacrebleu_there_is_no_bleu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translation.importlib.util, "find_spec", lambda _: None)
    assert Decoded("Red", ((),), ((),)).figures()["bleu"] is None
    with pytest.raises(GraftError, match="BLEU and chrF take sacrebleu"):
        bleu([()], [()])


def test_samples_in_files(tmp_path: Path) -> None:
    model, found = translator.model(3), translator.arrays(6)
    file = tmp_path / "x.npz"
    np.savez(file, **{"x.source": found["source"], "x.target": found["target"][:, :1]})
    said = write(model, [file], small.CPU).answers
    assert [each.language for each in said] == ["Red", "Blue"] * 3
    assert [each.index for each in said] == list(range(6))
    np.savez(file, x=found["source"])
    assert [each.words for each in write(model, [file], small.CPU, "Blue").answers[1::2]] == [
        each.words for each in said[1::2]
    ]
    with pytest.raises(GraftError, match="does not say in which language"):
        write(model, [file], small.CPU)
    with pytest.raises(GraftError, match="no language 'Green'"):
        write(model, [file], small.CPU, "Green")
    np.savez(file, **{"x.source": found["source"], "x.target": np.full((6, 1), 9)})
    with pytest.raises(GraftError, match="begins with word 9"):
        write(model, [file], small.CPU)
    np.savez(file, **{"x.sauce": found["source"]})
    with pytest.raises(GraftError, match="expected data for input 'source', found sauce"):
        write(model, [file], small.CPU, "Red")
    with pytest.raises(GraftError, match=r"takes \.npz files"):
        write(model, [tmp_path / "x.txt"], small.CPU, "Red")
