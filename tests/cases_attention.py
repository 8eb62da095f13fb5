"""Networks with attention, and the ways in which exporters write it: cases of the law.

:mod:`tests.cases` joins them with the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto

from tests.graphs import BATCH, CLASSES, Builder, Cases, Pick, T, _array, random_pick

TOKENS = 4
CASES = Cases()
case = CASES.case


def tokens(b: Builder, width: int = 6, *, steps: int = TOKENS) -> T:
    """A sequence of tokens: a first layer over the input."""
    return b.relu(b.matmul(b.input(steps, 5), width))


def pooled(b: Builder, x: T) -> onnx.ModelProto:
    """A consumer of every token, the mean over them, the head."""
    x = b.reduce(b.relu(b.matmul(x, 5)), axes=[1], keepdims=0)
    return b.model(b.gemm(x, CLASSES))


def heads_of(b: Builder, x: T, heads: int, order: tuple[int, ...] = (0, 2, 1, 3)) -> T:
    """(batch, tokens, heads * width) as (batch, heads, tokens, width)."""
    y = b.reshape(x, 0, x.shape[1], heads, x.shape[2] // heads)
    return b.one("Transpose", y, perm=order)


def attend(b: Builder, q: T, k: T, v: T, scale: float = 0.5, order: tuple[int, ...] = (0, 1, 3, 2)) -> T:
    """Softmax of the scaled products of queries and keys, times the values."""
    scores = b.one("MatMul", q, b.one("Transpose", k, perm=order))
    scores = b.one("Mul", scores, b.constant(scale))
    return b.one("MatMul", b.one("Softmax", scores, axis=-1 if b.opset >= 13 else 3), v)


def joined(b: Builder, x: T, width: int) -> T:
    """(batch, heads, tokens, width) as (batch, tokens, heads * width), and the output projection."""
    y = b.one("Transpose", x, perm=[0, 2, 1, 3])
    return b.matmul(b.reshape(y, 0, y.shape[1], y.shape[2] * y.shape[3]), width)


def separate(b: Builder, x: T, pick: Pick) -> T:
    """Three projections; queries and keys may have another width than values."""
    heads, width, values = pick([1, 2, 3]), pick([2, 3]), pick([2, 4])
    q, k = (heads_of(b, b.matmul(x, heads * width), heads) for _ in range(2))
    v = heads_of(b, b.matmul(x, heads * values), heads)
    return joined(b, attend(b, q, k, v), pick([4, 6]))


def fused(b: Builder, x: T, pick: Pick) -> T:
    """One projection for queries, keys and values, taken apart in one of several ways."""
    heads, width = pick([2, 3]), pick([2, 3])
    y = b.matmul(x, 3 * heads * width)
    kind = pick(["gather", "split first", "split last", "slice"])
    if kind == "split first":
        parts = b.split(y, [heads * width] * 3, axis=2, explicit=pick([True, False]))
        q, k, v = (heads_of(b, part, heads) for part in parts)
        return joined(b, attend(b, q, k, v), pick([4, 6]))
    y = b.reshape(y, 0, x.shape[1], 3, heads, width)
    y = b.one("Transpose", y, perm=[2, 0, 3, 1, 4])
    if kind == "gather":
        q, k, v = (b.one("Gather", y, b.constant(i, np.int64), axis=0) for i in range(3))
    elif kind == "slice":
        q, k, v = (b.squeeze(b.slice(y, i, i + 1, axis=0), 0) for i in range(3))
    else:
        q, k, v = (b.squeeze(part, 0) for part in b.split(y, [1, 1, 1], axis=0))
    return joined(b, attend(b, q, k, v), pick([4, 6]))


def interleaved(b: Builder, x: T, pick: Pick) -> T:
    """One projection whose heads hold queries, keys and values side by side (LeViT)."""
    heads, width, values = 2, pick([2, 3]), pick([2, 4])
    y = heads_of(b, b.matmul(x, heads * (2 * width + values)), heads)
    q, k, v = b.split(y, [width, width, values], axis=3)
    return joined(b, attend(b, q, k, v), pick([4, 6]))


def einsums(b: Builder, x: T, pick: Pick) -> T:
    """Projections with weights of three axes, as Keras and Flax write them."""
    heads, width, values = pick([2, 3]), pick([2, 3]), pick([2, 3])
    q, k = (projected(b, x, heads, width) for _ in range(2))
    v = projected(b, x, heads, values)
    scores = b.one("Einsum", q, k, equation="bthd,bshd->bhts")
    weights = b.one("Softmax", b.one("Mul", scores, b.constant(0.5)), axis=-1 if b.opset >= 13 else 3)
    y = b.one("Einsum", weights, v, equation="bhts,bshd->bthd")
    if pick([True, False]):
        weight = b.constant(b.rng.normal(0, 0.5, (heads, values, 6)))
        y = b.one("Einsum", y, weight, equation="bthd,hde->bte")
        return b.one("Add", y, b.distinct(6))
    return b.matmul(b.reshape(y, 0, x.shape[1], heads * values), 4)


def projected(b: Builder, x: T, heads: int, width: int) -> T:
    """Einsum with a weight of (inputs, heads, width), and its bias."""
    weight = b.constant(b.rng.normal(0, 0.5, (x.shape[-1], heads, width)))
    bias = b.constant(_array(b, b.distinct(heads * width)).reshape(heads, width))
    return b.one("Add", b.one("Einsum", x, weight, equation="btd,dhk->bthk"), bias)


def feed_forward(b: Builder, x: T, pick: Pick) -> T:
    """Two layers, the first one wide, beside the stream."""
    return b.one("Add", x, b.matmul(b.relu(b.matmul(x, pick([4, 8]))), x.shape[2]))


BLOCKS = (separate, fused, interleaved, einsums, feed_forward)


def _twice(b: Builder, block: object, seed: int) -> onnx.ModelProto:
    """Two blocks with other choices."""
    x = tokens(b)
    for number in range(2):
        x = b.relu(block(b, x, random_pick(seed + number)))  # type: ignore[operator]
    return pooled(b, x)


@case(11, 13, 18)
def attention_of_three_projections(b: Builder) -> onnx.ModelProto:
    """Queries, keys and values made apart."""
    return _twice(b, separate, 1)


@case(11, 13, 18)
def attention_of_one_projection(b: Builder) -> onnx.ModelProto:
    """Queries, keys and values made by one layer, taken apart in four ways."""
    x = tokens(b)
    kinds = ["gather", "split first", "split last", "slice"]
    for kind in kinds:
        x = b.relu(fused(b, x, lambda options, kind=kind: kind if kind in options else options[0]))
    return pooled(b, x)


@case(13)
def attention_of_interleaved_projections(b: Builder) -> onnx.ModelProto:
    """Queries, keys and values side by side in every head."""
    return _twice(b, interleaved, 2)


@case(12, 13, 18)
def attention_of_einsums(b: Builder) -> onnx.ModelProto:
    """Weights of three axes; the output projection by Einsum and by MatMul."""
    return _twice(b, einsums, 3)


@case(13)
def attention_with_residuals(b: Builder) -> onnx.ModelProto:
    """Attention and feed-forward layers on one stream."""
    x = tokens(b)
    for number in range(2):
        q, k, v = (heads_of(b, b.matmul(x, size), 2) for size in (4, 4, 6))
        x = feed_forward(b, b.one("Add", x, joined(b, attend(b, q, k, v), 6)), random_pick(number))
    return pooled(b, x)


@case(13)
def attention_across(b: Builder) -> onnx.ModelProto:
    """Queries from one sequence, keys and values from another."""
    x, y = tokens(b), tokens(b, 7, steps=3)
    q = heads_of(b, b.matmul(x, 6), 2)
    k, v = (heads_of(b, b.matmul(y, 6), 2) for _ in range(2))
    return pooled(b, joined(b, attend(b, q, k, v), 6))


@case(13)
def attention_of_shared_keys(b: Builder) -> onnx.ModelProto:
    """Two heads of queries for each head of keys and values, which are spread by Expand."""
    x = tokens(b)
    q = heads_of(b, b.matmul(x, 12), 4)
    k, v = (heads_of(b, b.matmul(x, 6), 2) for _ in range(2))
    spread = []
    for y in (k, v):
        y = b.one("Expand", b.unsqueeze(y, 2), b.ints(1, 2, 2, TOKENS, 3))
        spread.append(b.reshape(y, -1, 4, TOKENS, 3))
    return pooled(b, joined(b, attend(b, q, *spread), 6))


@case(13)
def attention_of_one_key_for_all(b: Builder) -> onnx.ModelProto:
    """Keys and values of one head, which broadcast."""
    x = tokens(b)
    q = heads_of(b, b.matmul(x, 9), 3)
    k, v = (heads_of(b, b.matmul(x, 3), 1) for _ in range(2))
    return pooled(b, joined(b, attend(b, q, k, v), 6))


@case(13)
def heads_in_the_batch(b: Builder) -> onnx.ModelProto:
    """Heads merged with the batch for the products, as exporters do."""
    x = tokens(b)
    q, k, v = (b.reshape(heads_of(b, b.matmul(x, 6), 2), -1, TOKENS, 3) for _ in range(3))
    y = attend3(b, q, k, v)
    return pooled(b, joined(b, b.reshape(y, -1, 2, TOKENS, 3), 6))


@case(13)
def heads_beside_the_batch(b: Builder) -> onnx.ModelProto:
    """Time first, heads merged with the batch behind it, by a target that is computed."""
    x = b.one("Transpose", tokens(b), perm=[1, 0, 2])
    size = b.one("Shape", x)
    batch = b.one("Gather", size, b.ints(1), axis=0)
    target = b.one("Concat", b.ints(TOKENS), b.one("Mul", batch, b.ints(2)), b.ints(3), axis=0)
    parts = []
    for _ in range(3):
        y = b.declare(b.one("Reshape", b.matmul(x, 6), target), (TOKENS, BATCH * 2, 3))
        parts.append(b.one("Transpose", y, perm=[1, 0, 2]))
    y = b.one("Transpose", attend3(b, *parts), perm=[1, 0, 2])
    y = b.matmul(b.reshape(y, TOKENS, -1, 6), 6)
    return pooled(b, b.one("Transpose", b.relu(y), perm=[1, 0, 2]))


@case(13)
def token_of_a_constant(b: Builder) -> onnx.ModelProto:
    """A constant beside features, before and behind them: it loses their channels."""
    b.fixed = True
    x = tokens(b)
    before, behind = (b.constant(b.rng.normal(0, 1, (BATCH, size, 6))) for size in (1, 2))
    x = b.one("Concat", before, x, behind, axis=1)
    return pooled(b, b.one("Add", x, b.constant(b.rng.normal(0, 1, (1, 7, 6)))))


def attend3(b: Builder, q: T, k: T, v: T) -> T:
    """Attention of tensors of three axes."""
    scores = b.one("MatMul", q, b.one("Transpose", k, perm=[0, 2, 1]))
    return b.one("MatMul", b.one("Softmax", scores, axis=-1), v)


@case(13)
def matmuls_of_constants(b: Builder) -> onnx.ModelProto:
    """A constant matrix on the left, and one for each head."""
    x = b.one("Transpose", tokens(b), perm=[0, 2, 1])
    bias = b.constant(_array(b, b.distinct(5)).reshape(5, 1))
    left = b.constant(b.rng.normal(0, 0.5, (5, 6)))
    x = b.relu(b.one("Add", b.one("MatMul", left, x), bias))
    x = b.one("Transpose", x, perm=[0, 2, 1])
    x = heads_of(b, b.matmul(x, 6), 2)
    each = b.constant(b.rng.normal(0, 0.5, (2, 3, 4)))
    x = b.one("Add", b.one("MatMul", x, each), b.distinct(4))
    return pooled(b, joined(b, b.relu(x), 6))


@case(13)
def einsums_of_many_forms(b: Builder) -> onnx.ModelProto:
    """Transposed outputs, an ellipsis, no arrow, a sum, a product of every pair."""
    x = tokens(b)
    weight = b.constant(b.rng.normal(0, 0.5, (7, 6)))
    x = b.one("Add", b.one("Einsum", x, weight, equation="...d,ed->...e"), b.distinct(7))
    x = b.one("Einsum", b.relu(x), equation="btd->bdt")
    mixed = b.one("Einsum", x, b.one("Sigmoid", x), equation="bdt,bet->bde")
    x = b.one("Einsum", b.one("Mul", mixed, b.constant(0.1)), x, equation="bde,bet->btd")
    weight = b.constant(b.rng.normal(0, 0.5, (7, 4)))
    x = b.one("Add", b.one("Einsum", x, weight, equation="bsd,dt"), b.distinct(4))
    gate = b.one("Sigmoid", b.one("Mul", b.one("Einsum", x, equation="btd->bt"), b.constant(0.2)))
    return pooled(b, b.one("Mul", b.relu(x), b.unsqueeze(gate, 2)))


@case(13)
def scale_of_a_computed_width(b: Builder) -> onnx.ModelProto:
    """The scale is the root of the width that Shape tells: it stays that of the parent."""
    x = tokens(b)
    q, k, v = (heads_of(b, b.matmul(x, 8), 2) for _ in range(3))
    width = b.one("Gather", b.one("Shape", q), b.constant(3, np.int64), axis=0)
    root = b.one("Sqrt", b.one("Cast", width, to=TensorProto.FLOAT))
    scores = b.one("Div", b.one("MatMul", q, b.one("Transpose", k, perm=[0, 1, 3, 2])), root)
    return pooled(b, joined(b, b.one("MatMul", b.one("Softmax", scores, axis=-1), v), 6))


@case(13)
def computed_targets(b: Builder) -> onnx.ModelProto:
    """Targets of Reshape put together from Shape, one of them for two Reshapes."""
    x = tokens(b)
    size = b.one("Shape", x)
    sizes = [b.unsqueeze(b.one("Gather", size, b.constant(i, np.int64), axis=0), 0) for i in (0, 1)]
    target = b.one("Concat", *sizes, b.ints(2, 3), axis=0)
    parts = []
    for _ in range(3):
        y = b.declare(b.one("Reshape", b.matmul(x, 6), target), (BATCH, TOKENS, 2, 3))
        parts.append(b.one("Transpose", y, perm=[0, 2, 1, 3]))
    y = b.one("Transpose", attend(b, *parts), perm=[0, 2, 1, 3])
    back = b.one("Concat", *sizes, b.ints(6), axis=0)
    y = b.declare(b.one("Reshape", y, back), (BATCH, TOKENS, 6))
    return pooled(b, b.matmul(y, 5))


@case(13)
def constants_that_are_spread(b: Builder) -> onnx.ModelProto:
    """A bias for every pair of tokens and head that first meets a mask without heads, as in Swin."""
    x = tokens(b)
    q, k, v = (heads_of(b, b.matmul(x, 6), 2) for _ in range(3))
    mask = b.one("Sigmoid", b.unsqueeze(b.one("MatMul", b.input(4, 3), b.weight(3, 4)), 1))
    bias = b.one("Add", mask, b.constant(b.rng.normal(0, 1, (1, 2, 4, 4))))
    scores = b.one("Add", b.one("MatMul", q, b.one("Transpose", k, perm=[0, 1, 3, 2])), bias)
    return pooled(b, joined(b, b.one("MatMul", b.one("Softmax", scores, axis=-1), v), 6))


@case(13)
def windows(b: Builder) -> onnx.ModelProto:
    """A map in windows with channels last, attention inside, and back (Swin)."""
    x = b.relu(b.conv(b.input(3, 4, 4), 6))
    x = b.one("Transpose", x, perm=[0, 2, 3, 1])
    x = b.one("Transpose", b.reshape(x, -1, 2, 2, 2, 2, 6), perm=[0, 1, 3, 2, 4, 5])
    x = b.reshape(x, -1, 4, 6)
    x = b.relu(separate(b, x, random_pick(5)))
    x = b.reshape(x, -1, 2, 2, 2, 2, x.shape[2])
    x = b.reshape(b.one("Transpose", x, perm=[0, 1, 3, 2, 4, 5]), -1, 16, x.shape[5])
    return pooled(b, x)


@case(13)
def patches(b: Builder) -> onnx.ModelProto:
    """A Conv over patches, a class token, positions, attention, and the first token alone."""
    x = b.conv(b.input(3, 4, 4), 6, 2, strides=[2, 2], pads=[0] * 4)
    x = b.one("Transpose", b.reshape(x, 0, 6, 4), perm=[0, 2, 1])
    token = b.one("Expand", b.constant(b.rng.normal(0, 1, (1, 1, 6))), b.ints(BATCH, 1, 6))
    b.fixed = True
    b.inputs[0].type.tensor_type.shape.dim[0].dim_value = BATCH
    x = b.one("Concat", token, x, axis=1)
    x = b.one("Add", x, b.constant(b.rng.normal(0, 1, (1, 5, 6))))
    x = b.one("Add", x, separate(b, x, lambda options: options[-1]))
    x = b.one("Gather", x, b.constant(0, np.int64), axis=1)
    return b.model(b.gemm(b.relu(b.gemm(x, 6)), CLASSES))


# -------------------------------------------------------------------- one operator


@case(23, 24)
def attention_operator(b: Builder) -> onnx.ModelProto:
    """Three axes: values of another width, shared heads of keys, scores for every head; four axes."""
    x = tokens(b)
    q, k, v = (b.matmul(x, size) for size in (4 * 3, 2 * 3, 2 * 2))
    more = {"q_num_heads": 4, "kv_num_heads": 2, "is_causal": 1}
    y = b.declare(b.one("Attention", q, k, v, **more), (BATCH, TOKENS, 8))
    x = b.relu(b.matmul(y, 6))
    q, k, v = (b.matmul(x, 6) for _ in range(3))
    bias = b.constant(b.rng.normal(0, 1, (2, TOKENS, TOKENS)))
    more = {"q_num_heads": 2, "kv_num_heads": 2, "softcap": 2.0}
    x = b.relu(b.matmul(b.declare(b.one("Attention", q, k, v, bias, **more), (BATCH, TOKENS, 6)), 6))
    q, k, v = (heads_of(b, b.matmul(x, 6), 2) for _ in range(3))
    y = b.declare(b.one("Attention", q, k, v, scale=0.4), (BATCH, 2, TOKENS, 3))
    return pooled(b, joined(b, y, 6))


@case(17)
def multi_head_attention(b: Builder) -> onnx.ModelProto:
    """onnxruntime's operator, with and without its bias, with scores for every head."""
    x = tokens(b)
    q, k, v = (b.matmul(x, size) for size in (6, 6, 4))
    more = {"num_heads": 2, "domain": "com.microsoft"}
    x = b.relu(b.matmul(b.declare(b.one("MultiHeadAttention", q, k, v, **more), (BATCH, TOKENS, 4)), 6))
    q, k, v = (b.matmul(x, 6) for _ in range(3))
    scores = b.constant(b.rng.normal(0, 1, (1, 2, TOKENS, TOKENS)))
    y = b.one("MultiHeadAttention", q, k, v, b.distinct(18), None, scores, **more)
    return pooled(b, b.matmul(b.declare(y, (BATCH, TOKENS, 6)), 6))


@case(17)
def fused_attention(b: Builder) -> onnx.ModelProto:
    """onnxruntime's operator that holds the projections, values of the same and of another width."""
    x = tokens(b)
    for sizes in ([6, 6, 6], [6, 6, 4]):
        weight = b.constant(b.rng.normal(0, 0.6, (6, sum(sizes))))
        more = {"num_heads": 2, "domain": "com.microsoft", "qkv_hidden_sizes": sizes}
        if sizes[2] == 6:
            more.pop("qkv_hidden_sizes")
        y = b.declare(
            b.one("Attention", x, weight, b.distinct(sum(sizes)), **more), (BATCH, TOKENS, sizes[2])
        )
        x = b.relu(b.matmul(y, 6))
    return pooled(b, x)


# -------------------------------------------------------------------- random networks


def start(b: Builder, pick: Pick) -> T:
    """Tokens: from vectors, from the patches of an image, from the places of a map."""
    kind = pick(["vectors", "patches", "map"])
    if kind == "vectors":
        return tokens(b, pick([4, 6]))
    if kind == "patches":
        x = b.conv(b.input(3, 4, 6), pick([4, 6]), 2, strides=[2, 2], pads=[0] * 4)
        return b.one("Transpose", b.reshape(x, 0, x.channels, -1), perm=[0, 2, 1])
    x = b.one("Transpose", b.relu(b.conv(b.input(3, 2, 3), pick([4, 6]))), perm=[0, 2, 3, 1])
    return b.reshape(x, -1, 6, x.shape[3])


def finish(b: Builder, x: T, pick: Pick) -> onnx.ModelProto:
    """The mean over tokens, the first token, or all of them; the head."""
    x = b.relu(b.matmul(x, pick([3, 5])))
    kind = pick(["mean", "first", "all"])
    if kind == "mean":
        x = b.reduce(x, axes=[1], keepdims=0)
    elif kind == "first":
        x = b.one("Gather", x, b.constant(0, np.int64), axis=1)
    else:
        x = b.one("Flatten", x)
    return b.model(b.gemm(x, CLASSES))


def beside(b: Builder, x: T, pick: Pick) -> T:
    """A block whose output is added to a projection of its input, or to the input itself."""
    y = pick(BLOCKS[:4])(b, x, pick)
    return b.one("Add", y, x if y.shape == x.shape else b.matmul(x, y.shape[2]))


def positions(b: Builder, x: T, pick: Pick) -> T:
    """A constant for every token and channel."""
    return b.one("Add", x, b.constant(b.rng.normal(0, 1, (1, *x.shape[1:]))))


def shuffled_heads(b: Builder, x: T, pick: Pick) -> T:
    """Channels as heads, in another order, and one axis again."""
    if x.shape[2] % 2:
        return b.relu(x)
    y = b.one("Transpose", b.reshape(x, 0, x.shape[1], 2, -1), perm=[0, 1, 3, 2])
    return b.reshape(b.one("Tanh", y), 0, x.shape[1], x.shape[2])


@st.composite
def networks(draw: st.DrawFn) -> onnx.ModelProto:
    """Random networks over sequences of tokens."""

    def pick(options: Sequence[Any]) -> Any:
        return draw(st.sampled_from(list(options)))

    b = Builder(draw(st.integers(0, 2**16)), pick([12, 13, 17, 18, 21]), fixed=pick([False, False, True]))
    x = start(b, pick)
    for _ in range(draw(st.integers(1, 3))):
        x = pick((*BLOCKS, beside, positions, shuffled_heads))(b, x, pick)
        x = b.relu(x) if pick([True, False]) else x
    return finish(b, x, pick)
