"""Single operators: what they tie and pin, and what a cut writes into attributes and inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.groups.plan import Plan
from graft.rewriter.measure.cost import cost_of
from tests import cases, graphs, masker, small
from tests.graphs import CLASSES, Builder, T
from tests.law import Law
from tests.masker import Array


def groups_of(proto: onnx.ModelProto) -> ChannelGroups:
    return ChannelGroups(Model.from_proto(proto))


def sizes(proto: onnx.ModelProto) -> list[int]:
    """Number of channels of each group, the classes left out."""
    return [group.size for group in groups_of(proto)][:-1]


def cut(proto: onnx.ModelProto, *dropped: Sequence[int]) -> onnx.ModelProto:
    """``proto`` without the channels ``dropped[i]`` of its i-th group, checked and run."""
    model = Model.from_proto(proto)
    kept = {
        group.name: ~np.isin(np.arange(group.size), channels)
        for group, channels in zip(ChannelGroups(model), dropped, strict=False)
    }
    small.prune(model, Plan("", kept))
    result = model.proto()
    onnx.checker.check_model(result, full_check=True)
    masker.run(result, graphs.samples(proto))
    return result


def nodes(proto: onnx.ModelProto, operator: str) -> list[onnx.NodeProto]:
    return [node for node in proto.graph.node if node.op_type == operator]


def values(proto: onnx.ModelProto, node: onnx.NodeProto, index: int) -> Array:
    """The constant at one input of a node."""
    return masker.constant_values(proto.graph)[node.input[index]]


def listed(proto: onnx.ModelProto, operator: str, index: int) -> Any:
    """The constant at one input of the only node of an operator, as a list."""
    (node,) = nodes(proto, operator)
    return values(proto, node, index).tolist()


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def build(opset: int, middle: Callable[[Builder, T], T], channels: int = 6) -> onnx.ModelProto:
    """A layer, ``middle``, a Conv, a head."""
    b = Builder(opset=opset)
    return graphs.classify(b, middle(b, graphs.features(b, channels)))


# -------------------------------------------------------------------- layers


def test_conv_loses_rows_bias_and_the_columns_that_read_it() -> None:
    proto = build(17, lambda b, x: b.relu(x))
    first, second = nodes(proto, "Conv")
    result = cut(proto, [1, 4])
    left = [0, 2, 3, 5]
    assert np.array_equal(values(result, nodes(result, "Conv")[0], 1), values(proto, first, 1)[left])
    assert np.array_equal(values(result, nodes(result, "Conv")[0], 2), values(proto, first, 2)[left])
    columns = values(proto, second, 1)[:, left]
    assert np.array_equal(values(result, nodes(result, "Conv")[1], 1), columns)


@pytest.mark.parametrize("repeat", [1, 2])
def test_depthwise_conv_has_as_many_groups_as_inputs_are_left(repeat: int) -> None:
    proto = build(17, lambda b, x: b.depthwise(x, repeat))
    assert sizes(proto) == [6, 5]
    result = cut(proto, [0, 5])
    depthwise = nodes(result, "Conv")[1]
    assert attributes(depthwise)["group"] == 4
    whole = values(proto, nodes(proto, "Conv")[1], 1)
    left = np.flatnonzero(np.repeat([0, 1, 1, 1, 1, 0], repeat))
    assert np.array_equal(values(result, depthwise, 1), whole[left])


def test_depthwise_conv_of_the_input_stays() -> None:
    b = Builder()
    proto = graphs.classify(b, b.depthwise(b.input(3, 6, 5), 2))
    group = next(iter(groups_of(proto)))
    assert not group.cuttable.any()
    assert f"Conv {proto.graph.node[0].name}" in group.reason


def test_grouped_conv_keeps_its_groups_equally_wide() -> None:
    proto = build(17, lambda b, x: b.conv(x, 4, group=2))
    assert sizes(proto) == [3, 2, 5]
    result = cut(proto, [1], [0])
    grouped = nodes(result, "Conv")[1]
    assert attributes(grouped)["group"] == 2
    whole = values(proto, nodes(proto, "Conv")[1], 1)
    assert np.array_equal(values(result, grouped, 1), whole[[1, 3]][:, [0, 2]])
    first = values(proto, nodes(proto, "Conv")[0], 2)
    assert np.array_equal(values(result, nodes(result, "Conv")[0], 2), first[[0, 2, 3, 5]])


def test_grouped_conv_cut_to_one_input_a_group_is_still_the_same() -> None:
    proto = build(17, lambda b, x: b.conv(x, 4, group=2), channels=4)
    result = cut(proto, [1])
    assert attributes(nodes(result, "Conv")[1])["group"] == 2
    assert values(result, nodes(result, "Conv")[1], 1).shape[:2] == (4, 1)


@pytest.mark.parametrize("trans_b", [False, True])
def test_gemm_is_cut_along_both_axes(trans_b: bool) -> None:
    b = Builder()
    x = b.relu(b.gemm(b.input(4), 6))
    proto = b.model(b.gemm(b.relu(b.gemm(x, 5, trans_b=trans_b)), CLASSES))
    result = cut(proto, [2], [0, 4])
    before, after = (nodes(p, "Gemm")[1] for p in (proto, result))
    axes = ([1, 2, 3], [0, 1, 3, 4, 5]) if trans_b else ([0, 1, 3, 4, 5], [1, 2, 3])
    assert np.array_equal(values(result, after, 1), values(proto, before, 1)[np.ix_(*axes)])
    assert np.array_equal(values(result, after, 2), values(proto, before, 2)[[1, 2, 3]])


def test_gemm_keeps_a_bias_that_broadcasts() -> None:
    b = Builder()
    x = b.one("Gemm", b.input(4), b.weight(4, 6), b.constant([0.3]))
    proto = b.model(b.gemm(b.relu(x), CLASSES))
    assert listed_all(cut(proto, [0, 3]), "Gemm", 2)[0] == pytest.approx([0.3])


def listed_all(proto: onnx.ModelProto, operator: str, index: int) -> list[Any]:
    return [values(proto, node, index).tolist() for node in nodes(proto, operator)]


@pytest.mark.parametrize(
    ("last", "left"),
    [
        (False, [*range(5), *range(10, 15)]),  # channel by channel: each is repeated in place
        (True, [0, 2, 3, 5, 6, 8, 9, 11, 12, 14]),  # place by place: the list is tiled
    ],
)
def test_flatten_spreads_channels_over_the_columns(last: bool, left: list[int]) -> None:
    b = Builder()
    x = b.relu(b.conv(b.input(2, 5), 3))
    x = b.one("Transpose", x, perm=[0, 2, 1]) if last else x
    proto = b.model(b.gemm(b.one("Flatten", x), CLASSES))
    before, after = (values(p, nodes(p, "Gemm")[0], 1) for p in (proto, cut(proto, [1])))
    assert np.array_equal(after, before[:, left])


# -------------------------------------------------------------------- element by element


def test_batch_normalization_loses_all_four() -> None:
    proto = build(15, lambda b, x: b.batchnorm(x))
    result = cut(proto, [0, 1])
    for index in range(1, 5):
        before, after = listed(proto, "BatchNormalization", index), result
        assert listed(after, "BatchNormalization", index) == before[2:]


@pytest.mark.parametrize("shape", [(6, 1, 1), (1, 6, 1, 1), (6, 6, 5)])
def test_a_constant_is_cut_along_the_channels(shape: tuple[int, ...]) -> None:
    proto = build(17, lambda b, x: b.one("Mul", b.constant(b.rng.normal(size=shape)), x))
    before = values(proto, nodes(proto, "Mul")[0], 0)
    result = cut(proto, [3, 4])
    after = values(result, nodes(result, "Mul")[0], 0)
    assert np.array_equal(after, np.delete(before, [3, 4], axis=len(shape) - 3))


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1), (5,), (6, 5)])
def test_a_constant_without_channels_stays(shape: tuple[int, ...]) -> None:
    proto = build(17, lambda b, x: b.one("Mul", x, b.constant(b.rng.normal(size=shape))))
    assert listed(cut(proto, [3, 4]), "Mul", 1) == listed(proto, "Mul", 1)


def test_a_sum_ties() -> None:
    assert sizes(build(17, lambda b, x: b.one("Add", x, b.conv(x, 6)))) == [6, 5]


def test_a_sum_with_the_input_pins() -> None:
    groups = groups_of(cases.build("residual_with_input", 17))
    pinned = [group for group in groups if group.reason.startswith("Add")]
    assert [group.size for group in pinned] == [3]
    assert not pinned[0].cuttable.any()


def test_a_shared_constant_is_cut_for_each_use() -> None:
    proto = cases.build("shared_scale", 17)
    whole = listed_all(proto, "Mul", 1)[0]
    pieces = [np.ravel(piece).tolist() for piece in listed_all(cut(proto, [0], [1, 2]), "Mul", 1)]
    flat = np.ravel(whole).tolist()
    assert pieces == [flat[1:], [flat[0], *flat[3:]], flat]


# -------------------------------------------------------------------- joining and splitting


def _split_in_three(b: Builder, x: T) -> T:
    first, second, third = b.split(x, [1, 3, 2])
    return b.one("Concat", third, first, b.relu(second), axis=1)


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_split_writes_the_sizes_left(opset: int) -> None:
    result = cut(build(opset, _split_in_three), [2, 3, 5])
    (split,) = nodes(result, "Split")
    if opset < 13:
        assert attributes(split)["split"] == [1, 1, 1]
    else:
        assert values(result, split, 1).tolist() == [1, 1, 1]


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_split_without_sizes_gets_them(opset: int) -> None:
    def halves(b: Builder, x: T) -> T:
        return b.one("Concat", *reversed(b.split(x, [3, 3], explicit=False)), axis=1)

    result = cut(build(opset, halves), [0, 1, 5])
    (split,) = nodes(result, "Split")
    if opset < 13:
        assert attributes(split)["split"] == [1, 2]
    else:
        assert values(result, split, 1).tolist() == [1, 2]
        assert "num_outputs" not in attributes(split)


def test_split_keeps_a_channel_of_each_part() -> None:
    with pytest.raises(GraftError, match="no channel"):
        cut(build(13, _split_in_three), [0])


def test_concat_lays_lists_side_by_side() -> None:
    def twice(b: Builder, x: T) -> T:
        y = b.relu(b.conv(x, 3))
        return b.one("Concat", x, y, y, axis=1)

    proto = build(17, twice)
    result = cut(proto, [0, 5], [1])
    before, after = (values(p, nodes(p, "Conv")[-1], 1) for p in (proto, result))
    assert np.array_equal(after, before[:, [1, 2, 3, 4, 6, 8, 9, 11]])


def test_concat_with_the_input_pins_only_the_input() -> None:
    result = cut(cases.build("concatenated_input", 17), [0, 5], [1])
    assert values(result, nodes(result, "Conv")[2], 1).shape[1] == 4 + 3 + 1


# -------------------------------------------------------------------- picking


def _sliced(start: int, end: int, step: int) -> onnx.ModelProto:
    return build(17, lambda b, x: b.slice(x, start, end, step), channels=9)


FAR = 2**31 - 1


@pytest.mark.parametrize(
    ("bounds", "dropped", "picks"),
    [
        ((2, 6, 1), [0, 3, 8], [1, 2, 3]),  # of the channels 1 2 4 5 6 7 those that were 2 4 5
        ((2, 6, 1), [0, 1], [0, 1, 2, 3]),
        ((-3, FAR, 1), [0, 7], [5, 6]),
        ((0, FAR, 2), [1, 3, 5, 7], [0, 1, 2, 3, 4]),
        ((0, FAR, 2), [1, 2], [0, 2, 4, 6]),
        ((0, FAR, 2), [1], [0, 1, 3, 5, 7]),  # at uneven steps
        ((-1, -(2**62), -1), [0, 4], [6, 5, 4, 3, 2, 1, 0]),
        ((-1, 0, -2), [0, 7], [6, 5, 3, 1]),
        ((8, -10, -4), [1, 2, 3], [5, 1, 0]),
    ],
)
def test_slice_counts_what_is_left(
    bounds: tuple[int, int, int], dropped: list[int], picks: list[int]
) -> None:
    proto = _sliced(*bounds)
    result = cut(proto, dropped)
    assert _picked(result, 9 - len(dropped)) == picks


def _picked(proto: onnx.ModelProto, channels: int) -> list[int]:
    """What Slice, and a Gather that may follow it, pick out of so many channels."""
    (node,) = nodes(proto, "Slice")
    bounds = zip(*(values(proto, node, index).tolist() for index in range(1, 5)), strict=True)
    start, end, step = next((s, e, d) for s, e, axis, d in bounds if axis == 1)
    places = np.arange(channels)[start : None if step < 0 and end < -FAR else end : step]
    for gather in nodes(proto, "Gather"):
        places = places[values(proto, gather, 1)]
    return [int(place) for place in places]


def test_slice_leaves_other_axes_alone() -> None:
    def both(b: Builder, x: T) -> T:
        return b.one("Slice", x, b.ints(1, 1), b.ints(6, 5), b.ints(1, 2), b.ints(1, 3))

    result = cut(build(17, both), [2, 4])
    assert [listed(result, "Slice", index) for index in range(1, 5)] == [
        [1, 1],
        [4, 5],
        [1, 2],
        [1, 3],
    ]


def test_slice_may_read_one_tensor_as_start_axis_and_step() -> None:
    def shared(b: Builder, x: T) -> T:
        one = b.ints(1)
        return b.one("Slice", x, one, b.ints(5), one, one)

    result = cut(build(17, shared), [0, 2])
    assert [listed(result, "Slice", index) for index in range(1, 5)] == [[0], [3], [1], [1]]


def test_slice_with_computed_bounds_pins() -> None:
    b = Builder()
    image = b.input(3, 6, 5)
    end = b.one("Gather", b.one("Shape", image), b.ints(3))
    x = b.one("Slice", b.relu(b.conv(image, 6)), b.ints(0), end, b.ints(1))
    group = next(iter(groups_of(graphs.classify(b, b.declare(x, (2, 5, 6, 5))))))
    assert not group.cuttable.any()
    assert group.reason.startswith("Slice")


@pytest.mark.parametrize(
    ("indices", "dropped", "left"),
    [
        ([3, 0, 5, 1], [0, 2], [1, 3, 0]),
        ([-1, -6, 2, 2], [1, 3], [3, 0, 1, 1]),
        ([5, 4, 3, 2, 1, 0], [4], [4, 3, 2, 1, 0]),
    ],
)
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_gather_counts_what_is_left(
    indices: list[int], dropped: list[int], left: list[int], dtype: type
) -> None:
    proto = build(17, lambda b, x: b.one("Gather", x, b.constant(indices, dtype), axis=1))
    result = cut(proto, dropped)
    found = values(result, nodes(result, "Gather")[0], 1)
    assert found.tolist() == left
    assert found.dtype == dtype


def test_gather_of_one_channel_pins_it_and_stays_a_scalar() -> None:
    proto = cases.build("gathered_scalar", 17)
    assert next(iter(groups_of(proto))).cuttable.tolist() == [True, True, False, True, True, True]
    result = cut(proto, [0, 5])
    assert listed(result, "Gather", 1) == 1


# -------------------------------------------------------------------- Pad


@pytest.mark.parametrize(
    ("dropped", "amounts"),
    [([0], (0, 2)), ([7, 8], (1, 0)), ([0, 3, 8], (0, 1)), ([4, 5], (1, 2))],
)
def test_pad_makes_as_many_channels_as_are_left(dropped: list[int], amounts: tuple[int, int]) -> None:
    def shortcut(b: Builder, x: T) -> T:
        return b.one("Add", b.conv(x, 9), b.pad_channels(x, 1, 2))

    proto = build(17, shortcut)
    group = next(iter(groups_of(proto)))
    assert group.size == 9  # its first six are the layer's, then come those of the Pad
    order = [*range(1, 7), 0, 7, 8]
    result = cut(proto, [order.index(channel) for channel in dropped])
    pads = listed(result, "Pad", 1)
    assert (pads[1], pads[5]) == amounts


def test_pad_of_some_axes_is_written_for_all() -> None:
    result = cut(cases.build("padded_axes", 18), [0])
    (pad,) = nodes(result, "Pad")
    assert len(pad.input) == 3
    assert values(result, pad, 1).tolist() == [0, 1, 0, 0, 0, 2, 0, 1]


def test_pad_that_copies_channels_pins() -> None:
    proto = build(17, lambda b, x: b.one("Pad", x, b.ints(0, 1, 0, 0, 0, 1, 0, 0), mode="edge"))
    assert "Pad" in next(iter(groups_of(proto))).reason


# -------------------------------------------------------------------- Reshape and its like


@pytest.mark.parametrize(
    ("target", "left"),
    [
        ([0, 6, 30], [0, 4, 30]),
        ([0, 6, -1], [0, 4, -1]),
        ([-1, 6, 30], [-1, 4, 30]),
        ([0, 0, -1], [0, 0, -1]),
        ([0, -1, 30], [0, -1, 30]),
        ([0, 180], [0, 120]),
        ([-1, 180], [-1, 120]),
        ([0, -1], [0, -1]),
    ],
)
def test_reshape_writes_the_sizes_left(target: list[int], left: list[int]) -> None:
    b = Builder()
    x = b.reshape(graphs.features(b), *target)
    proto = graphs.classify(b, x)
    assert listed(cut(proto, [0, 3]), "Reshape", 1) == left


def test_a_shared_target_is_written_for_each_use() -> None:
    result = cut(cases.build("shared_target", 17), [0], [1, 2])
    assert listed_all(result, "Reshape", 1) == [[0, 5, 30], [0, 4, 30]]


def test_reshape_that_splits_channels_makes_them_products_of_rows_and_columns() -> None:
    assert sizes(cases.build("shuffled", 17)) == [4, 3, 4, 5]
    assert sizes(cases.build("shuffled_to_groups", 17)) == [4, 1, 2, 5]
    assert sizes(cases.build("heads", 17))[:2] == [3, 4]


def test_channels_that_are_merged_with_the_batch_stay_where_a_layer_reads_them() -> None:
    group = next(iter(groups_of(cases.build("batch_in_channels", 17))))
    assert not group.cuttable.any()
    assert "merged with the batch" in group.reason


@pytest.mark.parametrize("op", ["Tanh", "Sigmoid", "Sqrt", "Max", "LogSoftmax"])
def test_what_counts_no_channels_passes_those_that_are_merged_with_the_batch(op: str) -> None:
    b = Builder(17)
    x = b.one("Transpose", graphs.features(b, 6, 3, 9), perm=[1, 0, 2])
    flat = b.reshape(x, -1, 9)
    more = [b.constant(np.full((1, 9), 0.1))] if op == "Max" else []
    x = b.reshape(b.one(op, flat, *more), 6, -1, 9)
    law = Law(graphs.classify(b, b.one("Transpose", x, perm=[1, 0, 2])))
    assert next(iter(law.groups)).cuttable.all()
    law.check(law.plan(0.5, 0))


def test_channels_on_a_space_axis_of_a_layer_are_pinned() -> None:
    for operator in ("Conv", "MaxPool"):
        b = Builder()
        x = b.one("Transpose", graphs.features(b), perm=[0, 2, 1, 3])
        x = b.conv(x, 4) if operator == "Conv" else b.one(operator, x, kernel_shape=[2, 2])
        group = next(iter(groups_of(graphs.classify(b, x))))
        assert not group.cuttable.any()
        assert operator in group.reason


# -------------------------------------------------------------------- pins


def _indices(b: Builder, x: T) -> T:
    pooled, indices = b.node("MaxPool", [x], outputs=2, kernel_shape=[2, 2])
    return b.one("Mul", pooled, b.one("Cast", indices, to=TensorProto.FLOAT))


def _trained(b: Builder, x: T) -> T:
    parameters = [b.distinct(6) for _ in range(4)]
    return b.node("BatchNormalization", [x, *parameters], outputs=3, training_mode=1)[0]


def _computed_weight(b: Builder, x: T) -> T:
    return b.one("Conv", x, b.one("Abs", b.weight(4, 6, 3, 3)), b.distinct(4))


def _dropped(b: Builder, x: T) -> T:
    return b.one("Dropout", x, b.constant(0.5), b.constant(True, np.bool_))


def _looked_up(b: Builder, x: T) -> T:
    best = b.one("ArgMax", b.pooled(x), axis=1, keepdims=0)
    return b.declare(b.one("Gather", x, best, axis=1), x.shape)


PINNING: dict[str, Callable[[Builder, T], T]] = {
    "MaxPool": _indices,
    "BatchNormalization": _trained,
    "Conv": _computed_weight,
    "Dropout": _dropped,
    "Softmax": lambda b, x: b.one("Softmax", x, axis=1),
    "LogSoftmax": lambda b, x: b.one("LogSoftmax", x, axis=-3),
    "ReduceMax": lambda b, x: b.one("Mul", x, b.reduce(x, "ReduceMax", axes=[1])),
    "ReduceProd": lambda b, x: b.one("Mul", x, b.reduce(x, "ReduceProd", axes=[-3])),
    "MatMul": lambda b, x: b.one("MatMul", x, b.one("Sigmoid", b.input(6, 5, 4))),
    "Einsum": lambda b, x: b.declare(b.one("Einsum", x, equation="ncii->nci"), (2, 6, 5)),
    "PRelu": lambda b, x: b.one("PRelu", x, b.one("Abs", x)),
}


@pytest.mark.parametrize("operator", sorted(PINNING))
def test_pinned_channels_say_why(operator: str) -> None:
    b = Builder()
    x = graphs.features(b)
    y = PINNING[operator](b, x)
    named = next(node.name for node in b.nodes[2:] if node.op_type == operator)
    group = next(iter(groups_of(graphs.classify(b, y))))
    assert not group.cuttable.any()
    assert group.reason.startswith(f"{operator} {named}: ")


ALWAYS_STAYS = {
    "attention_of_three_projections": (),
    "attention_of_one_projection": ("matmul_3/0", "matmul_39/0", "matmul_57/0"),  # which of the three
    "attention_of_einsums": (),
    "attention_across": (),
    "attention_of_shared_keys": (),
    "attention_operator": (),
    "multi_head_attention": (),
    "fused_attention": (),
    "constants_that_are_spread": ("matmul_15",),  # a mask of keys
    "scale_of_a_computed_width": (),
    "computed_targets": (),
    "heads_in_the_batch": (),
    "heads_beside_the_batch": ("matmul_8/0",),  # heads times batch, computed
    "windows": (),
    "patches": (),
    "token_of_a_constant": (),
}


@pytest.mark.parametrize("name", sorted(ALWAYS_STAYS))
def test_of_attention_all_can_go_but(name: str) -> None:
    *groups, _ = groups_of(cases.build(name))  # the last holds the classes
    assert tuple(group.name for group in groups if not group.cuttable.any()) == ALWAYS_STAYS[name]


@pytest.mark.parametrize("opset", [11, 13])
def test_softmax_before_opset_13_flattens(opset: int) -> None:
    """Over the last axis alone channels pass, in either version; over axis 1 they never do.

    With the channels last, axis 1 holds them in the older version only.
    """
    for axis, last, pins in ((-1, 0, False), (1, 0, True), (-1, 1, True), (1, 1, opset < 13)):
        b = Builder(opset=opset)
        x = graphs.features(b)
        x = b.one("Transpose", x, perm=[0, 2, 3, 1]) if last else x
        x = b.one("Softmax", x, axis=axis)
        x = b.one("Transpose", x, perm=[0, 3, 1, 2]) if last else x
        assert next(iter(groups_of(graphs.classify(b, x)))).cuttable.any() != pins


def test_outputs_are_pinned_by_name() -> None:
    proto = cases.build("feature_output", 17)
    reasons = [group.reason for group in groups_of(proto)]
    assert reasons == ["", *(f"output {output.name}" for output in reversed(proto.graph.output))]


def test_a_plan_that_cuts_what_is_pinned_is_refused() -> None:
    b = Builder()
    proto = b.model(b.gemm(b.input(4), CLASSES))
    with pytest.raises(GraftError, match="pinned by output"):
        cut(proto, [0])


# -------------------------------------------------------------------- names


@pytest.mark.parametrize("name", sorted(cases.CASES))
def test_a_cut_keeps_names_inputs_outputs_and_opset(name: str) -> None:
    proto = cases.build(name)
    model = Model.from_proto(proto)
    groups = ChannelGroups(model)
    one = next((g for g in groups if g.cuttable.sum() > 1), None)
    kept = {}
    if one is not None:
        kept[one.name] = np.arange(one.size) != np.flatnonzero(one.cuttable)[-1]
    small.prune(model, Plan("", kept))
    result = model.proto()
    weights = {tensor.name for tensor in proto.graph.initializer}
    assert list(result.graph.input) == [i for i in proto.graph.input if i.name not in weights]
    assert list(result.graph.output) == list(proto.graph.output)
    assert result.opset_import == proto.opset_import
    assert result.ir_version == proto.ir_version
    names = [node.name for node in result.graph.node]
    assert len(set(names)) == len(names)
    assert {node.name for node in proto.graph.node} >= {n for n in names if "/" not in n}
    stored = [tensor.name for tensor in result.graph.initializer]
    assert len(set(stored)) == len(stored)


def test_the_only_channel_of_an_axis_stays() -> None:
    """A group normalization of one group ties all channels: there is nothing to choose."""
    net = small.Net(3, 6, 6, opset=21)
    net.conv("conv", "x", 4, 3)
    ones = [net.constant(name, np.ones(4)) for name in ("scale", "bias")]
    norm = net.node("GroupNormalization", "norm", "conv", *ones, num_groups=1)
    net.gemm("y", net.node("Flatten", "flat", net.node("GlobalAveragePool", "pool", norm)), 4, 4)
    group = ChannelGroups(Model.from_proto(net.proto(y=[4])))["conv"]
    assert (group.size, group.cuttable.sum()) == (1, 0)
    assert "no channel left" in group.reason


def test_a_slice_of_unknown_length_carries_no_channels() -> None:
    net = small.Net(3, 6, 6)
    net.conv("wide", "x", 8, 3), net.conv("narrow", "x", 4, 3)
    zero, one = net.constant("zero", [0], np.int64), net.constant("one", [1], np.int64)
    size = net.node("Mul", "size", net.node("Shape", "shape", "narrow"), net.constant("ones", [1], np.int64))
    end = net.node("Gather", "end", size, one)
    part = net.node("Slice", "part", "wide", zero, net.node("Identity", "same", end), one)
    added = net.node("Add", "added", part, "narrow")
    net.gemm("y", net.node("Flatten", "flat", net.node("GlobalAveragePool", "pool", added)), 4, 4)
    groups = ChannelGroups(Model.from_proto(net.proto(y=[4])))
    assert not groups["wide"].cuttable.any()


def test_lists_of_another_length_than_the_axis_are_pinned() -> None:
    """A resized channel axis has other places than channels; readers must not take them for channels."""
    net = small.Net(3, 6, 6)
    none = [net.constant(name, np.zeros(0)) for name in ("roi",)]
    scales = net.constant("scales", [1, 2, 1, 1])
    net.conv("conv", "x", 4, 3)
    net.node("Resize", "resized", "conv", *none, scales, mode="nearest")
    bounds = [net.constant(n, [v], np.int64) for n, v in (("a", 0), ("b", 8), ("c", 1), ("d", 2))]
    net.node("Slice", "every", "resized", *bounds)
    net.gemm("y", net.node("Flatten", "flat", net.node("GlobalAveragePool", "pool", "every")), 4, 4)
    group = ChannelGroups(Model.from_proto(net.proto(y=[4])))["conv"]
    assert (group.size, group.cuttable.sum()) == (4, 0)


def test_features_of_free_number_are_as_many_as_weights_say() -> None:
    net = small.Net("F")  # type: ignore[arg-type]
    net.gemm("y", net.node("Relu", "relu", net.gemm("one", "x", 6, 8)), 4, 6)
    model = Model.from_proto(net.proto(y=[4]))
    assert cost_of(model).macs == 8 * 6 + 6 * 4
    assert ChannelGroups(model)["one"].cuttable.all()
