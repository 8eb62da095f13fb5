"""Data files that are broken, or made to break: one clear error, at once, without taking much memory."""

import io
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from graft.rewriter.card.input_card import InputCard
from graft.rewriter.data import reading
from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.images import read_image
from graft.rewriter.data.npy import read_npy
from graft.rewriter.data.npz import open_samples
from graft.rewriter.errors import GraftError
from graft.rewriter.measure.prediction import read_sample

posix = pytest.mark.skipif(os.name != "posix", reason="pipes and links have no paths on Windows")
X, Y = np.arange(80, dtype=np.float32).reshape(20, 4), np.arange(20) % 2


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def header(text: bytes) -> bytes:
    return b"\x93NUMPY\2\0" + len(text).to_bytes(4, "little") + text


def declared(shape: str, descr: str = "'<f4'", fortran: str = "False") -> bytes:
    return header(f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}}}".encode())


def archive(path: Path, x: bytes, y: bytes | None = None, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("x_train.npy", x)
        file.writestr("y_train.npy", npy(Y) if y is None else y)
    return path


def refused(path: Path, code: str = "data-unreadable") -> GraftError:
    def read() -> None:
        split = Dataset.load(path).split("train")
        split.raw(range(len(split)))

    with pytest.raises(GraftError) as caught:
        read()
    assert caught.value.code == code, caught.value
    return caught.value


HEADERS = {
    "brackets": header(b"(" * 9000),
    "text": header(b"not python"),
    "a call": declared("(20, 4)", "__import__('os').getcwd()"),
    "no integers": declared("(20.0, 4)"),
    "negative": declared("(-20, -4)"),
    "huge": declared("(20, 274877906944)"),
    "beyond int64": declared(f"({2**70}, 4)"),
    "no dtype": declared("(20, 4)", "'<q9'"),
    "huge items": declared("(20,)", "'|S2147483647'"),
    "many dimensions": declared(str((1,) * 99)),
    "short": npy(X)[:-1],
    "version": b"\x93NUMPY\\9\0" + npy(X)[8:],
    "empty": b"",
}


@pytest.mark.parametrize("content", HEADERS.values(), ids=HEADERS)
def test_headers_of_arrays(content: bytes, tmp_path: Path) -> None:
    assert "x.npz" in str(refused(archive(tmp_path / "x.npz", content)))
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(GraftError) as caught:
        read_npy(tmp_path / "x.npy")
    assert (caught.value.code, caught.value.hint) == ("data-unreadable", "save it with numpy.save")


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(GraftError) as caught:
        read_npy(tmp_path / "x.npy")
    assert caught.value.code == "data-format"
    refused(archive(tmp_path / "x.npz", (tmp_path / "x.npy").read_bytes()), "data-format")


def test_samples_that_hold_nothing(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
        file.writestr("x.npy", declared(f"({2**40}, 0)"))
    refused(tmp_path / "x.npz")


def test_arrays_that_unpack_to_gigabytes(tmp_path: Path) -> None:
    """The header, the archive and the packed content agree with each other."""
    size = 1 << 30
    block, packer = bytes(1 << 20), zlib.compressobj(9, zlib.DEFLATED, -15)
    content = declared(f"(20, {size // 80})")
    content += bytes(128 - len(content) % 64)
    packed = packer.compress(content) + b"".join(packer.compress(block) for _ in range(64)) + packer.flush()
    path = archive(tmp_path / "x.npz", b"")
    # As if it went on: 1 GB in some 100 kB. No more of it is needed to be refused.
    name = b"x_train.npy"
    sizes = struct.pack("<IIIHH", 0, len(packed), size, len(name), 0)
    local = b"PK\3\4\x14\0\0\0\x08\0\0\0\0\0" + sizes + name + packed
    central = b"PK\1\2\x14\0\x14\0\0\0\x08\0\0\0\0\0" + sizes + bytes(2 + 2 + 2 + 4 + 4) + name
    path.write_bytes(
        local + central + b"PK\5\6\0\0\0\0\1\0\1\0" + struct.pack("<IIH", len(central), len(local), 0)
    )
    error = refused(path)
    assert "1.1 GB in a file that takes" in error.message and error.hint == "save it with np.savez, unpacked"
    with pytest.raises(GraftError, match=r"1\.1 GB"):
        open_samples(path)


def test_other_packing_than_that_of_numpy(tmp_path: Path) -> None:
    """bzip2 unpacks gigabytes at one go, whatever is asked of it."""
    assert "members that numpy has not packed" in str(
        refused(archive(tmp_path / "x.npz", npy(X), None, zipfile.ZIP_BZIP2))
    )


@posix
def test_a_file_with_a_hole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BOMB_BYTES", 1 << 24)
    start = declared("(1048576, 16)")
    with (tmp_path / "x.npy").open("wb") as file:
        file.write(start)
        file.truncate(len(start) + (1 << 26))
    with pytest.raises(GraftError, match=r"0\.1 GB in a file that takes"):
        read_npy(tmp_path / "x.npy")


def test_not_enough_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> None:
        raise MemoryError

    np.save(tmp_path / "x.npy", X)
    monkeypatch.setattr(np, "load", load)
    with pytest.raises(GraftError) as caught:
        read_npy(tmp_path / "x.npy")
    assert caught.value.code == "memory" and "x.npy" in caught.value.message


def test_a_whole_archive_is_read(tmp_path: Path) -> None:
    split = Dataset.load(archive(tmp_path / "x.npz", npy(X))).split("train")
    np.testing.assert_array_equal(split.raw(range(20))[""], X)


# ---- what is no file


@posix
@pytest.mark.parametrize("name", ["x.png", "x.npy", "x.npz", "x.jpg", "x.parquet", "x"])
def test_what_is_no_file(name: str, tmp_path: Path) -> None:
    card = InputCard(name="x", kind="image", size=(4, 4), color="GRAY")
    os.mkfifo(tmp_path / name)
    (tmp_path / f"link-{name}").symlink_to("/nowhere")
    for path, found in ((tmp_path / name, "a named pipe"), (tmp_path / f"link-{name}", "a link to nothing")):
        with pytest.raises(GraftError, match=f"found {found}"):
            Dataset.load(path)
        with pytest.raises(GraftError, match=f"found {found}"):
            read_sample(path, card)
    for device in ("/dev/zero", "/dev/null"):
        with pytest.raises(GraftError, match="found a device"):
            Dataset.load(device)
        with pytest.raises(GraftError, match="found a device"):
            read_sample(Path(device), card)


@posix
@pytest.mark.parametrize("suffix", [".png", ".JPEG", ".parquet"])
@pytest.mark.parametrize("kind", ["pipe", "link", "device"])
def test_what_is_no_file_in_a_folder(suffix: str, kind: str, tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("L", (4, 4)).save(tmp_path / split / name / "a.png")
    path = tmp_path / ("train/cat" if suffix != ".parquet" else "") / f"x{suffix}"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/nowhere" if kind == "link" else "/dev/zero")
    error = refused(tmp_path)
    assert str(path) in error.message and "where" not in error.message


@pytest.mark.parametrize("name", ["x" * 300, "a/" * 3000, "a\0b"])
def test_paths_that_cannot_be(name: str) -> None:
    with pytest.raises(GraftError) as caught:
        Dataset.load(name)
    assert caught.value.code in ("data-missing", "data-unreadable")


# ---- images


def test_postscript_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr("subprocess.Popen.__init__", run)
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    for source in (eps, tmp_path / "x.png"):
        (tmp_path / "x.png").write_bytes(eps)
        with pytest.raises(GraftError, match="no image, or one that is not of BMP, JPEG, PNG, WEBP"):
            read_image(source)


@pytest.mark.parametrize("kind", ["BMP", "JPEG", "PNG", "WEBP", "MPO"])
def test_formats_that_are_read(kind: str) -> None:
    file = io.BytesIO()
    pictures = [Image.new("RGB", (8, 8), (200, 100, 50)) for _ in range(2)]
    pictures[0].save(
        file, kind, **({"save_all": True, "append_images": pictures[1:]} if kind == "MPO" else {})
    )
    found = read_image(file.getvalue())
    assert found.shape == (8, 8, 3) and np.abs(found.astype(int) - (200, 100, 50)).max() < 8


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PPM", "ICO", "PDF", "PCX"])
def test_formats_that_are_not(kind: str) -> None:
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, kind)
    with pytest.raises(GraftError, match="no image, or one that is not of"):
        read_image(file.getvalue())


def test_an_image_of_too_many_pixels(tmp_path: Path) -> None:
    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
    with pytest.raises(GraftError, match="expected an image of at most"):
        read_image(start + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b""))


# ---- Parquet


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (4, 4), shade).save(file, "PNG")
    return file.getvalue() + os.urandom(1 << 16)  # what comes after the image is not looked at


def test_parquet_stores_an_image_once(tmp_path: Path) -> None:
    """3,000 rows of one image of 64 kB would take 200 MB, in a file of 66 kB."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for name, images in (("plain", [png(7)] * 3000), ("pair", [{"bytes": png(7), "path": "x"}] * 3000)):
        pq.write_table(pa.table({"image": images, "label": ["cat"] * 3000}), tmp_path / f"{name}.parquet")
        before = pa.total_allocated_bytes()
        split = Dataset.load(tmp_path / f"{name}.parquet").split("train")
        found = split.raw([0, 2999])[""]
        assert found.shape == (2, 4, 4, 3) and (found == 7).all()
        assert split.class_names == ("cat",) and not split.labels.any()
        assert pa.total_allocated_bytes() - before < 10e6


@pytest.mark.parametrize("column", ["label", "x", "name"])
def test_parquet_of_repetitions(column: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(reading, "BOMB_BYTES", 1 << 20)
    count = 200_000 if column == "label" else 1000
    x = [[0.0] * 1000] * count if column == "x" else [0.0] * count
    label = ["n" * 10_000] * count if column == "name" else [0] * count
    pq.write_table(pa.table({"x": x, "label": label}), tmp_path / "a.parquet")
    error = refused(tmp_path / "a.parquet")
    assert "GB in a file that takes" in error.message and "without compression" in error.hint


@pytest.mark.parametrize("same", [True, False])
def test_a_parquet_file_of_one_large_image(
    same: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stored once, and each row takes its own: what the file declares is that of one."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(reading, "BOMB_BYTES", 1 << 23)
    monkeypatch.setattr("graft.rewriter.data.parquet.DICTIONARY", 1 << 20)
    images = [bytes(1 << 22) if same else np.random.default_rng(0).bytes(1 << 22)] * 4
    table = pa.table({"image": pa.array(images, pa.binary()), "label": [0, 1, 0, 1]})
    pq.write_table(table, tmp_path / "a.parquet", compression="gzip")
    if same:
        assert "GB in a file that takes" in refused(tmp_path / "a.parquet").message
    else:
        assert len(Dataset.load(tmp_path / "a.parquet").split("train"))


@pytest.mark.parametrize(
    "names",
    ["[" * 5000, '{"a": 1}', '[["a"], ["b", "c"]]', '["a", "a"]', f'["{"n" * 5000}"]', "[]", '"a"', "7"],
    ids=["deep", "keys", "lists", "twice", "long", "none", "text", "number"],
)
def test_parquet_with_odd_names(names: str, tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    text = f'{{"info": {{"features": {{"label": {{"names": {names}}}}}}}}}'
    table = pa.table({"x": [[1.0]] * 4, "label": [0, 1, 0, 1]})
    pq.write_table(table.replace_schema_metadata({"huggingface": text}), tmp_path / "a.parquet")
    if names.startswith("[[[["):
        assert Dataset.load(tmp_path / "a.parquet").split("train").class_names is None
    else:
        assert "label" in refused(tmp_path / "a.parquet", "data-labels").message


def test_parquet_that_is_cut_short(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"x": [[1.0]] * 4, "label": [0, 1, 0, 1]}), tmp_path / "a.parquet")
    content = (tmp_path / "a.parquet").read_bytes()
    for size in (0, 4, len(content) // 2, len(content) - 1):
        (tmp_path / "a.parquet").write_bytes(content[:size])
        refused(tmp_path / "a.parquet")
