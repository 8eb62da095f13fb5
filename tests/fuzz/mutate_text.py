"""Mutations of text and of trees: cards, plans, ``graft.json``, headers of profiles.

Every mutation takes a :class:`random.Random`, so that its seed says all.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

Tree = Any
Place = tuple[Any, Any]
"""A list or mapping, and an index or key of it."""

WORDS = (
    *("", " ", "\0", "\x1b[31mred\x1b[0m", "\r\nlabel", "é" * 3, "\u202eabc", "NaN", "../x"),
    *("/etc/passwd", "C:\\x", "CON", "~", "-", "--json", "@labels.txt", "a,b", "a=b", "(other)", "rest"),
    *("graft", "null", "true", "0x1A", "1e400", "*", "[", "{{x}}", "%s%n", "x" * 300, "x" * 70_000, ".onnx"),
)
NUMBERS: tuple[Any, ...] = (
    *(0, -1, 1, 2, 255, 2**31 - 1, 2**31, -(2**31) - 1, 2**53, 2**62, 2**63, 2**64, 10**40, -(10**40)),
    *(0.0, -0.5, 0.1, 1e-320, 1e300, float("inf"), float("-inf"), float("nan")),
)


def scalar(rng: random.Random) -> Any:
    """A value of any simple kind."""
    return rng.choice(
        [lambda: rng.choice(WORDS), lambda: rng.choice(NUMBERS), lambda: rng.choice([None, True, False])]
    )()


def nested(rng: random.Random) -> Tree:
    """A value that contains values: empty, wide, or deep."""
    deep: Tree = scalar(rng)
    for _ in range(rng.choice([1, 3, 30, 120])):
        deep = rng.choice([lambda d: [d], lambda d: {"a": d}])(deep)
    return rng.choice([[], {}, [scalar(rng)] * 3, {"a": scalar(rng)}, list(range(2000)), deep])


def places(tree: Tree) -> Iterator[Place]:
    """Every place of a tree, from the root down."""
    waiting = [tree]
    while waiting:
        found = waiting.pop()
        keys = found if isinstance(found, dict) else range(len(found)) if isinstance(found, list) else ()
        for key in keys:
            yield found, key
            waiting.append(found[key])


def _put(rng: random.Random, place: Place) -> None:
    place[0][place[1]] = rng.choice([scalar, scalar, nested])(rng)


def _near(rng: random.Random, place: Place) -> None:
    """A value of the same kind, a bit other."""
    value = place[0][place[1]]
    if isinstance(value, bool) or value is None:
        place[0][place[1]] = not value
    elif isinstance(value, int | float):
        place[0][place[1]] = rng.choice([-value, value + 1, value * 1000, float(value), str(value), [value]])
    elif isinstance(value, str):
        at = rng.randrange(len(value) + 1)
        put = rng.choice(["", "-", ",", "9", " ", "\n", "\0", "é", value])
        place[0][place[1]] = value[:at] + put + value[at + rng.choice([0, 1, 3]) :]
    else:
        _put(rng, place)


def _drop(rng: random.Random, place: Place) -> None:
    del place[0][place[1]]


def _double(rng: random.Random, place: Place) -> None:
    """The same value once more."""
    holder, key = place
    if isinstance(holder, list):
        holder.insert(key, holder[key])
    else:
        holder[rng.choice(WORDS)] = holder[key]


def _rename(rng: random.Random, place: Place) -> None:
    holder, key = place
    if isinstance(holder, dict):
        holder[rng.choice([*WORDS, *holder])] = holder.pop(key)
    else:
        rng.shuffle(holder)


def _swap(rng: random.Random, place: Place) -> None:
    """The value of a neighbour."""
    holder, key = place
    other = rng.choice([*holder] if isinstance(holder, dict) else range(len(holder)))
    holder[key], holder[other] = holder[other], holder[key]


TREE_MUTATIONS: tuple[Callable[[random.Random, Place], None], ...] = (
    *(_put, _put, _near, _near, _near, _drop, _double, _rename, _swap),
)


def mutate_tree(rng: random.Random, tree: Tree, times: int | None = None) -> Tree:
    """A copy of a tree with one to three changes."""
    found = copy.deepcopy(tree)
    for _ in range(times or rng.choice([1, 1, 2, 3])):
        all_places = [*places(found)]
        if not all_places:
            return nested(rng)
        rng.choice(TREE_MUTATIONS)(rng, rng.choice(all_places))
    return found


def mutate_bytes(rng: random.Random, content: bytes) -> bytes:
    """Flipped bits, inserted, repeated or missing pieces, a cut end."""
    found = bytearray(content)
    how = rng.choice(["flip", "flip", "flip", "cut", "drop", "repeat", "insert", "fill", "replace"])
    at = rng.randrange(max(1, len(found)))
    size = rng.choice([1, 2, 4, 8, 64])
    if how == "flip":
        for _ in range(rng.choice([1, 1, 2, 8, 32])):
            if found:
                found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    elif how == "cut":
        del found[at:]
    elif how == "drop":
        del found[at : at + size]
    elif how == "repeat":
        found[at:at] = found[at : at + size] * rng.choice([1, 3, 1000])
    elif how == "insert":
        found[at:at] = rng.randbytes(size)
    elif how == "fill":
        found[at : at + size] = rng.choice([b"\0", b"\xff", b"\x7f"]) * size
    else:
        found[:] = rng.choice(
            [b"", b"\0", b"\n", b"\xff\xfe", b"\xef\xbb\xbf", rng.randbytes(400), b"[" * 50_000]
        )
    return bytes(found)


def mutate_text(rng: random.Random, text: str) -> str:
    """Lines and characters moved, dropped, doubled and replaced."""
    lines = text.split("\n")
    at = rng.randrange(len(lines))
    how = rng.choice(["drop", "double", "swap", "word", "indent", "long"])
    if how == "drop":
        del lines[at]
    elif how == "double":
        lines.insert(at, lines[at])
    elif how == "swap":
        other = rng.randrange(len(lines))
        lines[at], lines[other] = lines[other], lines[at]
    elif how == "indent":
        lines[at] = rng.choice([" ", "\t", "- ", "? ", ": ", "# ", "! ", "& ", "--- "]) + lines[at]
    elif how == "long":
        lines[at] += rng.choice(["x", " ", "[", "{", ","]) * 20_000
    else:
        words = lines[at].split(" ")
        words[rng.randrange(len(words))] = str(scalar(rng))
        lines[at] = " ".join(words)
    return "\n".join(lines)


YAML_CORNERS = (
    "!!python/object/apply:os.mkdir [pwned]\n",
    "labels: !!python/object/apply:os.mkdir [pwned]\n",
    "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(
        f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    ),
    "&a [*a]\n",
    "labels: &a [*a]\n",
    "{" * 3000,
    "- " * 3000,
    "a: " * 3000,
    "? " * 3000,
    "%YAML 9.9\n---\n",
    "--- 1\n--- 2\n",
    "<<: {<<: 1}\n",
    "labels: {<<: *x}\n",
    "1: 2\n[a]: b\n",
    "labels: 2024-01-01\n",
    "labels: 2024-99-99\n",
    "labels: !!binary '%%%'\n",
    "labels: !!set {a, b}\n",
    "input: 1:2:3\nlabels: 1_000\n",
    "labels: !!int x\n",
    "labels: !!float x\n",
    "labels: !!timestamp x\n",
    "labels: 0b\n",
    "labels: 9" + "9" * 6000 + "\n",
    "labels: 1:" + "9" * 6000 + "\n",
    "labels: 1e" + "9" * 300 + "\n",
)
"""Cards that are hard on a reader of YAML."""


def mutate_card(rng: random.Random, text: str) -> bytes:
    """A card: its tree, its text or its bytes changed."""
    import yaml

    how = rng.choice(["tree", "tree", "tree", "text", "text", "bytes", "corner", "encoding"])
    if how == "tree":
        tree = mutate_tree(rng, yaml.safe_load(text))
        return yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass")
    if how == "text":
        return mutate_text(rng, text).encode()
    if how == "bytes":
        return mutate_bytes(rng, text.encode())
    if how == "encoding":
        return text.encode(rng.choice(["utf-16", "utf-32", "utf-8-sig", "utf-7"]))
    corner = rng.choice(YAML_CORNERS)
    return rng.choice([corner, corner + text, text + corner]).encode()


def mutate_json(rng: random.Random, text: str) -> bytes:
    """A JSON file: its tree, its text or its bytes changed."""
    how = rng.choice(["tree", "tree", "tree", "tree", "text", "bytes", "corner"])
    if how == "tree":
        return json.dumps(mutate_tree(rng, json.loads(text))).encode("utf-8", "surrogatepass")
    if how == "text":
        return mutate_text(rng, text).encode()
    if how == "bytes":
        return mutate_bytes(rng, text.encode())
    corners = ["[" * 100_000, "{}", "[]", "null", "1" * 6000, '"', '{"a":' * 2000, "NaN", '"\\ud800"', "{,}"]
    return rng.choice(corners).encode()
