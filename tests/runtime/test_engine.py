"""An engine gives what the network gives, for all that may be asked of it."""

import copy
import itertools
import pickle
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from reference.programs import evaluate, program
from secateurs import PhaseConfig, TicketConfig, find_ticket, masks, runtime
from secateurs.errors import InputError
from secateurs.networks.dense import MLP
from secateurs.networks.resnet import ResNet18
from secateurs.optimizers import SGD
from secateurs.runtime import engine as engines
from secateurs.runtime import fallback, native, net
from secateurs.runtime.compact import compact
from secateurs.runtime.engine import Engine, compile
from secateurs.runtime.precision import PRECISIONS, rounded
from secateurs.runtime.program import Op, Program

ROOT = Path(runtime.__file__).parents[2]

compiled_only = pytest.mark.skipif(native.load() is None, reason="the kernels were not built")


def close(found, wanted, *, by=1e-5):
    np.testing.assert_allclose(
        found, wanted, rtol=by, atol=by * max(1, np.abs(wanted).max(initial=0))
    )


def linear(rng, n_in, n_out, density, **more):
    weight = rng.standard_normal((n_out, n_in)).astype(np.float32) / np.sqrt(n_in * density)
    weight[rng.random(weight.shape) >= density] = 0
    bias = rng.standard_normal(n_out).astype(np.float32)
    return Op(kind="linear", shape=(n_out,), weight=weight.astype("f4"), bias=bias, **more)


def chain(seed=0, widths=(7, 64, 64, 3), density=0.2):
    rng = np.random.default_rng(seed)
    ops = [
        linear(rng, a, b, density, inputs=(i,), activation="relu" if i + 2 < len(widths) else "")
        for i, (a, b) in enumerate(itertools.pairwise(widths))
    ]
    return Program(input_shape=(widths[0],), ops=tuple(ops))


@pytest.fixture(params=["kernels", "fallback"])
def backend(request, monkeypatch):
    if request.param == "fallback":
        monkeypatch.setattr(net.native, "load", lambda: None)
    elif native.load() is None:
        pytest.skip("the kernels were not built")
    return request.param


@pytest.fixture
def made():
    return chain()


# --- what it computes -----------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(0, 70), st.integers(1, 3))
def test_random_programs_equal_their_slow_twins(seed, rows, n_threads):
    whole = program(seed)
    x = np.random.default_rng(seed).standard_normal((rows, *whole.input_shape)).astype(np.float32)
    close(compile(whole, tune=False)(x, n_threads=n_threads), evaluate(whole, x), by=1e-4)


@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1))
def test_tuned_programs_equal_their_slow_twins(seed):
    whole = program(seed)
    engine = compile(whole)
    for rows in (1, 5, 16, 40, 64, 129):
        x = np.random.default_rng(rows).standard_normal((rows, *whole.input_shape)).astype("f4")
        close(engine(x), evaluate(whole, x), by=1e-4)


@pytest.mark.parametrize("rows", [0, 1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 200])
@pytest.mark.parametrize("tune", [False, True])
def test_batches_of_any_size(made, backend, rows, tune):
    x = np.random.default_rng(0).standard_normal((rows, 7)).astype(np.float32)
    found = compile(made, tune=tune)(x)
    assert found.shape == (rows, 3)
    assert found.dtype == np.float32
    close(found, evaluate(made, x))


def test_a_row_does_not_depend_on_its_batch(made):
    engine = compile(made)
    x = np.random.default_rng(0).standard_normal((100, 7)).astype(np.float32)
    alone = np.concatenate([engine(row[None]) for row in x])
    close(engine(x), alone)


def test_networks_of_torch(backend):
    torch.manual_seed(0)
    for network, shape in (
        (MLP(6, 3, widths=(32, 32)), (6,)),
        (ResNet18(n_outputs=5, channels=3, width=4, stem="cifar"), (3, 16, 16)),
    ):
        network.train()(torch.randn(8, *shape))  # moves the statistics of BatchNorm
        weights = {n: p for n, p in network.named_parameters() if p.ndim > 1}
        mask = {n: torch.rand_like(p) < 0.3 for n, p in weights.items()}
        engine = compile(network, mask, torch.zeros(1, *shape), tune=False)
        twin = copy.deepcopy(network).eval()
        masks.apply_(twin, mask)
        x = torch.randn(9, *shape)
        with torch.no_grad():
            close(engine(x).numpy(), twin(x).numpy(), by=1e-4)


def test_lower_precisions_are_near_and_stay_so(made, backend):
    x = np.random.default_rng(0).standard_normal((40, 7)).astype(np.float32)
    wanted = evaluate(made, x)
    for precision, bound in (("bf16", 0.02), ("int8", 0.05)):
        engine = compile(made, precision=precision, tune=False)
        error = np.abs(engine(x) - wanted).max() / np.abs(wanted).max()
        assert 1e-5 < error < bound
        twin = rounded(compact(made), precision)
        close(engine(x), evaluate(twin, x))


def test_nothing_is_hidden(made, backend):
    engine = compile(made, tune=False)
    x = np.zeros((20, 7), np.float32)
    x[3, 2] = np.nan
    found = engine(x)
    assert np.isnan(found[3]).any()
    assert np.isfinite(np.delete(found, 3, axis=0)).all()


# --- what it takes --------------------------------------------------------------------------------


def test_arrays_of_every_kind_and_layout(made, backend):
    engine = compile(made, tune=False)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 200, (21, 7))
    wanted = engine(x.astype(np.float32))
    raw = np.empty(x.size * 4 + 1, np.uint8)
    unaligned = raw[1:].view(np.float32).reshape(x.shape)
    unaligned[...] = x
    assert not unaligned.flags.aligned
    wide = np.zeros((42, 14), np.float32)
    wide[::2, ::2] = x
    backwards = x[::-1].astype(np.float32)[::-1]
    read_only = x.astype(np.float32)
    read_only.flags.writeable = False
    for given_x in (
        x.astype(np.float64),
        x.astype(np.float16),
        x.astype(np.uint8),
        x.astype(">f4"),
        x,
        np.asfortranarray(x, np.float32),
        wide[::2, ::2],
        unaligned,
        backwards,
        read_only,
        x.tolist(),
        torch.from_numpy(x),
        torch.from_numpy(x).double(),
        torch.from_numpy(x.astype(np.float32)).requires_grad_(),
        torch.from_numpy(np.ascontiguousarray(x.T.astype(np.float32))).T,
    ):
        found = engine(given_x)
        assert isinstance(found, torch.Tensor) == isinstance(given_x, torch.Tensor)
        np.testing.assert_array_equal(np.asarray(found), wanted)
    assert engine(torch.from_numpy(x)).dtype == torch.float32


def test_numbers_that_float32_does_not_hold_are_infinite():
    op = Op(kind="activation", inputs=(0,), shape=(1,), activation="relu")
    engine = compile(Program(input_shape=(1,), ops=(op,)), tune=False)
    assert engine(np.array([[1e300]]))[0, 0] == np.inf


@pytest.mark.parametrize(
    ("x", "reason"),
    [
        (np.zeros((2, 8), "f4"), r"takes shape \(rows, 7\), got \(2, 8\); reshape it"),
        (np.zeros(7, "f4"), r"got \(7,\); for one sample pass x\[None\]"),
        (np.zeros((2, 7, 1), "f4"), "reshape it"),
        (np.zeros((2, 7), complex), "takes numbers, got complex128"),
        (np.zeros((2, 7), object), "takes numbers, got object"),
        (np.full((2, 7), "a"), "takes numbers, got <U1"),
        ([[1, 2], [3]], "takes an array of shape"),
        (torch.zeros(2, 7, dtype=torch.complex64), "takes dense tensors of numbers"),
        (torch.zeros(2, 7).to_sparse(), "takes dense tensors of numbers"),
    ],
)
def test_what_cannot_be_taken_is_told_in_one_line(made, x, reason):
    with pytest.raises(InputError, match=reason) as caught:
        compile(made, tune=False)(x)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("n_threads", [0, -1, 1.5, True, "2"])
def test_threads_are_a_positive_number(made, n_threads):
    with pytest.raises(InputError, match="n_threads must be a positive number"):
        compile(made, tune=False)(np.zeros((2, 7), "f4"), n_threads=n_threads)


@pytest.mark.parametrize("precision", ["fp16", None, 8])
def test_unknown_precisions_are_refused(made, precision):
    with pytest.raises(InputError, match="precision must be one of fp32, bf16, int8"):
        compile(made, precision=precision)


def test_a_program_takes_no_mask(made):
    with pytest.raises(InputError, match="has its mask in its weights"):
        compile(made, {})


@pytest.mark.gpu
def test_tensors_come_back_where_they_were(made):
    x = torch.randn(40, 7)
    found = compile(made)(x.cuda())
    assert found.is_cuda
    close(found.cpu().numpy(), evaluate(made, x.numpy()))


# --- parts left to torch --------------------------------------------------------------------------


class Odd(nn.Module):
    def forward(self, x):
        return torch.sinc(x)


def test_parts_left_to_torch_run_between(backend, tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(7, 8), nn.ReLU(), Odd(), nn.Linear(8, 3), Odd()).eval()
    with pytest.raises(InputError, match="Odd"):
        compile(network)
    engine = compile(network, unsupported="torch")
    x = torch.randn(70, 7)
    with torch.no_grad():
        close(engine(x).numpy(), network(x).numpy())
        assert engine(x[:0]).shape == (0, 3)
    with pytest.raises(InputError, match="left to torch cannot be stored"):
        engine.save(tmp_path / "net")
    assert [row["kind"] for row in engine.report()].count("call") == 2


def test_a_part_that_makes_another_shape_is_told():
    op = Op(kind="call", inputs=(0,), shape=(2,), function=lambda x: x[:, :1], name="odd")
    with pytest.raises(InputError, match="odd left to torch must make shape"):
        Engine(Program(input_shape=(2,), ops=(op,)))(np.zeros((3, 2)))


def test_a_part_beside_others_is_refused():
    call = Op(kind="call", inputs=(0,), shape=(2,), function=lambda x: x, name="odd")
    add = Op(kind="add", inputs=(0, 1), shape=(2,))
    with pytest.raises(InputError, match="must be all that the rest reads"):
        Engine(Program(input_shape=(2,), ops=(call, add)))


# --- threads, copies, files -----------------------------------------------------------------------


def test_many_threads_share_an_engine(made):
    engine = compile(made, tune=False)  # its plans are made by whoever comes first
    batches = [
        np.random.default_rng(i).standard_normal((1 + 7 * i % 90, 7)).astype(np.float32)
        for i in range(40)
    ]
    begin = threading.Barrier(8)

    def work(k):
        begin.wait()
        return [engine(x, n_threads=1 + k % 2) for x in batches[k::8]]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(work, range(8)))
    for k in range(8):
        for x, y in zip(batches[k::8], found[k], strict=True):
            close(y, evaluate(made, x))


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))]
)
def test_copies_compute_the_same(made, backend, again):
    engine = compile(made, tune=False)
    x = np.random.default_rng(0).standard_normal((40, 7)).astype(np.float32)
    np.testing.assert_array_equal(again(engine)(x), engine(x))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("tune", [False, True])
def test_what_was_saved_computes_the_same(made, backend, precision, tune, tmp_path):
    engine = compile(made, precision=precision)
    engine.save(tmp_path / "net")
    found = runtime.load(tmp_path / "net", tune=tune)
    assert type(found) is Engine
    assert found.precision == precision
    for rows in (1, 40):
        x = np.random.default_rng(0).standard_normal((rows, 7)).astype(np.float32)
        close(found(x), engine(x), by=1e-6)
    assert found.to_bytes() == engine.to_bytes() or tune


@compiled_only
def test_kernels_are_saved_and_taken_up(made, tmp_path):
    kinds = {n: dict.fromkeys(range(3), "dense1" if n == 1 else "dense") for n in (1, 16, 32, 64)}
    engine = Engine(made, kinds=kinds, tune=False)
    for n in kinds:
        assert engine._only.plan(n).kinds == tuple(kinds[n].values())
    engine.save(tmp_path / "net")
    loaded = runtime.load(tmp_path / "net", tune=False)
    assert loaded._only.kinds == kinds
    assert loaded._only.plan(16).kinds == ("dense",) * 3


@compiled_only
def test_kernels_that_are_none_are_not_taken_up(made):
    odd = {0: "warp", 1: "rows:3", 2: "rows:x", 7: "rows"}
    engine = Engine(made, kinds={16: odd, 5: odd}, tune=False)
    x = np.random.default_rng(0).standard_normal((16, 7)).astype(np.float32)
    close(engine(x), evaluate(made, x))


@compiled_only
def test_whole_weights_do_not_stay_in_memory(made):
    engine = compile(chain(widths=(64, 512, 512, 8), density=0.02), tune=False)
    first, second = engine._only.program(), engine._only.program()
    assert first is not second  # unpacked each time
    np.testing.assert_array_equal(first.ops[1].weight, second.ops[1].weight)
    engine(np.zeros((1, 64), "f4"))
    assert 0 < engine.n_bytes < 512 * 512 * 4 / 8


def test_it_says_what_it_is(made):
    kept = sum(np.count_nonzero(op.weight) for op in made.ops)
    said = repr(Engine(made, tune=False))
    size = sum(op.weight.size for op in made.ops)
    backend = native.isa() or fallback.backend()
    assert said == f"Engine((7,) -> (3,), {kept:,} of {size:,} weights kept, fp32, {backend})"


def test_it_announces_once_that_it_is_slow(made, monkeypatch):
    monkeypatch.setattr(net.native, "load", lambda: None)
    fallback.announce.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compile(made)
        compile(made)
    assert [w.category.__name__ for w in caught] == ["FallbackWarning"]


# --- imports --------------------------------------------------------------------------------------


def test_a_bare_import_loads_numpy_only(made, tmp_path):
    compile(made, tune=False).save(tmp_path / "net")
    code = f"""
import sys
import secateurs.runtime
bare = {{name.partition('.')[0] for name in sys.modules}}
import numpy
engine = secateurs.runtime.load({str(tmp_path / "net")!r})
engine(numpy.ones((3, 7)))
after = {{name.partition('.')[0] for name in sys.modules}}
own = set(sys.stdlib_module_names) | {{'secateurs', 'numpy'}}
print(sorted(bare - own), sorted(after - own - {{'scipy', 'numba', 'llvmlite'}}))
"""
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-W",
            "ignore",
            "-c",
            f"import sys; sys.path[:0] = [{str(ROOT)!r}]\n{code}",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    bare, after = done.stdout.split("] [")
    assert "torch" not in bare + after
    heavy = ("pandas", "sklearn", "scipy", "numba", "onnx")
    assert not any(name in bare for name in heavy)


def test_public_names_resolve():
    assert sorted(dir(runtime)) == sorted(runtime.__all__)
    assert runtime.compile is engines.compile
    with pytest.raises(AttributeError, match="has no attribute 'compress'"):
        _ = runtime.compress


# --- tickets --------------------------------------------------------------------------------------


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU())
        self.decoder = nn.Linear(16, 3)

    def forward(self, x):
        return self.decoder(self.encoder(x))


@pytest.mark.parametrize("alpha", [None, 0.5])
def test_a_ticket_is_its_function(data, alpha):
    """With an alpha that is the network's output less that at the masked start, scaled."""
    torch.manual_seed(0)
    phase = PhaseConfig(epochs=2, optimizer=SGD(lr=1e-2))
    config = TicketConfig(search=phase, finetune=replace(phase, alpha=alpha), compression=4)
    ticket = find_ticket(Plain(), data, config)
    engine = compile(ticket, tune=False)
    x = data.validation[0]
    with torch.no_grad():
        close(engine(x).numpy(), ticket.function(x).numpy())
    assert (ticket.function is ticket.network) == (alpha is None)
