"""Plans are made once and shared; torch's dense path is taken where it is faster."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from secateurs.errors import InputError
from secateurs.runtime import dense, native, net
from secateurs.runtime.net import Net, default_threads
from secateurs.runtime.program import Op, Program

pytestmark = pytest.mark.skipif(native.load() is None, reason="the kernels were not built")


def program(*, n=64, share=0.2):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((n, n)).astype(np.float32)
    weight[rng.random(weight.shape) >= share] = 0
    return Program(
        input_shape=(n,), ops=(Op(kind="linear", inputs=(0,), shape=(n,), weight=weight),)
    )


def test_threads_by_default(monkeypatch):
    monkeypatch.delenv("SECATEURS_THREADS", raising=False)
    assert default_threads(32) == 1
    assert default_threads(33) == len(os.sched_getaffinity(0))
    monkeypatch.setenv("SECATEURS_THREADS", "3")
    assert (default_threads(32), default_threads(33)) == (1, 3)
    monkeypatch.setenv("SECATEURS_THREADS", "many")
    with pytest.raises(InputError, match="SECATEURS_THREADS must be a positive number"):
        default_threads(33)


def test_short_work_starts_no_threads(monkeypatch):
    monkeypatch.setenv("SECATEURS_THREADS", "2")
    made = Net(program(), precision="fp32")
    assert made.threads(100) == 2  # nothing is known yet
    made.tune()
    made.costs = {1: 1e-6, 16: 1e-5}
    assert made.threads(100) == 1
    assert made.threads(10_000) == 2


def test_one_plan_however_many_come_first(monkeypatch):
    made, n_plans = Net(program(), precision="fp32"), []
    own = net.plan

    def slow(*args, **kwargs):
        n_plans.append(1)
        time.sleep(0.05)
        return own(*args, **kwargs)

    monkeypatch.setattr(net, "plan", slow)
    begin = threading.Barrier(6)

    def work(_):
        begin.wait()
        return made.plan(16)

    with ThreadPoolExecutor(6) as pool:
        plans = list(pool.map(work, range(6)))
    assert len(n_plans) == 1
    assert all(one is plans[0] for one in plans)


def test_plans_share_packed_weights():
    made = Net(program(n=256), precision="fp32")
    made.plan(16)
    one = made.n_bytes
    made.plan(32)
    assert made.n_bytes == one


def test_large_values_make_small_tiles():
    ops = (Op(kind="activation", inputs=(0,), shape=(2**20,), activation="relu"),)
    made = Net(Program(input_shape=(2**20,), ops=ops), precision="fp32")
    assert made.sizes == (1, 16, 32)
    x = np.full((3, 2**20), -1, np.float32)
    assert not made.run(x, None).any()


def work(seconds):
    """Keep a core busy: time asleep is none of a thread's own."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def fake_torch(monkeypatch, *, seconds):
    """A dense path that takes so long, and whose results are recognised."""

    def make(_, *, packed):
        def run(x):
            work(seconds)
            return np.full((len(x), 64), 7, np.float32)

        return run

    monkeypatch.setattr(dense, "torch_runner", make)
    monkeypatch.setattr(dense, "n_torch_threads", lambda: 2)


def test_a_faster_dense_path_is_taken(monkeypatch):
    fake_torch(monkeypatch, seconds=0)
    made = Net(program(), precision="fp32")
    monkeypatch.setattr(made, "_tile", lambda n: lambda x, threads: work(1e-3))
    made._compare_with_torch(made.program())
    assert made.run(np.zeros((0, 64), np.float32), None).shape == (0, 64)
    for rows in (1, 5, 16, 300, 5000):
        x = np.zeros((rows, 64), np.float32)
        assert (made.run(x, None) == 7).all()
        assert (made.run(x, 2) == 7).all()


def test_a_dense_path_that_only_waits_less_is_not_taken(monkeypatch):
    fake_torch(monkeypatch, seconds=1e-3)
    made = Net(program(), precision="fp32")
    # ours does less, and is kept waiting by a neighbour
    monkeypatch.setattr(made, "_tile", lambda n: lambda x, threads: time.sleep(3e-3))
    made._compare_with_torch(made.program())
    assert not made._dense


def test_a_slower_dense_path_is_not(monkeypatch):
    fake_torch(monkeypatch, seconds=3e-3)
    made = Net(program(), precision="fp32")
    made.tune()
    assert not (made.run(np.zeros((16, 64), np.float32), None) == 7).any()


def test_each_batch_has_the_path_of_the_next_smaller_measured_one(monkeypatch):
    monkeypatch.setattr(dense, "n_torch_threads", lambda: 4096)
    made = Net(program(), precision="fp32")
    made._dense = {1: None, 16: lambda x: np.full((len(x), 64), 7, np.float32), 64: None}
    taken = [
        rows
        for rows in (1, 15, 16, 17, 63, 64, 1000)
        if (made.run(np.zeros((rows, 64), np.float32), None) == 7).all()
    ]
    assert taken == [16, 17, 63]


def test_long_runs_are_not_measured(monkeypatch):
    asked = []

    def make(_, *, packed):
        return lambda x: asked.append(len(x))

    monkeypatch.setattr(dense, "torch_runner", make)
    monkeypatch.setattr(dense, "n_torch_threads", lambda: 2)  # sleep takes none of a thread's time
    made = Net(program(share=0.9), precision="fp32")
    monkeypatch.setattr(made, "run", lambda x, threads: time.sleep(0.02 * len(x)))
    monkeypatch.setattr(net, "_LONG", 0.5)
    made._compare_with_torch(made.program())
    assert max(asked) == 16


def test_fewer_threads_than_torchs_are_ours(monkeypatch):
    fake_torch(monkeypatch, seconds=0)
    made = Net(program(), precision="fp32")
    made._dense = {1: lambda x: np.full((len(x), 64), 7, np.float32)}
    x = np.zeros((1, 64), np.float32)
    assert (made.run(x, 2) == 7).all()
    assert not (made.run(x, 1) == 7).any()


def test_more_threads_than_torchs_are_ours(monkeypatch):
    fake_torch(monkeypatch, seconds=0)
    monkeypatch.setenv("SECATEURS_THREADS", "3")
    made = Net(program(), precision="fp32")
    made._dense = {1: lambda x: np.full((len(x), 64), 7, np.float32)}
    x = np.zeros((100, 64), np.float32)
    assert (made.run(x, 2) == 7).all()
    assert not (made.run(x, None) == 7).any()
