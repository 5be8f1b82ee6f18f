import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch.utils._python_dispatch import TorchDispatchMode

from secateurs import Data
from secateurs.data.batches import epoch_batches
from secateurs.errors import InputError


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@given(n=st.integers(2, 200), batch_size=st.integers(2, 64), seed=st.integers(0, 2**31))
def test_every_row_comes_once_and_no_batch_is_of_one(n, batch_size, seed):
    batches = [rows.tolist() for rows in epoch_batches(n, batch_size, generator=seeded(seed))]
    assert sorted(row for rows in batches for row in rows) == list(range(n))
    assert all(2 <= len(rows) <= batch_size + 1 for rows in batches)
    assert all(len(rows) == batch_size for rows in batches[:-1])


@pytest.mark.parametrize(
    ("n", "batch_size", "sizes"),
    [(9, 4, [4, 5]), (10, 4, [4, 4, 2]), (8, 4, [4, 4]), (3, 2, [3]), (2, 2, [2]), (5, 128, [5])],
)
def test_a_last_row_alone_joins_the_batch_before_it(n, batch_size, sizes):
    assert [len(rows) for rows in epoch_batches(n, batch_size, generator=seeded())] == sizes


def test_the_order_is_shuffled_and_repeats_with_the_generator():
    def order(seed):
        return torch.cat(list(epoch_batches(100, 32, generator=seeded(seed))))

    assert torch.equal(order(1), order(1))
    assert not torch.equal(order(1), order(2))
    assert not torch.equal(order(1), torch.arange(100))


def test_one_row_is_refused():
    with pytest.raises(InputError, match=r"at least 2 rows .*, got 1"):
        Data(train=(torch.zeros(1, 3), torch.zeros(1)))


@pytest.mark.parametrize(
    ("part", "options"),
    [
        ("train", {"train": (torch.zeros(4, 2), torch.zeros(3))}),
        ("validation", {"validation": (torch.zeros(4, 2), torch.zeros(3))}),
        ("weight", {"weight": torch.zeros(5)}),
    ],
)
def test_lengths_that_differ_are_refused(part, options):
    with pytest.raises(InputError, match=f"{part}: inputs and targets must have equal length"):
        Data(**{"train": (torch.zeros(4, 2), torch.zeros(4)), **options})


def test_moving_keeps_all_parts():
    x, y = torch.zeros(4, 2), torch.zeros(4)
    whole = Data(train=(x, y), validation=(x, y), weight=y).to(torch.device("cpu"))
    assert whole.validation is not None
    assert whole.weight is not None
    bare = Data(train=(x, y)).to(torch.device("cpu"))
    assert bare.validation is None
    assert bare.weight is None


def test_the_order_is_moved_to_the_device_once():
    class Copies(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.seen += func.overloadpacket.__name__ == "_to_copy"
            return func(*args, **(kwargs or {}))

    meta = torch.device("meta")
    with Copies() as copies:
        batches = list(epoch_batches(100, 8, generator=seeded(), device=meta))
    assert copies.seen == 1
    assert {rows.device for rows in batches} == {meta}
    here = list(epoch_batches(100, 8, generator=seeded()))
    there = list(epoch_batches(100, 8, generator=seeded(), device=torch.device("cpu")))
    assert all(torch.equal(one, other) for one, other in zip(here, there, strict=True))
