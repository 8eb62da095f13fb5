"""The card of a model: preparation of raw samples, meaning of the output, labels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from graft.rewriter.arrays import Array
from graft.rewriter.card.card_file import (
    CARD_FORMAT,
    arranged,
    find_card,
    located,
    parse_json,
    read_card,
    to_yaml,
)
from graft.rewriter.card.decoder_card import DecoderCard
from graft.rewriter.card.input_card import InputCard
from graft.rewriter.card.output_card import OutputCard
from graft.rewriter.card.part import CardPart, Number, Shape, invalid, lacks, not_boolean, some
from graft.rewriter.errors import GraftError, nearest

OTHER = "(other)"
"""The label of every sample that belongs to none of the other labels."""

TensorTypes = Mapping[str, tuple[Any, Shape | None]]
"""(dtype, shape) of inputs or outputs by name."""


class Card(CardPart):
    """The preparation of raw samples, the meaning of the output, and the labels in order."""

    graft: Annotated[int, BeforeValidator(not_boolean), Field(ge=1)] = CARD_FORMAT
    name: str | None = None
    inputs: tuple[InputCard, ...]
    output: OutputCard
    labels: tuple[str, ...]
    decoder: DecoderCard | None = None
    display_names: tuple[str, ...] | None = None
    expect: dict[str, Annotated[Number, Field(ge=0, le=1)]] | None = None
    license: str | None = None
    source: str | None = None

    @classmethod
    def load(cls, path: str | Path) -> Card:
        """Read a card file.

        Args:
            path: a YAML file; its ``labels`` may name a text file relative to it, one label a
                line, with a display name in an optional second, tab-separated column.

        Raises:
            GraftError: ``card-missing`` (no such file), ``card-invalid`` (broken YAML, an unknown
                key, a wrong value), ``card-labels`` or ``card-format`` (a newer format).
        """
        path = Path(path)
        data = read_card(path)
        with located(path):
            return cls.model_validate(data)

    @classmethod
    def find(cls, model_path: str | Path, explicit: str | Path | None = None) -> Card:
        """Read the card ``explicit``, or else NAME.yaml beside NAME.onnx.

        Raises:
            GraftError: ``card-missing`` where there is none, and as ``load``.
        """
        return cls.load(find_card(Path(model_path)) if explicit is None else explicit)

    @classmethod
    def from_json(cls, text: str) -> Card:
        """Read the text that ``to_json`` wrote.

        Raises:
            GraftError: ``card-invalid``, ``card-labels`` or ``card-format``.
        """
        return cls.model_validate(parse_json(text))

    def to_json(self) -> str:
        """Return the card on one line, labels included: equal cards give equal text."""
        return json.dumps(self._plain(), sort_keys=True, ensure_ascii=False)

    def to_yaml(self) -> str:
        """Return the card as a file for people to read and edit, labels included."""
        return to_yaml(self._plain())

    def replace(self, **changes: Any) -> Card:
        """Return a copy with other values.

        Display names follow their labels where ``labels`` changes and they are not given.

        Raises:
            GraftError: where the new values do not fit together.
        """
        if "labels" in changes and self.display_names is not None:
            display = dict(zip(self.labels, self.display_names, strict=True))
            names = tuple(display.get(label, label) for label in changes["labels"])
            changes = {"display_names": names, **changes}
        present = {key: getattr(self, key) for key in type(self).model_fields}
        return Card.model_validate({**present, **changes})

    def resizing(self, like: InputCard | None = None) -> Card:
        """Return the card for images of all sizes, which are brought to its own size.

        Args:
            like: an input whose resizing is taken over; ``None``: squash.
        """
        first, *others = self.inputs
        if others or first.kind != "image" or first.resize or first.size is None:
            return self
        how = {"resize": "squash"}
        if like is not None:
            how = {name: getattr(like, name) for name in ("resize", "crop_fraction", "interpolation")}
        return self.replace(inputs=(first.model_copy(update=how),))

    @property
    def fed(self) -> tuple[InputCard, ...]:
        """Inputs whose values are in the data: all that are not constant."""
        return tuple(each for each in self.inputs if each.constant is None)

    def class_index(self, name: str) -> int:
        """Return the position of a label.

        Raises:
            GraftError: ``class-unknown``, showing the nearest labels.
        """
        if name in self.labels:
            return self.labels.index(name)
        spellings = self._spellings()
        near = nearest(name.casefold(), spellings, 3, spellings)
        hint = f"the labels are {some(self.labels)}"
        raise GraftError("class-unknown", f"the model has no class '{name}'{near}", hint)

    def check_class(self, name: str) -> None:
        """Raise unless commands can name this class: a label, or a language of the decoder.

        Raises:
            GraftError: ``class-unknown``, showing the nearest.
        """
        if self.decoder is None:
            self.class_index(name)
        elif name not in self.classes:
            near = nearest(name, self.classes)
            hint = f"the languages are {some(self.classes)}"
            raise GraftError("class-unknown", f"the model has no language '{name}'{near}", hint)

    def prepare(self, raw: Mapping[str, Array]) -> dict[str, Array]:
        """Turn a raw batch into the inputs of the model, samples first; constants are left out.

        Args:
            raw: one array for each input, see ``InputCard.prepare``, keyed by its name; the array
                of a single input may have the key "".

        Returns:
            One array for each input of the model, keyed by its name.

        Raises:
            GraftError: ``data-inputs`` (no array for an input), ``data-length`` (arrays of
                different numbers of samples), ``data-type``, ``data-shape``, ``data-nan`` or ``data-range``.
        """
        prepared = {card.name: card.prepare(self._array_of(card, raw)) for card in self.fed}
        if len({len(array) for array in prepared.values()}) > 1:
            found = ", ".join(f"{name} {len(array)}" for name, array in prepared.items())
            raise GraftError(
                "data-length",
                f"expected as many samples for every input, found {found}",
                "repair the data",
            )
        return prepared

    @property
    def written(self) -> InputCard | None:
        """The input that takes the words written so far; ``None`` where there is no decoder."""
        if self.decoder is None:
            return None
        return next(each for each in self.inputs if each.name == self.decoder.input)

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that commands take: the labels, or the languages of a decoder."""
        return self.labels if self.decoder is None else self.decoder.languages

    def check_against(self, inputs: TensorTypes, outputs: TensorTypes) -> None:
        """Check the card against the model's own inputs and outputs.

        Args:
            inputs: (dtype, shape) of every input; a shape holds numbers, and names or None where
                a dimension is unknown; None is a shape of unknown rank.
            outputs: the same of every output.

        Raises:
            GraftError: ``card-input``, ``card-output`` or ``card-labels``.
        """
        for card in self.inputs:
            if card.name not in inputs:
                raise lacks("input", card.name, inputs)
            card.check_shape(inputs[card.name][1])
        unnamed = [name for name in inputs if name not in {card.name for card in self.inputs}]
        if unnamed:
            raise GraftError(
                "card-input",
                f"the card says nothing of the model's {some(unnamed, 'input')}",
                f"describe it under inputs: {{{unnamed[0]}: {{kind: tensor}}}}, with constant: 0.0"
                " where it is not in the data",
            )
        if self.output.name not in outputs:
            raise lacks("output", self.output.name, outputs)
        self.output.check_shape(outputs[self.output.name][1], len(self.labels))

    def _array_of(self, card: InputCard, raw: Mapping[str, Array]) -> Array:
        if card.name in raw:
            return raw[card.name]
        if len(self.fed) == 1 and "" in raw:
            return raw[""]
        raise GraftError(
            "data-inputs",
            f"expected data for input '{card.name}',"
            f" found {', '.join(key or 'one unnamed array' for key in raw) or 'none'}",
            f"name it in the .npz file: x_train.{card.name}; or say constant: 0.0 for it in the card",
        )

    def _spellings(self) -> dict[str, str]:
        """Map labels and display names, without case, to what a message shows for them."""
        shown = list(self.labels)
        if self.display_names is not None:
            pairs = zip(self.labels, self.display_names, strict=True)
            shown = [f"{label} ({display})" for label, display in pairs]
        spellings: dict[str, str] = {}
        for text, label, display in zip(shown, self.labels, self.display_names or self.labels, strict=True):
            spellings.setdefault(label.casefold(), text)
            spellings.setdefault(display.casefold(), text)
        return spellings

    def _plain(self) -> dict[str, Any]:
        plain: dict[str, Any] = {"graft": self.graft, "name": self.name}
        inputs = [each.plain() for each in self.inputs]
        if len(inputs) == 1:
            plain["input"] = inputs[0]
        else:
            # A list, because sorting the keys of the JSON text must not change their order.
            plain["inputs"] = inputs
        plain["output"] = self.output.plain()
        plain["labels"] = list(self.labels)
        plain["decoder"] = self.decoder and self.decoder.model_dump(mode="json", exclude_defaults=True)
        plain["display_names"] = None if self.display_names is None else list(self.display_names)
        plain |= {"expect": self.expect, "license": self.license, "source": self.source}
        return {key: value for key, value in plain.items() if value is not None}

    @classmethod
    def _keys(cls) -> list[str]:
        return ["input", *cls.model_fields]

    @model_validator(mode="before")
    @classmethod
    def _arrange(cls, data: Any) -> Any:
        return arranged(data) if isinstance(data, Mapping) else data

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [each.name for each in self.inputs]
        if not names:
            raise invalid("the card names no input", "add input: {name: ..., kind: ...}")
        if len(set(names)) < len(names):
            raise invalid(f"the card names an input twice: {', '.join(names)}", "keep one")
        self._check_decoder()
        if self.output.kind == "binary" and len(self.labels) != 2:
            raise GraftError(
                "card-labels",
                f"an output of kind binary has 2 labels, found {len(self.labels)}",
                "give the label of 0 and the label of 1",
            )
        if self.display_names is not None and len(self.display_names) != len(self.labels):
            raise GraftError(
                "card-labels",
                f"expected a display name for each of the {len(self.labels)} labels,"
                f" found {len(self.display_names)}",
                "complete display_names, or remove them",
            )
        return self

    def _check_decoder(self) -> None:
        """Check that the decoder fits the inputs, the output and the labels.

        Raises:
            GraftError: ``card-invalid``.
        """
        decoder = self.decoder
        if decoder is None:
            return
        kinds = {each.name: each.kind for each in self.inputs}
        if kinds.get(decoder.input) != "tokens":
            raise invalid(
                f"decoder.input is '{decoder.input}', which is no input of kind tokens",
                f"name the one that takes the words written so far: {some(list(kinds))}",
            )
        if not self.output.steps or self.output.kind not in ("logits", "probabilities"):
            raise invalid(
                "a decoder has one word a time step: logits or probabilities",
                "say steps: true under output, and leave decoder out for other models",
            )
        decoder.check_labels(len(self.labels))
