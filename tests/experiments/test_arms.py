"""Every arm does what its name says, and nothing else."""

from dataclasses import replace

import pytest
import torch

from secateurs import masks
from secateurs.data.batches import Data
from secateurs.errors import InputError
from secateurs.experiments.arms import ARMS, arm, beta_lasso
from secateurs.experiments.typed import describe
from secateurs.networks.init import scale_
from secateurs.optimizers import SGD, AdamW, BetaLasso
from secateurs.tickets import TicketConfig, prune, search, searches
from secateurs.training import PhaseConfig

IUNET = TicketConfig(
    search=PhaseConfig(epochs=3, optimizer=SGD(lr=0.05), contrastive_weight=1.0),
    finetune=PhaseConfig(epochs=7, optimizer=AdamW(), snapshots=3),
    compression=4.0,
)

CHANGES = {
    "IUNet": set(),
    "dense": {"compression"},
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


def test_the_matched_rate_is_that_of_the_small_start():
    assert arm("no-PIS, matched lr", IUNET).search.optimizer.encoder_lr == 0.05 / 0.25**2


def test_omp_paper_needs_sgd():
    with pytest.raises(InputError, match="learning rate of an SGD search, got AdamW"):
        arm("omp-paper", replace(IUNET, search=PhaseConfig(optimizer=AdamW())))
    with pytest.raises(InputError, match="an arm must be one of IUNet, dense"):
        arm("omp", IUNET)


def view(x, generator):
    return x + 0.1 * torch.randn(x.shape, generator=generator)


def ticket(make_network, data, config):
    common = {"seed": 3, "view": view}
    searched = search(make_network(), data, config, **common)
    return searched, prune(make_network(), data, searched, config, **common)


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
