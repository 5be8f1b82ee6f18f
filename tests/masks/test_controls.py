import pytest
import torch

from secateurs import masks
from secateurs.errors import InputError


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def half(seed=0):
    scores = {
        "a": torch.rand(20, 10, generator=seeded(seed)),
        "b": torch.rand(10, 20, generator=seeded(seed + 1)),
    }
    return masks.keep_top(scores, 0.5)


def test_shuffle_keeps_the_count_of_each_layer_and_moves_the_positions():
    # in published code the shuffle control silently returns the mask itself
    mask = half()
    untouched = {name: kept.clone() for name, kept in mask.items()}
    shuffled = masks.shuffle(mask, generator=seeded())
    assert masks.kept_per_layer(shuffled) == masks.kept_per_layer(mask)
    for name, kept in mask.items():
        assert shuffled[name].shape == kept.shape
        # hypergeometric: k of 200 kept, so k^2/200 stay by chance, with a deviation below 3.6
        by_chance = int(kept.sum()) ** 2 / kept.numel()
        assert abs(int((shuffled[name] & kept).sum()) - by_chance) < 15
        assert torch.equal(kept, untouched[name])


def test_shuffle_puts_every_position_everywhere():
    mask = {"w": torch.tensor([True, True, False, False, False, False])}
    generator = seeded()
    hits = sum(masks.shuffle(mask, generator=generator)["w"].long() for _ in range(3000))
    assert ((hits - 1000).abs() < 130).all()  # 5 standard deviations


def test_shuffle_depends_on_its_generator_only():
    state = torch.get_rng_state()
    one, same, other = (masks.shuffle(half(), generator=seeded(s)) for s in (1, 1, 2))
    assert masks.iou(one, same) == 1
    assert masks.iou(one, other) < 0.6
    assert torch.equal(torch.get_rng_state(), state)


def test_a_global_shuffle_keeps_the_total_and_evens_out_the_layers():
    mask = {"full": torch.ones(20, 30, dtype=torch.bool), "empty": torch.zeros(1400).bool()}
    shuffled = masks.shuffle(mask, generator=seeded(), scope="global")
    assert masks.count(shuffled) == 600
    assert all(shuffled[name].shape == kept.shape for name, kept in mask.items())
    # hypergeometric: 600 of 2000 kept, 180 of them in a layer of 600, deviation 9.4
    assert abs(int(shuffled["full"].sum()) - 180) < 47
    assert masks.kept_per_layer(masks.shuffle(mask, generator=seeded())) == {
        "full": 600,
        "empty": 0,
    }


def test_a_global_shuffle_puts_every_position_everywhere():
    mask = {"a": torch.tensor([True, True]), "b": torch.zeros(2, 2, dtype=torch.bool)}
    generator, hits = seeded(), torch.zeros(6)
    for _ in range(3000):
        shuffled = masks.shuffle(mask, generator=generator, scope="global")
        hits += torch.cat([kept.flatten() for kept in shuffled.values()])
    assert ((hits - 1000).abs() < 130).all()  # 5 standard deviations


def test_an_unknown_scope_of_a_shuffle_is_refused():
    with pytest.raises(InputError, match="'layer' or 'global', got 'network'"):
        masks.shuffle(half(), generator=seeded(), scope="network")


def test_reversed_scores_keep_exactly_what_the_scores_remove():
    scores = {"a": torch.rand(20, 10, generator=seeded()), "b": torch.rand(6, generator=seeded(1))}
    kept = masks.keep_top(scores, 0.5)
    reversed_ = masks.keep_top(masks.reverse(scores), 0.5)
    assert masks.iou(kept, reversed_) == 0
    assert all(torch.equal(~kept[name], reversed_[name]) for name in scores)
