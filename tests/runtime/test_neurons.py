from dataclasses import replace

import numpy as np
import pytest

from reference import programs
from secateurs.runtime.neurons import fold_constants, remove_unread
from secateurs.runtime.program import Op, Program, check


def _program(input_shape, *ops):
    program = Program(input_shape=input_shape, ops=ops)
    check(program)
    return program


def _linear(weight, *, source, bias=None, activation=""):
    weight = np.array(weight, float)
    bias = None if bias is None else np.array(bias, float)
    return Op(
        kind="linear",
        inputs=(source,),
        shape=weight.shape[:1],
        weight=weight,
        bias=bias,
        activation=activation,
    )


def _conv(weight, shape, *, source, bias=None, padding=(0, 0), activation=""):
    weight = np.array(weight, float)
    return Op(
        kind="conv2d",
        inputs=(source,),
        shape=shape,
        weight=weight,
        bias=None if bias is None else np.array(bias, float),
        kernel=weight.shape[2:],
        padding=padding,
        activation=activation,
    )


def _same(changed, program):
    check(changed)
    x = np.random.default_rng(0).normal(size=(5, *program.input_shape))
    wanted = programs.evaluate(program, x)
    np.testing.assert_allclose(programs.evaluate(changed, x), wanted, atol=1e-9)


@pytest.mark.parametrize(
    ("activation", "wanted"),
    [("", -1.0), ("relu", 0.0), ("sigmoid", 1 / (1 + np.e)), ("tanh", np.tanh(-1))],
)
def test_a_neuron_without_weights_goes_into_the_next_bias(activation, wanted):
    program = _program(
        (2,),
        _linear([[1, 2], [0, 0]], source=0, bias=[0, -1], activation=activation),
        _linear([[3, 4], [0, 5]], source=1, bias=[1, 1]),
    )
    found = fold_constants(program)
    np.testing.assert_allclose(found.ops[1].bias, [1 + 4 * wanted, 1 + 5 * wanted], rtol=1e-6)
    assert found.ops[1].weight.tolist() == [[3, 0], [0, 0]]
    _same(found, program)
    assert fold_constants(found) is found


def test_constants_pass_through_what_keeps_them():
    first = _conv([[[[0]]], [[[1]]]], (2, 3, 3), source=0, bias=[2, 0])
    pooled = Op(kind="max_pool", inputs=(1,), shape=(2, 3, 3), kernel=(3, 3), padding=(1, 1))
    scaled = Op(
        kind="scale",
        inputs=(2,),
        shape=(2, 3, 3),
        weight=np.array([3.0, 1]),
        bias=np.array([1.0, 0]),
    )
    flat = Op(kind="flatten", inputs=(3,), shape=(18,))
    program = _program((1, 3, 3), first, pooled, scaled, flat, _linear(np.ones((1, 18)), source=4))
    found = fold_constants(program)
    assert found.ops[-1].bias.tolist() == [9 * 7.0]
    assert found.ops[-1].weight.tolist() == [[0] * 9 + [1] * 9]
    _same(found, program)


def test_a_scale_by_zero_is_constant():
    scaled = Op(
        kind="scale", inputs=(0,), shape=(2,), weight=np.array([0.0, 1]), bias=np.array([4.0, 0])
    )
    program = _program((2,), scaled, _linear([[2, 1]], source=1))
    found = fold_constants(program)
    assert found.ops[1].bias.tolist() == [8]
    _same(found, program)


@pytest.mark.parametrize("bias", [0, 2])
@pytest.mark.parametrize("padding", [0, 1])
def test_a_constant_channel_ends_at_the_padding(bias, padding):
    size = 3 + 2 * padding - 2
    program = _program(
        (1, 3, 3),
        _conv([[[[0]]], [[[1]]]], (2, 3, 3), source=0, bias=[bias, 1]),
        _conv(np.ones((1, 2, 3, 3)), (1, size, size), source=1, padding=(padding, padding)),
    )
    found = fold_constants(program)
    folded = not found.ops[1].weight[:, 0].any()
    assert folded == (not padding or not bias)
    _same(found, program)
    assert remove_unread(found).ops[0].shape[0] == (1 if folded else 2)


@pytest.mark.parametrize("include", [True, False])
def test_a_pooled_constant_ends_at_zeros_that_count(include):
    program = _program(
        (1, 3, 3),
        _conv([[[[0]]]], (1, 3, 3), source=0, bias=[2]),
        Op(
            kind="avg_pool",
            inputs=(1,),
            shape=(1, 3, 3),
            kernel=(3, 3),
            padding=(1, 1),
            include_padding=include,
        ),
        Op(kind="flatten", inputs=(2,), shape=(9,)),
        _linear(np.ones((1, 9)), source=3),
    )
    found = fold_constants(program)
    assert found.ops[-1].weight.any() == include
    _same(found, program)


def test_a_sum_with_a_constant_is_a_scale():
    program = _program(
        (2,),
        _linear([[0, 0], [0, 0]], source=0, bias=[1, 2]),
        Op(kind="add", inputs=(1, 0), shape=(2,), activation="relu"),
    )
    found = fold_constants(program)
    assert (found.ops[1].kind, found.ops[1].inputs, found.ops[1].activation) == (
        "scale",
        (0,),
        "relu",
    )
    _same(found, program)


def test_what_is_not_finite_stays_where_it_is():
    program = _program((1,), _linear([[0]], source=0, bias=[np.inf]), _linear([[1], [0]], source=1))
    assert fold_constants(program) is program


def test_a_softmax_makes_no_constants_and_keeps_its_neurons():
    program = _program(
        (2,),
        _linear([[0, 0], [1, 0], [2, 1]], source=0, activation="softmax"),
        _linear([[0, 1, 0]], source=1),
    )
    assert fold_constants(program) is program
    assert remove_unread(program) is program


def test_neurons_that_nothing_reads_go_and_so_do_those_that_only_they_read():
    program = _program(
        (3,),
        _linear(np.ones((4, 3)), source=0, activation="relu"),
        _linear([[1, 1, 0, 0], [0, 0, 1, 0]], source=1, activation="relu"),
        _linear([[1, 0]], source=2),
    )
    found = remove_unread(program)
    assert [op.shape for op in found.ops] == [(2,), (1,), (1,)]
    _same(found, program)
    assert remove_unread(found) is found


def test_pixels_keep_the_whole_channel():
    weight = np.zeros((1, 12))
    weight[0, 5] = 1  # of the second channel
    program = _program(
        (1, 2, 2),
        _conv(np.ones((3, 1, 1, 1)), (3, 2, 2), source=0),
        Op(kind="flatten", inputs=(1,), shape=(12,)),
        _linear(weight, source=2),
    )
    found = remove_unread(program)
    assert [op.shape for op in found.ops] == [(1, 2, 2), (4,), (1,)]
    assert found.ops[2].weight.tolist() == [[0, 1, 0, 0]]
    _same(found, program)


def test_both_sides_of_a_sum_go_together():
    program = _program(
        (2,),
        _linear(np.ones((3, 2)), source=0),
        _linear(np.ones((3, 3)), source=1),
        Op(kind="add", inputs=(1, 2), shape=(3,)),
        _linear([[1, 0, 0]], source=3),
    )
    found = remove_unread(program)
    # the second layer reads all of the first, which so keeps its neurons, and the sum with it
    assert [op.shape for op in found.ops] == [(3,), (3,), (3,), (1,)]
    assert found.ops[1].weight.tolist() == [[1, 1, 1], [0, 0, 0], [0, 0, 0]]
    _same(found, program)
    narrow = replace(program.ops[1], weight=np.diag([1.0, 0, 1]))
    program = replace(program, ops=(program.ops[0], narrow, *program.ops[2:]))
    found = remove_unread(program)
    assert [op.shape for op in found.ops] == [(1,), (1,), (1,), (1,)]
    _same(found, program)


def test_parts_of_a_concatenation_go_one_by_one():
    program = _program(
        (2,),
        _linear(np.ones((2, 2)), source=0),
        _linear(np.ones((3, 2)), source=0),
        Op(kind="concat", inputs=(1, 2), shape=(5,)),
        _linear([[1, 0, 0, 0, 1]], source=3),
    )
    found = remove_unread(program)
    assert [op.shape for op in found.ops] == [(1,), (1,), (2,), (1,)]
    _same(found, program)


def test_the_input_keeps_its_features_and_the_output_its_neurons():
    program = _program(
        (3,),
        Op(kind="activation", inputs=(0,), shape=(3,), activation="relu"),
        _linear([[0, 0, 0], [1, 0, 0]], source=1, bias=[3, 0]),
    )
    assert remove_unread(program) is program


def test_a_layer_without_any_weights_reads_one_neuron():
    program = _program(
        (3,),
        _linear(np.ones((5, 3)), source=0, activation="relu"),
        _linear(np.zeros((2, 5)), source=1, bias=[1, 2]),
    )
    found = remove_unread(program)
    assert [op.weight.shape for op in found.ops] == [(1, 3), (2, 1)]
    assert not found.ops[0].weight.any()
    _same(found, program)


def test_a_part_left_to_torch_keeps_what_it_reads_and_makes():
    program = _program(
        (2,),
        _linear(np.ones((3, 2)), source=0),
        Op(kind="call", inputs=(1,), shape=(3,), function=lambda x: x + 1),
        _linear([[1, 0, 0]], source=2),
    )
    assert remove_unread(program) is program
    assert fold_constants(program) is program
