"""The card: how raw samples become a model's input, and what its output means."""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)

from graft.rewriter.arrays import Array
from graft.rewriter.errors import GraftError

CARD_FORMAT = 1
CARD_BYTES = 1 << 20
LABEL_BYTES = 16 << 20

Shape = Sequence[int | str | None]
TensorTypes = Mapping[str, tuple[Any, Shape | None]]


def _not_boolean(value: Any) -> Any:
    # YAML reads `yes` and `on` as true, which would pass for the number 1.
    if isinstance(value, bool):
        raise ValueError("a number")
    return value


Number = Annotated[FiniteFloat, BeforeValidator(_not_boolean)]
Length = Annotated[int, BeforeValidator(_not_boolean), Field(ge=1, le=65535)]
Name = Annotated[str, Field(min_length=1)]


class _Part(BaseModel):
    """A piece of a card: immutable, and wrong values are told in one line."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    _called: ClassVar[str] = ""

    @model_validator(mode="wrap")
    @classmethod
    def _tell(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(data)
        except ValidationError as error:
            raise _explained(error, cls._called, cls._keys()) from None

    @classmethod
    def _keys(cls) -> list[str]:
        return list(cls.model_fields)


class InputCard(_Part):
    """One input of a model: value = (raw * scale - mean) / std, where raw is 0..255 for images.

    ``mean`` and ``std`` hold one number, or one for each colour channel in the order of ``color``.
    ``resize`` says what becomes of image files of another size: ``squash`` to the size, or
    ``crop`` (the short side becomes size / crop_fraction, then the centre is cut out).
    ``layout`` flat is one row of H * W * C numbers, pixel after pixel.
    ``kind`` tensor and tokens are fed as they are, so they take no other keys than their name; tokens
    also ``vocabulary``, a name for what the numbers mean: modules that share an input share it.
    """

    _called: ClassVar[str] = "input"

    name: Name
    kind: Literal["image", "tensor", "tokens"]
    layout: Literal["NCHW", "NHWC", "flat"] = "NCHW"
    color: Literal["RGB", "BGR", "GRAY"] = "RGB"
    size: tuple[Length, Length] | None = None
    scale: Number = 1.0
    mean: tuple[Number, ...] = (0.0,)
    std: tuple[Number, ...] = (1.0,)
    resize: Literal["squash", "crop"] | None = None
    crop_fraction: Annotated[Number, Field(gt=0, le=1)] = 0.875
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    vocabulary: Name | None = None

    @property
    def channels(self) -> int:
        """The number of colour channels of an image."""
        return 1 if self.color == "GRAY" else 3

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.vocabulary is not None and self.kind != "tokens":
            raise _invalid(f"input '{self.name}' has a vocabulary, but no tokens", "remove it")
        if self.kind != "image":
            self._check_has_no_image_keys()
            return self
        if self.size is None:
            raise _invalid(f"input '{self.name}' is an image without a size", "add size: [HEIGHT, WIDTH]")
        for key in ("mean", "std"):
            found = len(getattr(self, key))
            if found not in (1, self.channels):
                raise _invalid(
                    f"key '{key}' of input '{self.name}': expected 1 or {self.channels} numbers"
                    f" for {self.color}, found {found}",
                    "give one number, or one for each colour channel",
                )
        if 0 in self.std:
            raise _invalid(
                f"key 'std' of input '{self.name}' holds 0, and values are divided by it",
                "use 1 where nothing is to be divided",
            )
        return self

    def _check_has_no_image_keys(self) -> None:
        for key, field in type(self).model_fields.items():
            if key == "vocabulary" or field.is_required():
                continue
            if getattr(self, key) != field.default:
                raise _invalid(
                    f"key '{key}' of input '{self.name}' is for images, but its kind is"
                    f" {self.kind}, which is fed as it is",
                    f"remove {key}, or say kind: image",
                )

    def prepare(self, raw: Array) -> Array:
        """Turns a raw batch into this input.

        Args:
            raw: images (N, H, W), (N, H, W, 1) or (N, H, W, 3) in RGB order, uint8 or float
                0..255, or channels first where nothing else fits; tensors (N, ...) of numbers;
                tokens (N, ...) of integers.

        Returns:
            float32 (N, C, H, W), (N, H, W, C) or (N, H * W * C) for images; the array itself for
            tensors (float64 becomes float32) and tokens (int32 and int64 stay, other integers become
            int64).

        Raises:
            GraftError: ``data-type``, ``data-shape`` or ``data-nan``.
        """
        array = np.asarray(raw)
        self._check_numbers(array)
        if self.kind == "image":
            return self._prepare_image(array)
        if self.kind == "tokens":
            return array if array.dtype in (np.int32, np.int64) else array.astype(np.int64)
        return array.astype(np.float32) if array.dtype == np.float64 else array

    def _check_numbers(self, array: Array) -> None:
        kinds = {"image": "uif", "tensor": "buif", "tokens": "ui"}[self.kind]
        if array.dtype.kind not in kinds:
            wanted = "integers" if self.kind == "tokens" else "numbers"
            raise GraftError(
                "data-type",
                f"input '{self.name}' is of kind {self.kind}: expected {wanted}, found {array.dtype}",
                "convert the data, or change the kind in the card",
            )
        if array.ndim == 0:
            raise GraftError(
                "data-shape",
                f"input '{self.name}': expected a batch of samples, found a single number",
                "the first axis counts the samples",
            )
        if array.dtype.kind != "f":
            return
        broken = ~np.isfinite(array).all(axis=tuple(range(1, array.ndim)))
        if broken.any():
            raise GraftError(
                "data-nan",
                f"input '{self.name}': {int(broken.sum())} of {len(array)} samples hold NaN or"
                f" infinity, the first is number {int(broken.argmax())} of the batch",
                "repair or remove these samples",
            )

    def _prepare_image(self, array: Array) -> Array:
        values = self._channels_last(array).astype(np.float32)
        if self.color == "BGR":
            values = values[..., ::-1].copy()
        values *= np.float32(self.scale)
        values -= np.asarray(self.mean, np.float32)
        values /= np.asarray(self.std, np.float32)
        if self.layout == "flat":
            return values.reshape(len(values), -1)
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2) if self.layout == "NCHW" else values)

    def _channels_last(self, array: Array) -> Array:
        readings = []
        if array.ndim == 3:
            readings.append(array[..., None])
        if array.ndim == 4 and array.shape[3] in (1, 3):
            readings.append(array)
        if array.ndim == 4 and array.shape[1] in (1, 3):
            readings.append(array.transpose(0, 2, 3, 1))
        fitting = [reading for reading in readings if reading.shape[1:3] == self.size] or readings
        if not fitting:
            raise GraftError(
                "data-shape",
                f"input '{self.name}': expected images (N, H, W), (N, H, W, 1) or (N, H, W, 3),"
                f" found {array.shape}",
                "bring the data to one of these shapes",
            )
        images = fitting[0]
        height, width = self.size or images.shape[1:3]
        if images.shape[1:3] != (height, width):
            raise GraftError(
                "data-shape",
                f"input '{self.name}': expected images of {height}x{width},"
                f" found {images.shape[1]}x{images.shape[2]}",
                "resize the data, or correct size in the card",
            )
        if images.shape[3] != self.channels:
            raise GraftError(
                "data-shape",
                f"input '{self.name}': expected {_colors(self.channels)} for color {self.color},"
                f" found {_colors(images.shape[3])}",
                "convert the data, or correct color in the card",
            )
        return images

    def check_shape(self, shape: Shape | None) -> None:
        """Checks this input against the model's shape; unknown dimensions fit anything.

        Raises:
            GraftError: ``card-input`` where rank, size or channels differ.
        """
        if shape is None or self.kind != "image" or self.size is None:
            return
        by_layout = {
            "NCHW": (self.channels, *self.size),
            "NHWC": (*self.size, self.channels),
            "flat": (self.size[0] * self.size[1] * self.channels,),
        }
        fits = {
            layout: len(shape) == 1 + len(sizes)
            and all(_same(known, wanted) for known, wanted in zip(shape[1:], sizes, strict=True))
            for layout, sizes in by_layout.items()
        }
        if fits[self.layout]:
            return
        hint = "correct layout, color or size in the card"
        if any(fits.values()):
            hint = f"layout: {next(layout for layout in fits if fits[layout])} would fit"
        elif len(shape) != 1 + len(by_layout[self.layout]):
            hint = "say kind: tensor in the card and prepare the data in that shape"
        raise GraftError(
            "card-input",
            f"input '{self.name}': the card gives {self.layout}"
            f" {_shape_text(('N', *by_layout[self.layout]))}, the model takes {_shape_text(shape)}",
            hint,
        )

    def plain(self) -> dict[str, Any]:
        """This input as the card file writes it, without what says nothing."""
        keys = ["name", "kind"]
        if self.kind == "image":
            keys += ["layout", "color", "size", "scale", "mean", "std"]
        if self.resize is not None:
            keys += ["resize", "interpolation"]
        if self.resize == "crop":
            keys += ["crop_fraction"]
        if self.vocabulary is not None:
            keys += ["vocabulary"]
        return self.model_dump(mode="json", include=set(keys))


class OutputCard(_Part):
    """The output that holds the classes.

    ``binary`` is one column with the probability of the second label, or two columns.
    ``steps`` is true where there is one label for each time step: (N, T, classes).
    """

    _called: ClassVar[str] = "output"

    name: Name
    kind: Literal["logits", "probabilities", "sigmoid", "binary"]
    steps: bool = False

    def plain(self) -> dict[str, Any]:
        """This output as the card file writes it."""
        return self.model_dump(mode="json", exclude=None if self.steps else {"steps"})


class Card(_Part):
    """How raw samples become a model's inputs, what its output means, and its labels in order."""

    graft: Annotated[int, BeforeValidator(_not_boolean), Field(ge=1)] = CARD_FORMAT
    name: str | None = None
    inputs: tuple[InputCard, ...]
    output: OutputCard
    labels: tuple[str, ...]
    display_names: tuple[str, ...] | None = None
    expect: dict[str, Annotated[Number, Field(ge=0, le=1)]] | None = None
    license: str | None = None
    source: str | None = None

    @classmethod
    def load(cls, path: str | Path) -> Card:
        """Reads a card file.

        Args:
            path: a YAML file; its ``labels`` may name a text file relative to it, one label a
                line, with a display name in an optional second, tab-separated column.

        Raises:
            GraftError: ``card-missing`` (no such file), ``card-invalid`` (broken YAML, an unknown
                key, a wrong value), ``card-labels`` or ``card-format`` (a newer format).
        """
        path = Path(path)
        text = _read_text(path, CARD_BYTES, "card", "write it with `graft card MODEL -o NAME.yaml`")
        try:
            data = _parse_yaml(text)
            if isinstance(data.get("labels"), str):
                data = {**data, **_read_labels(path.parent / data["labels"])}
            _check_labels_are_quoted(data.get("labels"), text)
            return cls.model_validate(data)
        except GraftError as error:
            raise GraftError(error.code, f"{path}: {error.message}", error.hint) from None

    @classmethod
    def find(cls, model_path: str | Path, explicit: str | Path | None = None) -> Card:
        """Reads the card ``explicit``, or else NAME.yaml beside NAME.onnx.

        Raises:
            GraftError: ``card-missing`` where there is none, and as ``load``.
        """
        if explicit is not None:
            return cls.load(explicit)
        beside = Path(model_path).with_suffix(".yaml")
        if not beside.is_file():
            raise GraftError(
                "card-missing",
                f"{model_path} has no card: expected {beside}",
                f"draft one with `graft card {model_path} -o {beside}`, or name it with --card",
            )
        return cls.load(beside)

    @classmethod
    def from_json(cls, text: str) -> Card:
        """Reads what ``to_json`` wrote.

        Raises:
            GraftError: ``card-invalid``, ``card-labels`` or ``card-format``.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _invalid(f"expected a card in JSON: {error}", "write the model again") from None
        if not isinstance(data, dict):
            raise _invalid(f"expected a card in JSON, found {_describe(data)}", "write the model again")
        return cls.model_validate(data)

    def to_json(self) -> str:
        """The card on one line, labels included: equal cards give equal text."""
        return json.dumps(self._plain(), sort_keys=True, ensure_ascii=False)

    def to_yaml(self) -> str:
        """The card as a file for people to read and edit, labels included."""
        lines = []
        for key, value in self._plain().items():
            if key == "inputs":
                lines.append("inputs:")
                lines += [f"  {_yaml_line(each.pop('name'), each)}" for each in value]
            else:
                lines.append(_yaml_line(key, value))
        return "\n".join(lines) + "\n"

    def replace(self, **changes: Any) -> Card:
        """A copy with other values.

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
        """The same card, whose images may come in all sizes: brought to its own as those ``like``."""
        first, *others = self.inputs
        if others or first.kind != "image" or first.resize or first.size is None:
            return self
        how = {"resize": "squash"}
        if like is not None:
            how = {name: getattr(like, name) for name in ("resize", "crop_fraction", "interpolation")}
        return self.replace(inputs=(first.model_copy(update=how),))

    def class_index(self, name: str) -> int:
        """The position of a label.

        Raises:
            GraftError: ``class-unknown``, showing the nearest labels.
        """
        if name in self.labels:
            return self.labels.index(name)
        near = self._nearest(name)
        hint = f"did you mean {' or '.join(near)}?" if near else f"the labels are {_some(self.labels)}"
        raise GraftError("class-unknown", f"the model has no class '{name}'", hint)

    def prepare(self, raw: Mapping[str, Array]) -> dict[str, Array]:
        """Turns a raw batch into what the model takes.

        Args:
            raw: one array for each input, see ``InputCard.prepare``, keyed by its name; the array
                of a single input may have the key "".

        Returns:
            One array for each input of the model, keyed by its name.

        Raises:
            GraftError: ``data-inputs`` (no array for an input), ``data-length`` (arrays of
                different numbers of samples), ``data-type``, ``data-shape`` or ``data-nan``.
        """
        prepared = {card.name: card.prepare(self._array_of(card, raw)) for card in self.inputs}
        if len({len(array) for array in prepared.values()}) > 1:
            found = ", ".join(f"{name} {len(array)}" for name, array in prepared.items())
            raise GraftError(
                "data-length",
                f"expected as many samples for every input, found {found}",
                "repair the data",
            )
        return prepared

    def check_against(self, inputs: TensorTypes, outputs: TensorTypes) -> None:
        """Checks the card against the model's own inputs and outputs.

        Args:
            inputs: (dtype, shape) of every input; a shape holds numbers, and names or None where
                a dimension is unknown; None is a shape of unknown rank.
            outputs: the same of every output. The class axis is the last one, or the last before
                trailing axes of size 1 (N, K, 1, 1).

        Raises:
            GraftError: ``card-input``, ``card-output`` or ``card-labels``.
        """
        for card in self.inputs:
            if card.name not in inputs:
                raise _lacks("input", card.name, inputs)
            card.check_shape(inputs[card.name][1])
        unnamed = [name for name in inputs if name not in {card.name for card in self.inputs}]
        if unnamed:
            raise GraftError(
                "card-input",
                f"the card says nothing of the model's {_some(unnamed, 'input')}",
                "describe it under inputs: {NAME: {...}}",
            )
        if self.output.name not in outputs:
            raise _lacks("output", self.output.name, outputs)
        self._check_class_axis(outputs[self.output.name][1])

    def _check_class_axis(self, shape: Shape | None) -> None:
        if shape is None:
            return
        binary = self.output.kind == "binary"
        rank = 2 + self.output.steps
        if len(shape) < rank - binary:
            raise GraftError(
                "card-output",
                f"output '{self.output.name}': expected {rank} axes or more, the model gives"
                f" {_shape_text(shape)}",
                "correct the name of the output or its steps in the card",
            )
        wanted = (1, 2) if binary else (len(self.labels),)
        while len(shape) > rank and shape[-1] == 1 and 1 not in wanted:
            shape = shape[:-1]
        # A binary output (N,) has no class axis at all.
        if len(shape) >= rank and isinstance(shape[-1], int) and shape[-1] not in wanted:
            raise GraftError(
                "card-labels",
                f"the card has {len(self.labels)} labels, but output '{self.output.name}' of the"
                f" model gives {_shape_text(shape)}: {shape[-1]} classes",
                "correct labels or the name of the output in the card",
            )

    def _array_of(self, card: InputCard, raw: Mapping[str, Array]) -> Array:
        if card.name in raw:
            return raw[card.name]
        if len(self.inputs) == 1 and "" in raw:
            return raw[""]
        raise GraftError(
            "data-inputs",
            f"expected data for input '{card.name}',"
            f" found {', '.join(key or 'one unnamed array' for key in raw) or 'none'}",
            f"name it in the .npz file: x_train.{card.name}",
        )

    def _nearest(self, name: str) -> list[str]:
        shown = list(self.labels)
        if self.display_names is not None:
            pairs = zip(self.labels, self.display_names, strict=True)
            shown = [f"{label} ({display})" for label, display in pairs]
        spellings: dict[str, str] = {}
        for text, label, display in zip(shown, self.labels, self.display_names or self.labels, strict=True):
            spellings.setdefault(label.casefold(), text)
            spellings.setdefault(display.casefold(), text)
        near = difflib.get_close_matches(name.casefold(), spellings, n=3, cutoff=0.6)
        return list(dict.fromkeys(spellings[spelling] for spelling in near))

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
        plain["display_names"] = None if self.display_names is None else list(self.display_names)
        plain |= {"expect": self.expect, "license": self.license, "source": self.source}
        return {key: value for key, value in plain.items() if value is not None}

    @classmethod
    def _keys(cls) -> list[str]:
        return ["input", *cls.model_fields]

    @model_validator(mode="before")
    @classmethod
    def _arrange(cls, data: Any) -> Any:
        """Brings the form of the file to the form of the model."""
        if not isinstance(data, Mapping):
            return data
        version = data.get("graft", CARD_FORMAT)
        if isinstance(version, int) and version > CARD_FORMAT:
            raise GraftError(
                "card-format",
                f"the card has format {version}, this version of Graft reads up to {CARD_FORMAT}",
                "update onnx-graft",
            )
        arranged = dict(data)
        if "input" in arranged:
            if "inputs" in arranged:
                raise _invalid("the card has both 'input' and 'inputs'", "keep one of them")
            arranged["inputs"] = [arranged.pop("input")]
        elif isinstance(arranged.get("inputs"), Mapping):
            arranged["inputs"] = _named_inputs(arranged["inputs"])
        for key in ("labels", "display_names"):
            if arranged.get(key) is not None:
                _check_labels(key, arranged[key])
        return arranged

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [each.name for each in self.inputs]
        if not names:
            raise _invalid("the card names no input", "add input: {name: ..., kind: ...}")
        if len(set(names)) < len(names):
            raise _invalid(f"the card names an input twice: {', '.join(names)}", "keep one")
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


def _invalid(message: str, hint: str = "") -> GraftError:
    return GraftError("card-invalid", message, hint)


def _lacks(what: str, name: str, present: Mapping[str, Any]) -> GraftError:
    return GraftError(
        f"card-{what}",
        f"the card names {what} '{name}', but the model has {_some(list(present), what)}",
        f"correct the name of the {what} in the card",
    )


def _explained(error: ValidationError, called: str, keys: Sequence[str]) -> GraftError:
    """The first problem that pydantic found, as one line that names the key."""
    # An unknown key comes first: it is most often the misspelt name of a missing one.
    problems = sorted(
        error.errors(include_url=False), key=lambda problem: problem["type"] != "extra_forbidden"
    )
    problem = problems[0]
    place = "".join(
        f"[{step}]" if isinstance(step, int) else f".{step}" for step in (called, *problem["loc"])
    ).strip(".")
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(problem["loc"][-1]), keys, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"the keys are {', '.join(keys)}"
        return _invalid(f"unknown key '{place}'", hint)
    if problem["type"] == "missing":
        return _invalid(f"the key '{place}' is missing", "add it to the card")
    expected = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if problem["type"] in ("model_type", "dict_type"):
        expected = "keys and values in braces"
    hint = f"correct '{place}' in the card"
    if problem["type"] == "string_type" and not isinstance(problem["input"], list | dict):
        hint = "put text that YAML takes for something else in quotes"
    message = f"key '{place}': expected {expected}, found {_describe(problem['input'])}"
    return _invalid(message, hint)


def _describe(value: Any) -> str:
    # Never the text of a container: a few lines of YAML aliases can stand for gigabytes.
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, int | float):
        return f"the number {value!r:.40}"
    if isinstance(value, str):
        return f"'{value:.40}'"
    if isinstance(value, Mapping):
        return "keys and values"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    return f"a {type(value).__name__}"


def _read_text(path: Path, limit: int, what: str, hint: str) -> str:
    # is_file keeps devices and pipes out, which would never end.
    if not path.is_file():
        raise GraftError("card-missing", f"expected a {what} file, found none at {path}", hint)
    try:
        if path.stat().st_size > limit:
            raise _invalid(
                f"{path}: a {what} file has at most {limit} bytes, found {path.stat().st_size}",
                "is this the right file?",
            )
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise _invalid(
            f"{path}: expected a readable {what} file in UTF-8: {error}",
            "save it as text in UTF-8, readable by you",
        ) from None


def _parse_yaml(text: str) -> dict[str, Any]:
    try:
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" in line {mark.line + 1}" if mark else ""
        raise _invalid(f"broken YAML{place}: {error.problem}", "correct the card") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _invalid(f"broken YAML: {error}", "correct the card") from None
    if not isinstance(data, dict):
        raise _invalid(
            f"expected the keys input, output and labels, found {_describe(data)}",
            "see `graft card` for a draft",
        )
    strange = next((key for key in data if not isinstance(key, str)), None)
    if strange is not None:
        raise _invalid(f"expected keys that are words, found {_describe(strange)}", "remove it")
    return data


def _read_labels(path: Path) -> dict[str, list[str] | None]:
    text = _read_text(path, LABEL_BYTES, "label", "list the labels in the card, or name the file")
    rows = [line.strip().split("\t", maxsplit=1) for line in text.rstrip().split("\n")]
    if rows == [[""]]:
        rows = []
    labels = [row[0].strip() for row in rows]
    if "" in labels:
        raise GraftError("card-labels", f"{path}: line {labels.index('') + 1} is empty", "one label a line")
    display = [row[-1].strip() for row in rows]
    return {"labels": labels, "display_names": display if display != labels else None}


def _check_labels_are_quoted(labels: Any, text: str) -> None:
    if not isinstance(labels, list) or all(isinstance(label, str) for label in labels):
        return
    place = next(index for index, label in enumerate(labels) if not isinstance(label, str))
    # The base loader reads every plain word as the text it is in the file.
    written = yaml.load(text, Loader=yaml.BaseLoader)["labels"][place]
    if isinstance(written, str):
        raise GraftError(
            "card-labels",
            f"label {place + 1} is written {written or 'as nothing'}, which YAML reads as"
            f" {_describe(labels[place])}",
            f"quote it: '{written}'",
        )


def _check_labels(key: str, labels: Any) -> None:
    if not isinstance(labels, list | tuple):
        hint = "write [FIRST, SECOND, ...]"
        raise GraftError("card-labels", f"{key}: expected a list, found {_describe(labels)}", hint)
    if not labels:
        raise GraftError("card-labels", f"{key}: the list is empty", "a classifier has labels")
    for place, label in enumerate(labels, start=1):
        if not isinstance(label, str):
            raise GraftError(
                "card-labels",
                f"{key}: number {place} is {_describe(label)}, expected text",
                "quote it",
            )
        # A label has to fit on one line of any table, and into UTF-8.
        if not label.strip() or re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", label):
            raise GraftError(
                "card-labels",
                f"{key}: number {place} is {label!r:.40}, expected text that can be shown",
                "give it a name without control characters",
            )
    if key == "labels" and len(set(labels)) < len(labels):
        twice = next(label for label, count in Counter(labels).items() if count > 1)
        raise GraftError(
            "card-labels",
            f"label '{twice}' is there twice",
            "give each class a name of its own",
        )


def _named_inputs(inputs: Mapping[Any, Any]) -> list[Any]:
    named = []
    for name, value in inputs.items():
        if not isinstance(name, str):
            raise _invalid(f"inputs: expected a name, found {_describe(name)}", "quote it")
        if not isinstance(value, Mapping):
            raise _invalid(
                f"key 'inputs.{name}': expected keys and values in braces, found {_describe(value)}",
                "write {kind: ...}",
            )
        if value.get("name", name) != name:
            raise _invalid(f"input '{name}' has another name inside", "remove the key 'name'")
        named.append({**value, "name": name})
    return named


def _yaml_line(key: str, value: Any) -> str:
    # The braces of the flow style are cut off, so that each key has a line of its own.
    width = 100 if isinstance(value, list) else 1 << 30
    text: str = yaml.safe_dump(
        {key: value}, default_flow_style=True, sort_keys=False, allow_unicode=True, width=width
    )
    return text.strip()[1:-1]


def _same(known: int | str | None, wanted: int) -> bool:
    return not isinstance(known, int) or known == wanted


def _shape_text(shape: Shape) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def _colors(channels: int) -> str:
    return "1 colour channel (gray)" if channels == 1 else f"{channels} colour channels"


def _some(names: Sequence[str], what: str = "") -> str:
    shown = ", ".join(names[:5]) + (f" ... ({len(names)} in all)" if len(names) > 5 else "")
    if not what:
        return shown
    return f"{what}{'' if len(names) == 1 else 's'} {shown}" if names else f"no {what}"


OTHER = "(other)"
