from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from reference import programs
from secateurs.networks.conv import CNN
from secateurs.networks.dense import mlp_tab
from secateurs.networks.lenet import LeNet300100
from secateurs.networks.resnet import ResNet18
from secateurs.runtime import fallback
from secateurs.runtime.compact import compact, live, size
from secateurs.runtime.program import Op, Program, check
from secateurs.runtime.reading import read


def _f32(values):
    return None if values is None else np.array(values, np.float32)


def _op(kind, source, shape, **fields):
    for key in ("weight", "bias"):
        if key in fields:
            fields[key] = _f32(fields[key])
    inputs = source if isinstance(source, tuple) else (source,)
    return Op(kind=kind, inputs=inputs, shape=shape, **fields)


def _program(input_shape, *ops):
    program = Program(input_shape=input_shape, ops=ops)
    check(program)
    return program


def _kinds(program):
    return [(op.kind, op.activation) for op in program.ops]


def _same(found, program, *, rtol=1e-4):
    check(found)
    assert found.input_shape == program.input_shape
    assert found.output_shape == program.output_shape
    for op in found.ops:
        for array in (op.weight, op.bias):
            assert array is None or (array.dtype == np.float32 and array.flags.c_contiguous)
    x = np.random.default_rng(0).normal(size=(5, *program.input_shape)).astype(np.float32)
    wanted = programs.evaluate(program, x)
    made = programs.evaluate(found, x)
    np.testing.assert_allclose(made, wanted, rtol=rtol, atol=rtol * (1e-2 + np.abs(wanted).max()))


def _equal(one, other):
    """Whether two programs are the same, array by array."""
    return len(one.ops) == len(other.ops) and all(
        _kinds(one)[i] == _kinds(other)[i]
        and a.inputs == b.inputs
        and a.shape == b.shape
        and np.array_equal(a.weight, b.weight)
        and np.array_equal(a.bias, b.bias)
        for i, (a, b) in enumerate(zip(one.ops, other.ops, strict=True))
    )


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**9), st.integers(1, 12))
def test_random_programs_compute_the_same_and_are_no_larger(seed, n_ops):
    program = programs.program(seed, n_ops=n_ops)
    before = [None if op.weight is None else op.weight.copy() for op in program.ops]
    found = compact(program)
    _same(found, program)
    small, large = size(found), size(program)
    assert all(small[key] <= large[key] for key in ("kept", "prunable"))
    assert len(found.ops) <= len(program.ops)
    assert _equal(compact(found), found)
    for op, weight in zip(program.ops, before, strict=True):
        assert np.array_equal(op.weight, weight)


def _randomised(network, generator):
    """BatchNorms as training leaves them."""
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            n = module.num_features
            module.running_mean.copy_(torch.randn(n, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(n, generator=generator))
            module.weight.data = torch.randn(n, generator=generator)
            module.bias.data = torch.randn(n, generator=generator)
    return network.eval()


@pytest.mark.parametrize("density", [0, 0.02, 0.3, 1])
@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (lambda: mlp_tab(20, 3), (20,)),
        (lambda: LeNet300100(40, 10), (40,)),
        (lambda: CNN(2, size=8), (3, 8, 8)),
        (lambda: ResNet18(width=4), (3, 32, 32)),
        (lambda: ResNet18(width=4, stem="cifar"), (3, 9, 9)),
    ],
)
def test_networks_with_masks_compute_the_same(build, shape, density):
    generator = torch.Generator().manual_seed(0)
    network = _randomised(build(), generator)
    mask = {
        name: torch.rand(weight.shape, generator=generator) < density
        for name, weight in network.named_parameters()
        if weight.ndim > 1
    }
    x = torch.randn(4, *shape, generator=generator)
    program = read(network, mask, x)
    found = compact(program)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name in mask:
                weight.mul_(mask[name])
        wanted = network(x).numpy()
    made = fallback.run(found, x.numpy())
    np.testing.assert_allclose(made, wanted, atol=2e-5 * (1 + np.abs(wanted).max()))
    if density > 0.1:  # sums with a constant are scales
        assert not {op.kind for op in found.ops} & {"scale", "activation"}
    assert size(found)["kept"] <= sum(int(kept.sum()) for kept in mask.values())
    if density == 0.02:
        assert size(found)["prunable"] < size(program)["prunable"]


def test_batch_norm_and_relu_go_into_the_layer_before():
    program = _program(
        (2,),
        _op("linear", 0, (2,), weight=[[1, 2], [3, 0]], bias=[1, 1]),
        _op("scale", 1, (2,), weight=[2, -1], bias=[0, 5]),
        _op("activation", 2, (2,), activation="relu"),
    )
    (op,) = compact(program).ops
    assert (op.kind, op.activation) == ("linear", "relu")
    assert op.weight.tolist() == [[2, 4], [-3, 0]]
    assert op.bias.tolist() == [2, 4]


def test_scales_merge_and_identities_go():
    scale = _op("scale", 0, (2,), weight=[2, 4], bias=[1, 0])
    back = _op("scale", 1, (2,), weight=[0.5, 0.25], bias=[-0.5, 0])
    assert _kinds(compact(_program((2,), scale, back))) == [("activation", "")]
    relu = replace(back, activation="relu")
    assert _kinds(compact(_program((2,), scale, relu))) == [("activation", "relu")]


def test_a_value_that_is_read_twice_is_not_changed():
    linear = _op("linear", 0, (2,), weight=[[1, 2], [3, 1]])
    relu = _op("activation", 1, (2,), activation="relu")
    program = _program((2,), linear, relu, _op("add", (1, 2), (2,), activation="tanh"))
    found = compact(program)
    assert _kinds(found) == [("linear", ""), ("activation", "relu"), ("add", "tanh")]
    _same(found, program)


def test_a_second_relu_goes():
    program = _program(
        (2,),
        _op("linear", 0, (2,), weight=[[1, 2], [3, 1]]),
        _op("activation", 1, (2,), activation="sigmoid"),
        _op("activation", 2, (2,), activation="relu"),
        _op("activation", 3, (2,), activation="relu"),
    )
    assert _kinds(compact(program)) == [("linear", "sigmoid")]
    tanh = replace(program.ops[1], activation="tanh")
    program = replace(program, ops=(program.ops[0], tanh, *program.ops[2:]))
    assert _kinds(compact(program)) == [("linear", "tanh"), ("activation", "relu")]


def test_a_scale_goes_into_all_layers_behind_it():
    program = _program(
        (2,),
        _op("scale", 0, (2,), weight=[2, 3], bias=[1, -1]),
        _op("linear", 1, (2,), weight=[[1, 0], [2, 1]]),
        _op("linear", 1, (2,), weight=[[0, 1], [1, 1]], bias=[1, 1]),
        _op("concat", (2, 3), (4,)),
    )
    found = compact(program)
    assert _kinds(found) == [("linear", ""), ("linear", ""), ("concat", "")]
    assert found.ops[0].bias.tolist() == [1, 1]
    _same(found, program)
    program = replace(program, ops=(*program.ops[:3], _op("concat", (1, 2, 3), (6,))))
    program = _program((2,), *program.ops[:2], program.ops[2], _op("concat", (1, 2, 3), (6,)))
    assert _kinds(compact(program))[0] == ("scale", "")


def test_a_scale_of_pixels_passes_a_flatten():
    program = _program(
        (2, 1, 2),
        _op("scale", 0, (2, 1, 2), weight=[2, 3], bias=[1, -1]),
        _op("flatten", 1, (4,)),
        _op("linear", 2, (1,), weight=[[1, 2, 3, 4]]),
    )
    found = compact(program)
    assert _kinds(found) == [("flatten", ""), ("linear", "")]
    assert found.ops[1].weight.tolist() == [[2, 4, 9, 12]]
    assert found.ops[1].bias.tolist() == [1 + 2 - 3 - 4]
    _same(found, program)


@pytest.mark.parametrize("bias", [0, 1])
@pytest.mark.parametrize("padding", [0, 1])
def test_a_scale_goes_into_a_convolution_only_where_the_padding_allows(bias, padding):
    n = 3 + 2 * padding
    weight = np.arange(1, 10).reshape(1, 1, 3, 3)
    fields = {"kernel": (3, 3), "padding": (padding, padding), "weight": weight}
    program = _program(
        (1, 5, 5),
        _op("scale", 0, (1, 5, 5), weight=[2], bias=[bias]),
        _op("conv2d", 1, (1, n, n), **fields),
    )
    found = compact(program)
    assert len(found.ops) == (2 if bias and padding else 1)
    _same(found, program)


def test_an_output_is_never_folded_away():
    program = _program(
        (2,),
        _op("linear", 0, (2,), weight=[[1, 2], [3, 1]]),
        _op("scale", 1, (2,), weight=[2, 3], bias=[1, -1]),
    )
    found = compact(program)
    assert _kinds(found) == [("linear", "")]
    _same(found, program)


def test_what_float32_cannot_hold_is_not_folded():
    program = _program(
        (1,),
        _op("linear", 0, (1,), weight=[[1e-30]]),
        _op("scale", 1, (1,), weight=[1e30], bias=[1]),
    )
    assert len(compact(program).ops) == 1
    program = replace(program, ops=(_op("linear", 0, (1,), weight=[[1e30]]), program.ops[1]))
    assert len(compact(program).ops) == 2


def test_what_rounds_to_zero_is_removed_too():
    program = _program(
        (2,),
        _op("linear", 0, (2,), weight=[[1e-30, 0], [0, 1]]),
        _op("scale", 1, (2,), weight=[1e-30, 1]),
        _op("activation", 2, (2,), activation="tanh"),
        _op("linear", 3, (1,), weight=[[1, 1]]),
    )
    found = compact(program)
    assert [op.shape for op in found.ops] == [(1,), (1,)]
    assert _equal(compact(found), found)


def test_a_network_without_weights_is_its_bias():
    program = _program(
        (3,),
        _op("linear", 0, (4,), weight=np.zeros((4, 3)), bias=[1, 2, 3, 4], activation="relu"),
        _op("linear", 1, (2,), weight=np.ones((2, 4)), bias=[1, 0]),
    )
    found = compact(program)
    assert [op.shape for op in found.ops] == [(1,), (2,)]
    assert found.ops[1].bias.tolist() == [11, 10]
    assert size(found)["kept"] == 0
    _same(found, program)


def test_a_dead_branch_goes():
    program = _program(
        (2,),
        _op("linear", 0, (2,), weight=[[1, 2], [3, 1]]),
        _op("linear", 1, (2,), weight=[[0, 0], [0, 0]]),
        _op("add", (1, 2), (2,), activation="relu"),
    )
    found = compact(program)
    assert _kinds(found) == [("linear", "relu")]
    _same(found, program)


def test_a_network_that_hands_on_its_input_is_one_operation():
    program = _program((4,), _op("flatten", 0, (4,)), _op("activation", 1, (4,)))
    assert _kinds(compact(program)) == [("activation", "")]
    _same(compact(program), program)


def test_a_part_left_to_torch_stays():
    def double(x):
        return 2 * x

    program = _program(
        (2,),
        _op("linear", 0, (2,), weight=[[1, 2], [3, 1]]),
        _op("call", 1, (2,), function=double),
        _op("activation", 2, (2,), activation="relu"),
    )
    found = compact(program)
    assert _kinds(found) == [("linear", ""), ("call", ""), ("activation", "relu")]
    assert found.ops[1].function is double
    _same(found, program)


def test_live_keeps_what_the_output_needs():
    relu = _op("activation", 0, (2,), activation="relu")
    tanh = _op("activation", 0, (2,), activation="tanh")
    program = _program((2,), relu, tanh, _op("add", (1, 0), (2,)))
    assert _kinds(live(program)) == [("activation", "relu"), ("add", "")]
    assert live(live(program)).ops[1].inputs == (1, 0)
    whole = _program((2,), relu)
    assert live(whole) is whole


def test_size_counts_weights():
    program = _program(
        (1, 2, 2),
        _op("conv2d", 0, (2, 2, 2), weight=[[[[0]]], [[[3]]]], bias=[1, 2]),
        _op("scale", 1, (2, 2, 2), weight=[1, 2]),
    )
    assert size(program) == {"kept": 1, "prunable": 2, "dense": 6}
