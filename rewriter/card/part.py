"""A piece of a card: values that are checked, and errors in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self

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

from graft.rewriter.errors import GraftError, nearest

Shape = Sequence[int | str | None]
"""A shape as models declare it: a name or ``None`` where a dimension is unknown."""


def not_boolean(value: Any) -> Any:
    """Return ``value``; YAML reads `yes` and `on` as true, which would pass for the number 1.

    Raises:
        ValueError: it is a boolean.
    """
    if isinstance(value, bool):
        raise ValueError("a number")
    return value


Number = Annotated[FiniteFloat, BeforeValidator(not_boolean)]
Length = Annotated[int, BeforeValidator(not_boolean), Field(ge=1, le=65535)]
Name = Annotated[str, Field(min_length=1)]


class CardPart(BaseModel):
    """A piece of a card: immutable; an error names the key and what was expected in one line."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    _place: ClassVar[str] = ""

    @model_validator(mode="wrap")
    @classmethod
    def _explain(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(data)
        except ValidationError as error:
            raise explained(error, cls._place, cls._keys()) from None

    @classmethod
    def _keys(cls) -> list[str]:
        return list(cls.model_fields)


def invalid(message: str, hint: str = "") -> GraftError:
    """Return the error for a card that makes no sense."""
    return GraftError("card-invalid", message, hint)


def lacks(what: str, name: str, present: Mapping[str, Any]) -> GraftError:
    """Return the error for an input or output that the card names and the model lacks.

    Args:
        what: ``input`` or ``output``.
        name: as the card names it.
        present: those that the model has, by name.
    """
    return GraftError(
        f"card-{what}",
        f"the card names {what} '{name}', but the model has {some(list(present), what)}",
        f"correct the name of the {what} in the card",
    )


def explained(error: ValidationError, place: str, keys: Sequence[str]) -> GraftError:
    """Return the first problem that pydantic found, as one line that names the key.

    Args:
        error: from the validation of a part.
        place: key of the part in the card.
        keys: those that the part knows.
    """
    # An unknown key comes first: it is most often the misspelt name of a missing one.
    problems = sorted(
        error.errors(include_url=False), key=lambda problem: problem["type"] != "extra_forbidden"
    )
    problem = problems[0]
    place = "".join(
        f"[{step}]" if isinstance(step, int) else f".{step}" for step in (place, *problem["loc"])
    ).strip(".")
    if problem["type"] == "extra_forbidden":
        near = nearest(str(problem["loc"][-1]), keys)
        return invalid(f"unknown key '{place}'{near}", f"the keys are {', '.join(keys)}")
    if problem["type"] == "missing":
        return invalid(f"the key '{place}' is missing", "add it to the card")
    expected = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if problem["type"] in ("model_type", "dict_type"):
        expected = "keys and values in braces"
    hint = f"correct '{place}' in the card"
    if problem["type"] == "string_type" and not isinstance(problem["input"], list | dict):
        hint = "put text that YAML takes for something else in quotes"
    message = f"key '{place}': expected {expected}, found {describe(problem['input'])}"
    return invalid(message, hint)


def describe(value: Any) -> str:
    """Return a few words on a wrong value.

    Never the text of a container: a few lines of YAML aliases can expand to gigabytes.
    """
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


def shape_text(shape: Shape) -> str:
    """Return a shape as messages show it."""
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def some(names: Sequence[str], what: str = "") -> str:
    """Return the first names, counted as ``what`` where that is given."""
    shown = ", ".join(names[:5]) + (f" ... ({len(names)} in all)" if len(names) > 5 else "")
    if not what:
        return shown
    return f"{what}{'' if len(names) == 1 else 's'} {shown}" if names else f"no {what}"
