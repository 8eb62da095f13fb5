"""BLEU and chrF of answers, by sacrebleu (extra ``text``)."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from graft.rewriter.errors import GraftError


def missing() -> GraftError | None:
    """Return the error where sacrebleu is not installed."""
    if importlib.util.find_spec("sacrebleu"):
        return None
    return GraftError("text-missing", "BLEU and chrF take sacrebleu", "pip install 'onnx-graft[text]'")


def bleu(answers: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> float:
    """Return corpus BLEU-4, 0 to 100, of words as they are (Papineni et al. 2002).

    Args:
        answers: words of each answer.
        references: words of each target.

    Raises:
        GraftError: ``text-missing``.
    """
    _require()
    from sacrebleu.metrics.bleu import BLEU

    return float(BLEU(tokenize="none", force=True).corpus_score(_lines(answers), [_lines(references)]).score)


def chrf(answers: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> float:
    """Return corpus chrF2, 0 to 100 (Popovic 2015).

    Args:
        answers: words of each answer.
        references: words of each target.

    Raises:
        GraftError: ``text-missing``.
    """
    _require()
    from sacrebleu.metrics.chrf import CHRF

    return float(CHRF().corpus_score(_lines(answers), [_lines(references)]).score)


def _require() -> None:
    error = missing()
    if error:
        raise error


def _lines(texts: Sequence[Sequence[str]]) -> list[str]:
    return [" ".join(words) for words in texts]
