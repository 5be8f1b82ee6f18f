import subprocess
import sys

import torch

from secateurs.seeds import derive, stream


def test_streams_differ_by_seed_name_and_epoch():
    draws = {
        float(torch.rand(1, generator=stream(seed, phase, purpose, epoch)))
        for seed in range(3)
        for phase in ("search", "finetune")
        for purpose in ("order", "view")
        for epoch in range(5)
    }
    assert len(draws) == 60


def test_names_are_not_run_together():
    assert derive(0, "ab", "c") != derive(0, "a", "bc")
    assert derive(1, 2) != derive(12)


def test_the_same_names_give_the_same_stream_in_another_process():
    # a hash that Python salts would not
    code = "from secateurs.seeds import derive; print(derive(7, 'search', 'order', 3))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == derive(7, "search", "order", 3)


def test_derived_seeds_fit_every_generator():
    seeds = [derive(seed, "x") for seed in range(1000)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert len(set(seeds)) == 1000


def test_streams_leave_the_global_generator_alone():
    state = torch.get_rng_state()
    torch.rand(5, generator=stream(0, "x"))
    assert torch.equal(torch.get_rng_state(), state)
