"""Greedy decoding: an encoder-decoder writes its answers word by word."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from graft.rewriter.arrays import Array, Integers
from graft.rewriter.card.decoder_card import DecoderCard
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.run.bounds import of_piece
from graft.rewriter.run.session import Device, Session
from graft.rewriter.run.step_graph import StepGraph, step_graph

log = logging.getLogger("graft")
CLOSE = 1e-3
"""Scores of steps may differ by so much from those of the whole model, beside the largest of these."""

Answer = tuple[int, ...]
"""Numbers of words, without the first one and the end."""
Scores = Callable[[Integers], NDArray[np.floating]]
"""Makes the scores (samples, words) of the next word from those written so far, (samples, steps)."""


class Decoding:
    """Writes answers: behind the first word of a language always the likeliest next one, up to the end.

    The decoder runs once a word, with its states in and out, where the scores are those of the whole model
    (:mod:`graft.rewriter.run.step_graph`); else the whole model runs on all words written so far.

    Args:
        model: with a card that has a decoder.
        device: where it runs.

    Attributes:
        by_step: the decoder runs once a word.
        providers: short names of the providers that run the model.

    Raises:
        GraftError: ``card-decoder`` where the card has no decoder.
    """

    def __init__(self, model: Model, device: Device) -> None:
        card = model.require_card()
        if card.decoder is None:
            raise GraftError("card-decoder", "the model has no decoder", "describe it in the card: decoder")
        self._decoder = card.decoder
        self._numbers = np.array([card.decoder.number_of(each) for each in range(len(card.labels))], np.int64)
        self._whole = _Whole(model, device)
        halves = None if self._whole.fixed else step_graph(model, card.decoder.input, card.output.name)
        self._steps = _Steps(halves, device, card.decoder.input, card.output.name) if halves else None
        self._checked = False
        self.providers = self._whole.session.providers

    @property
    def by_step(self) -> bool:
        """True where the decoder runs once a word."""
        return self._steps is not None

    def answers(self, inputs: Mapping[str, Array], starts: Integers) -> list[Answer]:
        """Write an answer for each sample.

        Args:
            inputs: prepared inputs by name, samples first; of the words written so far nothing is read.
            starts: int64 (n,), the first words.

        Returns:
            For each sample the numbers of its words; an answer without an end has as many as the card allows.

        Raises:
            GraftError: onnxruntime fails.
        """
        source = {name: values for name, values in inputs.items() if name != self._decoder.input}
        if self._steps is not None and not self._checked:
            self._checked = True
            self._check(source, starts)
        begin = self._whole.begin if self._steps is None else self._steps.begin
        written = self._write(begin(source), starts)
        return [_up_to(row[1:], self._decoder.end) for row in written]

    def _write(self, scores: Scores, starts: Integers) -> Integers:
        """Return the words that are written, (samples, steps), the first ones included."""
        written, end = np.asarray(starts, np.int64)[:, None], self._decoder.end
        going = np.ones(len(written), bool)
        for _ in range(self._decoder.longest):
            words = np.where(going, self._numbers[scores(written).argmax(axis=-1)], end)
            going &= words != end
            written = np.concatenate([written, words[:, None]], axis=1)
            if not going.any():
                break
        return written

    def _check(self, source: Mapping[str, Array], starts: Integers) -> None:
        """Run the whole model from now on, unless the steps give its scores on what they write."""
        if self._steps is None:
            return
        found: list[NDArray[np.floating]] = []

        def noted(scores: Scores, written: Integers) -> NDArray[np.floating]:
            found.append(scores(written))
            return found[-1]

        try:
            stepwise = self._steps.begin(source)
            written = self._write(lambda words: noted(stepwise, words), starts)
        except GraftError as error:
            reason = error.message
        else:
            wanted = self._whole.all_scores(source, written[:, : len(found)])
            off = np.abs(np.stack(found, axis=1) - wanted).max(initial=0.0)
            if off <= CLOSE * max(1.0, float(np.abs(wanted).max(initial=0.0))):
                return
            reason = f"scores differ by {off:.2g}"
        log.info("the decoder is run on all words written so far, not step by step: %s", reason)
        self._steps = None


class _Whole:
    """The whole model, which reads all words written so far."""

    def __init__(self, model: Model, device: Device) -> None:
        card = model.require_card()
        decoder = card.decoder
        assert decoder is not None
        self._decoder: DecoderCard = decoder
        self._output = card.output.name
        self.session = device.open(model)
        shape = model.inputs()[decoder.input][1]
        self._length = shape[1] if len(shape) > 1 and isinstance(shape[1], int) else None

    @property
    def fixed(self) -> bool:
        """True where the model takes a fixed number of samples, or of words."""
        return self._length is not None or self.session.batch is not None

    def begin(self, source: Mapping[str, Array]) -> Scores:
        """Return what makes the scores of the next word."""
        return lambda written: self.all_scores(source, written)[:, -1]

    def all_scores(self, source: Mapping[str, Array], written: Integers) -> NDArray[np.floating]:
        """Return the scores behind each of the words, (samples, steps, words)."""
        steps, size = written.shape[1], self.session.batch or len(written)
        if self._length is not None:
            if steps > self._length:
                raise GraftError(
                    "decoder-length",
                    f"the model takes {self._length} words, and an answer may have {self._decoder.longest}",
                    f"say longest: {self._length} under decoder in the card",
                )
            filler = self._decoder.end if self._decoder.padding is None else self._decoder.padding
            written = np.pad(written, ((0, 0), (0, self._length - steps)), constant_values=filler)
        found = []
        for start in range(0, len(written), size):
            part = slice(start, start + size)
            inputs = {name: values[part] for name, values in source.items()}
            inputs[self._decoder.input] = written[part]
            output = self.session.run(self.session.feed(inputs), [self._output])[self._output]
            found.append(output[: len(written[part]), :steps])
        return np.concatenate(found)


class _Steps:
    """The two halves of a model: the decoder reads one word at a time."""

    def __init__(self, halves: StepGraph, device: Device, written: str, output: str) -> None:
        self._halves, self._written, self._output = halves, written, output
        self._encoder: Session | None = device.open(halves.encoder, of_piece()) if halves.encoder else None
        self._step = device.open(halves.step, of_piece())

    def begin(self, source: Mapping[str, Array]) -> Scores:
        """Run the encoder; return what runs the decoder on the last word."""
        halves = self._halves
        made = self._encoder.run(source) if self._encoder else {}
        known = {name: made[name] for name in halves.reads}
        states: dict[str, NDArray[np.generic]] = {}

        def scores(written: Integers) -> NDArray[np.floating]:
            for name, start in halves.starts.items() if not states else ():
                values = made[start] if isinstance(start, str) else start
                states[name] = np.ascontiguousarray(np.broadcast_to(values, _sized(values, len(written))))
            found = self._step.run({self._written: written[:, -1:], **known, **states})
            states.update({name: found[after] for name, after in halves.states.items()})
            return found[self._output][:, -1]

        return scores


def _sized(values: NDArray[np.generic], samples: int) -> tuple[int, ...]:
    """Return the shape of states (layers, samples, units)."""
    return (values.shape[0], samples, values.shape[2])


def _up_to(words: Integers, end: int) -> Answer:
    """Return the words before the end."""
    found = np.flatnonzero(words == end)
    return tuple(words[: found[0] if found.size else len(words)].tolist())
