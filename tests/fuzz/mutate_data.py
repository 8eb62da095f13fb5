"""Mutants of data: ``.npz`` and ``.npy`` files, folders of images, profiles."""

from __future__ import annotations

import io
import random
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.fuzz.mutate_files import Pwned, replace_file
from tests.fuzz.mutate_text import WORDS, mutate_bytes, mutate_json

Arrays = dict[str, np.ndarray[Any, Any]]

HEADERS = (
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 6), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 6), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (20, 6, 4611686018427387904), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (20, 6), }",
    "{'descr': '<U536870912', 'fortran_order': False, 'shape': (20,), }",
    "{'descr': [('a', '<f4'), ('b', '<i8')], 'fortran_order': False, 'shape': (20,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (20, 6), 'more': 1}",
    "{'descr': '<f4', 'fortran_order': 1, 'shape': 20}",
    "__import__('os').mkdir('pwned')",
    "(" * 9000,
    "{'descr': '" + "x" * 9000 + "'}",
    "[" * 90,
    "",
)


def npy(header: str) -> bytes:
    """An array file with any header, and few values."""
    text = header.encode("latin-1") + b"\n"
    return b"\x93NUMPY\2\0" + struct.pack("<I", len(text)) + text + b"\0" * 480


def mutate_array(rng: random.Random, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Another shape, type or other values."""
    how = rng.choice(["values", "values", "one", "kind", "kind", "shape", "fewer", "more", "empty", "rank"])
    found = values.copy()
    with np.errstate(all="ignore"):
        if how == "values":
            found[...] = np.array(rng.choice([0, -1, 1, np.nan, np.inf, 1e30, 255, 2**31])).astype(
                values.dtype
            )
        elif how == "one" and found.size:
            found.reshape(-1)[0] = np.array(rng.choice([-1, np.nan, np.inf, 99, 1e30])).astype(values.dtype)
        elif how == "kind":
            kinds = ["f2", "f8", "i1", "u1", "i8", "u8", "?", "c8", ">f4", "U5", "S5", "M8[s]", "m8[s]", "V4"]
            kind = rng.choice(kinds)
            found = np.zeros(values.shape, kind) if kind in ("M8[s]", "m8[s]", "V4") else values.astype(kind)
        elif how == "shape":
            found = rng.choice([values.T, values.reshape(-1), values[..., None], values[None]])
        elif how == "fewer":
            found = values[: rng.choice([0, 1, 3])]
        elif how == "more":
            found = np.concatenate([values] * rng.choice([2, 3]))
        elif how == "empty":
            found = np.zeros((0, *values.shape[1:]), values.dtype)
        elif how == "rank":
            found = values[..., :-1] if values.ndim > 1 else values[:, None]
    return found


def _objects(rng: random.Random) -> np.ndarray[Any, Any]:
    found = np.empty(4, object)
    found[:] = [Pwned(), None, 1, "x"] if rng.random() < 0.8 else Pwned()
    return found


def _write(path: Path, members: dict[str, bytes], packed: bool = True) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def _bytes(values: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=True)
    return buffer.getvalue()


def mutate_npz(rng: random.Random, path: Path) -> str:
    """Change a data file in place; what was done."""
    how = rng.choice(
        ["array"] * 6
        + ["bytes"] * 2
        + ["member", "header", "object", "keys", "names", "bomb", "zip", "other"]
    )
    if how == "bytes":
        path.write_bytes(mutate_bytes(rng, path.read_bytes()))
        return how
    with np.load(path) as loaded:
        arrays: Arrays = {name: loaded[name] for name in loaded.files}
    key = rng.choice([*arrays])
    if how == "array":
        arrays[key] = mutate_array(rng, arrays[key])
    elif how == "keys":
        _change_keys(rng, arrays, key)
    elif how == "names":
        words = [rng.choice(WORDS) for _ in range(5)]
        names = rng.choice([np.array(words), np.arange(5), np.array([b"\xff\xfe"] * 5), np.array("x")])
        arrays[rng.choice(["class_names", "labels"])] = names
    elif how == "object":
        arrays[key] = _objects(rng)
    members = {f"{name}.npy": _bytes(values) for name, values in arrays.items()}
    if how == "member":
        members[f"{key}.npy"] = mutate_bytes(rng, members[f"{key}.npy"])
    elif how == "header":
        members[f"{key}.npy"] = npy(rng.choice(HEADERS))
    elif how == "bomb":
        members[f"{key}.npy"] = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (10000000,), }")
        members[f"{key}.npy"] += b"\0" * 40_000_000
    elif how == "zip":
        members |= {"../../outside.npy": b"", "/etc/x.npy": b"", "x": b"", "a/b.npy": npy("")}
    _write(path, members)
    if how == "other":
        replace_file(rng, path)
    return how


def _change_keys(rng: random.Random, arrays: Arrays, key: str) -> None:
    how = rng.choice(["drop", "rename", "double"])
    values = arrays[key] if how == "double" else arrays.pop(key)
    if how != "drop":
        arrays[rng.choice(["x", "y", "x_val", "x_train.", "x_train.no", "y_test.x", "x" * 200])] = values


def mutate_npy(rng: random.Random, path: Path) -> str:
    """Change one raw sample in place; what was done."""
    how = rng.choice(["array", "array", "array", "bytes", "header", "object", "other"])
    if how == "array":
        np.save(path, mutate_array(rng, np.load(path)))
    elif how == "bytes":
        path.write_bytes(mutate_bytes(rng, path.read_bytes()))
    elif how == "header":
        path.write_bytes(npy(rng.choice(HEADERS)))
    elif how == "object":
        np.save(path, _objects(rng), allow_pickle=True)
    else:
        replace_file(rng, path)
    return how


# ------------------------------------------------------------------- images

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n(pwned) (w) file closefile showpage\n"


def _png(width: int, height: int) -> bytes:
    """The beginning of a picture that says to be of this size."""
    buffer = io.BytesIO()
    Image.new("L", (4, 4)).save(buffer, "PNG")
    content = bytearray(buffer.getvalue())
    content[16:24] = struct.pack(">II", width, height)
    import zlib

    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def mutate_images(rng: random.Random, folder: Path) -> str:
    """Change one file or folder of a folder of images; what was done."""
    files = sorted(path for path in folder.rglob("*.png"))
    path = rng.choice(files)
    how = rng.choice(
        ["bytes"] * 4 + ["mode", "size", "huge", "postscript", "format", "name", "file", "folder"]
    )
    if how == "bytes":
        path.write_bytes(mutate_bytes(rng, path.read_bytes()))
    elif how == "mode":
        mode = rng.choice(["RGB", "RGBA", "CMYK", "1", "P", "I;16", "F", "LA", "I"])
        image = Image.new(mode, (4, 4))
        image.save(path, "TIFF")
    elif how == "size":
        Image.new("L", rng.choice([(1, 1), (5, 4), (4, 300), (2000, 1)])).save(path)
    elif how == "huge":
        path.write_bytes(_png(*rng.choice([(30_000, 30_000), (2**31 - 1, 1), (60_000, 4), (0, 0), (4, 0)])))
    elif how == "postscript":
        path.write_bytes(POSTSCRIPT)
    elif how == "format":
        Image.new("RGB", (4, 4)).save(
            path, rng.choice(["GIF", "BMP", "ICO", "PDF", "EPS", "PPM", "TGA", "WEBP"])
        )
    elif how == "name":
        path.rename(
            path.with_name(rng.choice(["\x1b[31m.png", "a\nb.png", ".hidden.png", "-x.png", "é.PNG"]))
        )
    elif how == "file":
        replace_file(rng, path)
    else:
        _change_folder(rng, folder, path.parent)
    return how


def _change_folder(rng: random.Random, folder: Path, place: Path) -> None:
    how = rng.choice(["rename", "empty", "loop", "deep", "extra", "split"])
    if how == "rename":
        place.rename(place.with_name(rng.choice(["\x1b[2J", "no such class", "(other)", ".x", "a,b", "0"])))
    elif how == "empty":
        for path in place.iterdir():
            path.unlink()
    elif how == "loop":
        (place / "again").symlink_to(folder.resolve())
    elif how == "deep":
        (place / "a/b/c").mkdir(parents=True)
    elif how == "extra":
        (place / "note.txt").write_text("no image")
        (folder / "train.txt").write_text("")
    else:
        (folder / "test").rename(folder / rng.choice(["val", "TEST", "x"]))


# ------------------------------------------------------------------- profiles


def mutate_profile(rng: random.Random, path: Path) -> str:
    """Change a profile, a safetensors file, in place; what was done."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header, values = content[8 : 8 + size], content[8 + size :]
    how = rng.choice(["bytes", "header", "header", "inner", "inner", "values", "length"])
    if how == "bytes":
        content = mutate_bytes(rng, content)
    elif how == "values":
        content = content[: 8 + size] + mutate_bytes(rng, values)
    elif how == "length":
        content = rng.choice([0, 1, size + 1, 2**40, 2**64 - 1]).to_bytes(8, "little") + content[8:]
    else:
        changed = _inner(rng, header) if how == "inner" else mutate_json(rng, header.decode())
        content = len(changed).to_bytes(8, "little") + changed + values
    path.write_bytes(content)
    return how


def _inner(rng: random.Random, header: bytes) -> bytes:
    """Change what Graft itself keeps in the header: JSON within JSON."""
    import json

    tree = json.loads(header)
    inner = tree.get("__metadata__", {})
    key = rng.choice(sorted(inner)) if inner else ""
    inner[key] = mutate_json(rng, inner.get(key, "{}") or "{}").decode("utf-8", "replace")
    return json.dumps(tree).encode()
