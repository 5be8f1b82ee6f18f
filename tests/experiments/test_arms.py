"""Every arm does what its name says, and nothing else."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from secateurs import masks
from secateurs.data.batches import Data
from secateurs.errors import InputError
from secateurs.experiments.arms import ARMS, arm, beta_lasso
from secateurs.experiments.typed import describe
from secateurs.networks.init import scale_
from secateurs.optimizers import SGD, AdamW, BetaLasso, cycle_ends
from secateurs.schedules import exponential
from secateurs.tickets import TicketConfig, find_ticket, prune, search, searches
from secateurs.training import PhaseConfig, train

IUNET = TicketConfig(
    search=PhaseConfig(epochs=3, optimizer=SGD(lr=0.05), contrastive_weight=1.0),
    finetune=PhaseConfig(epochs=7, optimizer=AdamW(), snapshots=3),
    compression=4.0,
)

CHANGES = {
    "IUNet": set(),
    "dense": {"compression"},
    "dense, equal steps": {"compression", "finetune.epochs"},
    "dense with ILO": {"compression", "finetune.contrastive_weight"},
    "contrastive pretraining": {"compression", "rewind", "search.loss_weight"},
    "searched dense": {"compression", "rewind", "finetune.epochs", "finetune.snapshots"},
    "no-prune": {"compression", "rewind"},
    "omp-paper": {"init_scale", "search.contrastive_weight", "search.optimizer.lr"},
    "omp-rich": {"init_scale", "search.contrastive_weight"},
    "no-ILO": {"search.contrastive_weight"},
    "no-PIS": {"init_scale"},
    "no-PIS, matched lr": {"init_scale", "search.optimizer.encoder_lr"},
    "no rewind": {"rewind"},
    "pruned search": {"rewind", "finetune.epochs", "finetune.snapshots"},
    "untrained ticket": {"finetune.epochs", "finetune.snapshots"},
    "untrained shuffled mask": {"finetune.epochs", "finetune.snapshots", "control"},
    "untrained top-|start| mask": {"finetune.epochs", "finetune.snapshots", "control"},
    "untrained, re-initialised": {"finetune.epochs", "finetune.snapshots", "rewind"},
    "shuffled mask": {"control"},
    "top-|start| mask": {"control"},
    "re-initialised": {"rewind"},
}


def flat(value, prefix=""):
    if not isinstance(value, dict):
        return {prefix[:-1]: value}
    return {k: v for name, part in value.items() for k, v in flat(part, f"{prefix}{name}.").items()}


@pytest.mark.parametrize("name", ARMS)
def test_an_arm_changes_what_it_is_about(name):
    before, after = flat(describe(IUNET)), flat(describe(arm(name, IUNET)))
    assert {n for n in before if before[n] != after[n]} == CHANGES[name]


def test_the_dense_arm_needs_no_search_and_its_ablations_do():
    assert not searches(arm("dense", IUNET))
    assert searches(arm("no-prune", IUNET))
    assert searches(arm("searched dense", IUNET))
    assert not searches(arm("dense, equal steps", IUNET))
    assert not searches(arm("dense with ILO", IUNET))
    assert searches(arm("contrastive pretraining", IUNET))


def test_the_matched_rate_is_that_of_the_small_start():
    assert arm("no-PIS, matched lr", IUNET).search.optimizer.encoder_lr == 0.05 / 0.25**2


def test_omp_paper_needs_sgd():
    with pytest.raises(InputError, match="learning rate of an SGD search, got AdamW"):
        arm("omp-paper", replace(IUNET, search=PhaseConfig(optimizer=AdamW())))
    with pytest.raises(InputError, match="an arm must be one of IUNet, dense"):
        arm("omp", IUNET)


def test_contrastive_arms_need_a_contrastive_search():
    for name in ("dense with ILO", "contrastive pretraining"):
        with pytest.raises(InputError, match="needs a search with a contrastive_weight, got 0"):
            arm(name, arm("no-ILO", IUNET))


def test_equal_steps_need_one_batch_size():
    search = replace(IUNET.search, batch_size=64)
    with pytest.raises(InputError, match="only with one batch size, got 64 and 128"):
        arm("dense, equal steps", replace(IUNET, search=search))


def view(x, generator):
    return x + 0.1 * torch.randn(x.shape, generator=generator)


def ticket(make_network, data, config):
    common = {"seed": 3, "view": view}
    searched = search(make_network(), data, config, **common)
    return searched, prune(make_network(), data, searched, config, **common)


def steps_of(network, data, config):
    """Return the kind of the optimizer at each step that finding the ticket takes."""
    taken = []
    handle = register_optimizer_step_post_hook(lambda optimizer, *_: taken.append(type(optimizer)))
    find_ticket(network, data, config, view=view)
    handle.remove()
    return taken


@pytest.mark.parametrize("rounds", [1, 2])
def test_equal_steps_are_those_of_search_and_finetuning(make_network, data, rounds):
    iunet = replace(IUNET, schedule=partial(exponential, rounds=rounds))
    searched = steps_of(make_network(), data, iunet)
    dense = steps_of(make_network(), data, arm("dense, equal steps", iunet))
    assert len(dense) == len(searched) == 3 * rounds + 7
    assert set(dense) == {torch.optim.AdamW}
    assert set(searched) == {torch.optim.SGD, torch.optim.AdamW}


def test_equal_steps_stretch_the_cycles():
    longer = arm("dense, equal steps", replace(IUNET, search=replace(IUNET.search, epochs=14)))
    assert cycle_ends("restarts", longer.finetune.epochs) == (3, 9, 21)


def test_dense_with_ilo_is_one_training_with_both_terms(make_network, data):
    config = arm("dense with ILO", IUNET)
    network = make_network()
    found = find_ticket(network, data, config, seed=3, view=view)
    assert found.density == 1
    for name, tensor in network.state_dict().items():
        assert torch.equal(found.start[name], tensor)
    assert [row["phase"] for row in found.history] == ["finetune"] * 7
    assert all("contrastive" in row for row in found.history)
    train(
        network,
        data,
        replace(IUNET.finetune, contrastive_weight=1.0),
        name="finetune",
        seed=3,
        view=view,
    )
    for name, tensor in network.state_dict().items():
        assert torch.equal(found.network.state_dict()[name], tensor), name


def test_contrastive_pretraining_sees_classes_in_its_second_phase_only(make_network, data):
    config = arm("contrastive pretraining", IUNET)
    searched, found = ticket(make_network, data, config)
    assert found.density == 1
    # nothing but the contrastive term in the search: the decoder got no gradient
    assert torch.equal(searched.state["decoder.weight"], 0.25 * searched.start["decoder.weight"])
    assert not torch.equal(searched.state["encoder.0.weight"], searched.start["encoder.0.weight"])
    for row in searched.history:
        assert row["loss"] == pytest.approx(row["contrastive"])
    # ... and finetuning starts where it ended
    for name, tensor in searched.state.items():
        assert torch.equal(found.start[name], tensor)
    assert not any("contrastive" in row for row in found.history[3:])


def test_searched_dense_is_the_search_to_the_bit(make_network, data):
    searched, found = ticket(make_network, data, arm("searched dense", IUNET))
    for name, tensor in found.network.state_dict().items():
        assert torch.equal(tensor, searched.state[name]), name


def test_pruned_search_is_the_search_masked(make_network, data):
    searched, found = ticket(make_network, data, arm("pruned search", IUNET))
    for name, kept in found.mask.items():
        assert torch.equal(found.network.get_parameter(name), searched.state[name] * kept)
    assert masks.density(found.mask) == 0.25


def test_untrained_ticket_is_the_start_masked(make_network, data):
    searched, found = ticket(make_network, data, arm("untrained ticket", IUNET))
    for name, kept in found.mask.items():
        assert torch.equal(found.network.get_parameter(name), searched.start[name] * kept)


def test_the_controls_of_the_untrained_ticket_are_untrained(make_network, data):
    searched, plain = ticket(make_network, data, arm("untrained ticket", IUNET))
    for name in ("untrained shuffled mask", "untrained top-|start| mask"):
        _, found = ticket(make_network, data, arm(name, IUNET))
        assert masks.iou(found.mask, plain.mask) < 1
        assert masks.kept_per_layer(found.mask) == masks.kept_per_layer(plain.mask)
        for layer, kept in found.mask.items():
            assert torch.equal(found.network.get_parameter(layer), searched.start[layer] * kept)
    _, fresh = ticket(make_network, data, arm("untrained, re-initialised", IUNET))
    assert masks.iou(fresh.mask, plain.mask) == 1
    layer = next(iter(plain.mask))
    kept = plain.mask[layer]
    assert (fresh.network.get_parameter(layer)[kept] != searched.start[layer][kept]).all()


def test_reinitialised_has_the_mask_and_other_weights(make_network, data):
    _, plain = ticket(make_network, data, IUNET)
    _, control = ticket(make_network, data, arm("re-initialised", IUNET))
    assert masks.iou(plain.mask, control.mask) == 1
    name = next(iter(plain.mask))
    kept = plain.mask[name]
    assert (plain.start[name][kept] != control.start[name][kept]).all()
    spread = control.start[name].std() / plain.start[name].std()
    assert 0.7 < spread < 1.4


def test_beta_lasso_sets_its_own_density(make_network, data):
    densities = []
    for l1 in (0.0, 1e-3, 3e-3):
        config = beta_lasso(IUNET, l1=l1)
        assert isinstance(config.search.optimizer, BetaLasso)
        searched, found = ticket(make_network, data, config)
        for name, kept in found.mask.items():
            assert torch.equal(kept, searched.state[name] != 0)
        masks.check_held(found.network.state_dict(), found.mask)
        densities.append(found.density)
    assert densities[0] == 1
    assert densities[0] > densities[1] > densities[2] > 0


def test_no_pis_is_the_same_search_from_the_full_start(make_network):
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    data = Data(train=(x, (x[:, 0] > 0).long()))
    config = replace(IUNET, search=replace(IUNET.search, epochs=1))
    full = search(make_network(n_outputs=2), data, arm("no-PIS", config), seed=1, view=view)
    scaled_by_hand = make_network(n_outputs=2)
    scale_(scaled_by_hand, 1.0)
    twin = search(scaled_by_hand, data, arm("no-PIS", config), seed=1, view=view)
    assert torch.equal(full.state["encoder.0.weight"], twin.state["encoder.0.weight"])
    small = search(make_network(n_outputs=2), data, config, seed=1, view=view)
    assert not torch.equal(full.state["encoder.0.weight"], small.state["encoder.0.weight"])
