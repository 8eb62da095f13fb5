"""Commands whose options are the fields of models: parsing, help in titled groups, nearest names.

A command is a function that takes one :class:`Options` model per parameter. :func:`takes_options` makes click
parameters out of the fields and hands the models over. The models know nothing of click's contexts: a
recipe validates the same ones from plain values.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Generic, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import click
from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from graft.rewriter.errors import nearest

Value = TypeVar("Value")


class Options(BaseModel):
    """A group of options; frozen, made from plain values, and strict about keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    def prepare(self) -> None:
        """Put into effect what holds for the whole command, before it starts."""


@dataclass(frozen=True)
class Option:
    """Form of a field on the command line.

    Attributes:
        help: a sentence or two, in the field's words.
        group: title in ``--help``.
        flags: names on the command line; default: the field's.
        hidden: further names, which ``--help`` leaves out.
        metavar: placeholder of the value.
        show_default: name the default in ``--help``.
    """

    help: str
    group: str
    flags: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    metavar: str | None = None
    show_default: bool = False


@dataclass(frozen=True)
class Argument:
    """A field that is given by its place on the command line.

    Attributes:
        metavar: its name in the usage line.
        help: what it is.
    """

    metavar: str
    help: str


@dataclass(frozen=True)
class Reads(Generic[Value]):
    """A value that is read from text: one function for the command line and for recipes.

    Attributes:
        name: placeholder of the value.
        parse: turns text, or a plain value, into the value.

    ``parse`` raises ValueError with a message that says what was expected and found.
    """

    name: str
    parse: Callable[[Any], Value]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate by :attr:`parse`; None too, where the field allows it."""
        schema = core_schema.no_info_plain_validator_function(self.parse)
        return core_schema.nullable_schema(schema) if NoneType in get_args(source) else schema


Choices = Collection[str] | Callable[[], Collection[str]]
"""Names that may be given; a function is called when help is shown or a value checked, not on import."""


def one_of(choices: Choices, name: str = "NAME") -> Reads[str]:
    """Return a value that is one of ``choices``; another one gets the nearest named.

    Args:
        choices: what may be given.
        name: placeholder of the value.
    """
    return _OneOf(name, functools.partial(_chosen, choices), choices)


@dataclass(frozen=True)
class _OneOf(Reads[str]):
    choices: Choices = ()


def _resolved(choices: Choices) -> tuple[str, ...]:
    return tuple(choices() if callable(choices) else choices)


def _chosen(choices: Choices, value: Any) -> str:
    known = _resolved(choices)
    if value in known:
        return str(value)
    listed = ", ".join(f"'{each}'" for each in known)
    raise ValueError(f"'{value}' is not one of {listed}{nearest(str(value), known)}")


def several(each: Reads[Value]) -> Reads[tuple[Value, ...]]:
    """Return a value that holds one or more of ``each``, separated by commas, or a list of them."""
    return _Several(each.name, functools.partial(_separated, each), each)


@dataclass(frozen=True)
class _Several(Reads[tuple[Value, ...]]):
    each: Reads[Value]


def _separated(each: Reads[Value], value: Any) -> tuple[Value, ...]:
    words = value if isinstance(value, list | tuple) else [word.strip() for word in str(value).split(",")]
    words = [word for word in words if word != ""]
    if not words:
        raise ValueError(f"expected one or more, separated by commas, found '{value}'")
    return tuple(each.parse(word) for word in words)


class Command(click.Command):
    """A command whose help has titled groups.

    Attributes:
        function: what it runs; its parameters are :attr:`models`.
        models: the models that its function takes, by parameter.
        groups: the title of every option, by its name.
    """

    function: Callable[..., Any]
    models: dict[str, type[Options]]
    groups: dict[str, str]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the arguments, then the options under the title of their group."""
        arguments = [
            (meta.metavar, meta.help) for _, meta in _described(self.models) if isinstance(meta, Argument)
        ]
        if arguments:
            with formatter.section("Arguments"):
                formatter.write_dl(arguments)
        records: dict[str, list[tuple[str, str]]] = {title: [] for title in _titles(self.models)}
        for parameter in self.get_params(ctx):
            record = None if isinstance(parameter, click.Argument) else parameter.get_help_record(ctx)
            if record:
                records[self.groups.get(parameter.name or "", GENERAL)].append(record)
        for title, rows in records.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


GENERAL = "General"
"""The last group: options of every command, such as ``--help``."""


def takes_options(epilog: str | None = None) -> Callable[[Callable[..., Any]], Command]:
    """Make a command of a function whose parameters are models of options.

    Args:
        epilog: last line of the help: an example.
    """

    def decorate(function: Callable[..., Any]) -> Command:
        hints = get_type_hints(function)
        models: dict[str, type[Options]] = {
            name: hint for name, hint in hints.items() if name != "return" and issubclass(hint, Options)
        }

        def call(**values: Any) -> Any:
            built = {name: _built(model, values) for name, model in models.items()}
            for options in built.values():
                options.prepare()
            return function(**built)

        found = Command(
            function.__module__.rpartition(".")[2],
            callback=call,
            params=[_parameter(*field) for model in models.values() for field in fields(model)],
            help=function.__doc__,
            epilog=epilog,
        )
        found.function = function
        found.models = models
        found.groups = {name: meta.group for name, meta in _described(models) if isinstance(meta, Option)}
        return found

    return decorate


def _titles(models: dict[str, type[Options]]) -> list[str]:
    first = dict.fromkeys(meta.group for _, meta in _described(models) if isinstance(meta, Option))
    return [*(title for title in first if title != GENERAL), GENERAL]


def _described(models: dict[str, type[Options]]) -> Iterator[tuple[str, Option | Argument]]:
    """Yield every field of ``models`` with its description."""
    for model in models.values():
        yield from ((name, meta) for name, meta, _ in fields(model))


def fields(model: type[Options]) -> Iterator[tuple[str, Option | Argument, FieldInfo]]:
    """Yield name, description and field of all that ``model`` takes from the command line."""
    for name, info in model.model_fields.items():
        yield name, next(each for each in info.metadata if isinstance(each, Option | Argument)), info


def _built(model: type[Options], values: dict[str, Any]) -> Options:
    """Return the model; what it refuses becomes a usage error."""
    given = {name: values[name] for name in model.model_fields}
    try:
        return model(**given)
    except ValidationError as error:
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error")
        if not cause and first["loc"]:
            option = f"--{str(first['loc'][0]).replace('_', '-')}"
            cause = f"{option}: {first['msg'].replace('Input should be', 'expected')}, found {first['input']}"
        raise click.UsageError(str(cause or first["msg"]), click.get_current_context()) from error


def _parameter(name: str, meta: Option | Argument, info: FieldInfo) -> click.Parameter:
    """Return the click parameter of a field."""
    kind, repeated, reads = _shape(info)
    default = {} if info.is_required() else {"default": info.default}
    if isinstance(meta, Argument):
        return click.Argument(
            [name],
            type=_click_type(kind, reads, info),
            nargs=-1 if repeated else 1,
            required=info.is_required(),
            metavar=meta.metavar,
        )
    flags = meta.flags or (f"--{name.replace('_', '-')}",)
    if kind is bool:
        return _Option(
            [*flags, *meta.hidden, name],
            is_flag=True,
            default=False,
            help=meta.help,
            hidden_names=meta.hidden,
        )
    one = reads.each if isinstance(reads, _Several) else reads
    return _Option(
        [*flags, *meta.hidden, name],
        type=_click_type(kind, reads, info),
        multiple=repeated,
        required=info.is_required(),
        help=meta.help,
        metavar=meta.metavar,
        show_default=meta.show_default,
        hidden_names=meta.hidden,
        choices=one.choices if isinstance(one, _OneOf) else (),
        **default,
    )


def _shape(info: FieldInfo) -> tuple[Any, bool, Reads[Any] | None]:
    """Return the type of one value, whether it can be repeated, and how it is read."""
    own = [each for each in info.metadata if isinstance(each, Reads)]
    if own:
        return info.annotation, False, own[0]
    kind = info.annotation
    if get_origin(kind) in (Union, UnionType):
        (kind,) = [each for each in get_args(kind) if each is not NoneType]
    repeated = get_origin(kind) is tuple
    if repeated:
        kind = get_args(kind)[0]
    reads = [each for each in getattr(kind, "__metadata__", ()) if isinstance(each, Reads)]
    return kind, repeated, reads[0] if reads else None


def _click_type(kind: Any, reads: Reads[Any] | None, info: FieldInfo) -> Any:
    if reads is not None:
        return _Read(reads)
    if get_origin(kind) is Literal:
        return _Read(one_of(get_args(kind)))
    if kind is Path:
        return _Path(path_type=Path)
    least = next((each.ge for each in info.metadata if hasattr(each, "ge")), None)
    if kind is int and least is not None:
        return click.IntRange(least)  # the largest number, which nobody reads in --help, is for the model
    return kind


def checked_path(text: str) -> str:
    """Return the text of a path.

    Raises:
        ValueError: it is empty, which would be the current folder, or ``-``, which is no stream here.
    """
    if not text:
        raise ValueError("expected a path, found nothing")
    if text == "-":
        raise ValueError("expected a path, found -: standard input and output are not used; ./- is a file")
    return text


class _Path(click.Path):
    """A path that names something."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path, or fail with what was expected."""
        try:
            return super().convert(checked_path(str(value)), param, ctx)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _Read(click.ParamType):  # type: ignore[type-arg]
    """The click type of :class:`Reads`."""

    def __init__(self, reads: Reads[Any]) -> None:
        self.reads = reads
        self.name = reads.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value, or fail with what was expected."""
        try:
            return self.reads.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _Option(click.Option):
    """An option some of whose names the help leaves out, and whose choices it lists."""

    def __init__(
        self, names: Sequence[str], hidden_names: Sequence[str] = (), choices: Choices = (), **settings: Any
    ) -> None:
        super().__init__(names, **settings)
        self.hidden_names = tuple(hidden_names)
        self.choices = choices

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return names and help, long names aligned, hidden ones left out."""
        record = super().get_help_record(ctx)
        if record is None:
            return None
        names, text = record
        choices = _resolved(self.choices)
        if choices:
            said = self.help or ""
            text = text.replace(said, f"{said} One of: {', '.join(choices)}.", 1)
        for hidden in self.hidden_names:
            names = names.replace(f", {hidden}", "")
        return names if names.startswith("-") and not names.startswith("--") else f"    {names}", text
