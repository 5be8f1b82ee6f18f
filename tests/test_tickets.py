import copy
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import nn

from reference import loop
from secateurs import Data, TicketConfig, criteria, find_ticket, masks, schedules, tickets, training
from secateurs.data.views import corruption
from secateurs.errors import InputError
from secateurs.measures.size import n_parameters, n_parameters_kept
from secateurs.networks.init import initialise_, scale_
from secateurs.networks.lenet import LeNet300100
from secateurs.optimizers import SGD, AdamW, BetaLasso
from secateurs.seeds import stream
from secateurs.training import PhaseConfig, train

ENCODER = ["encoder.0.weight", "encoder.3.weight"]
SEARCH = PhaseConfig(epochs=2, batch_size=32, optimizer=SGD(lr=0.05))
FINETUNE = PhaseConfig(epochs=3, batch_size=32, optimizer=AdamW(lr=3e-3))
CONFIG = TicketConfig(search=SEARCH, finetune=FINETUNE, compression=4)
IUNET = replace(CONFIG, search=replace(SEARCH, contrastive_weight=1.0))


@pytest.fixture(scope="session")
def view(data):
    return corruption(data.train[0], [(i, i + 1) for i in range(6)], rate=0.6)


def forbidden(*_):
    raise AssertionError("must not be called")


def same(one, other):
    """Whether two states are equal to the bit."""
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def same_ticket(one, other):
    return (
        same(one.network.state_dict(), other.network.state_dict())
        and same(one.mask, other.mask)
        and same(one.start, other.start)
        and all(same(a, b) for a, b in zip(one.snapshots, other.snapshots, strict=True))
    )


# --- what every ticket promises -----------------------------------------------------------------


@pytest.mark.parametrize("compression", [1, 1.5, 2, 4, 8, 32])
def test_density_is_exact_the_mask_holds_and_the_network_is_untouched(
    make_network, data, view, compression
):
    network = make_network()
    before, state = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    ticket = find_ticket(network, data, replace(IUNET, compression=compression), view=view)
    n = 6 * 16 + 16 * 16
    assert masks.count(ticket.mask) == int(n / compression + 0.5)
    assert list(ticket.mask) == ENCODER
    assert ticket.density == pytest.approx(1 / compression, abs=0.5 / n)
    for trained in (ticket.network.state_dict(), *ticket.snapshots):
        masks.check_held(trained, ticket.mask)
    assert same(network.state_dict(), before)
    assert network.training
    assert not ticket.network.training
    assert torch.equal(torch.get_rng_state(), state)
    assert ticket.complete


def test_the_same_seed_gives_the_same_ticket_and_another_seed_another(make_network, data, view):
    one, again = (find_ticket(make_network(), data, IUNET, view=view, seed=3) for _ in range(2))
    other = find_ticket(make_network(), data, IUNET, view=view, seed=4)
    assert same_ticket(one, again)
    assert not same(one.network.state_dict(), other.network.state_dict())


def test_history_covers_search_and_finetuning(make_network, data, view):
    rows = []
    ticket = find_ticket(
        make_network(), data, IUNET, view=view, progress=lambda row, n: rows.append((row, n))
    )
    assert [row for row, _ in rows] == ticket.history
    found = [(row["phase"], row["epoch"], n) for row, n in rows]
    assert found == [("search", e, 2) for e in (1, 2)] + [("finetune", e, 3) for e in (1, 2, 3)]
    assert ["contrastive" in row for row in ticket.history] == [True] * 2 + [False] * 3


@pytest.mark.parametrize(
    "optimizer",
    [SGD(lr=0.05), AdamW(lr=3e-3), BetaLasso(lr=0.05, l1=1e-3, beta=20)],
    ids=lambda config: type(config).__name__,
)
def test_every_optimizer_searches(make_network, data, view, optimizer):
    config = replace(IUNET, search=replace(IUNET.search, optimizer=optimizer), init_scale=1.0)
    ticket = find_ticket(make_network(), data, config, view=view)
    assert ticket.density == 0.25
    searched = ticket.searched.state
    zeros = sum(int((searched[name] == 0).sum()) for name in ENCODER)
    assert (zeros > 0) == isinstance(optimizer, BetaLasso)


def test_beta_lasso_with_a_scaled_start_is_refused_unless_asked():
    lasso = replace(SEARCH, optimizer=BetaLasso())
    with pytest.raises(InputError, match=r"init_scale must be 1, got 0\.25"):
        TicketConfig(search=lasso)
    TicketConfig(search=replace(SEARCH, optimizer=BetaLasso(allow_scaled_start=True)))


# --- limiting cases are simpler methods -----------------------------------------------------------


def test_compression_1_is_the_dense_network_to_the_bit(make_network, data, view):
    config = replace(IUNET, compression=1)
    ticket = find_ticket(make_network(), data, config, view=view, seed=5)
    dense = make_network()
    train(dense, data, FINETUNE, name="finetune", seed=5, prunable=ENCODER)
    assert same(ticket.network.state_dict(), dense.state_dict())
    assert ticket.density == 1
    assert {row["phase"] for row in ticket.history} == {"finetune"}


def test_compression_1_without_a_rewind_is_the_no_prune_ablation(make_network, data, view):
    config = replace(IUNET, compression=1, rewind="none")
    ticket = find_ticket(make_network(), data, config, view=view, seed=5)
    searched = tickets.search(make_network(), data, IUNET, view=view, seed=5)
    twin = make_network()
    twin.load_state_dict(searched.state)
    train(twin, data, FINETUNE, name="finetune", seed=5, prunable=ENCODER)
    assert same(ticket.network.state_dict(), twin.state_dict())
    assert ticket.density == 1


def test_control_shuffled_keeps_the_counts_and_nothing_else(make_network, data, view):
    plain = find_ticket(make_network(), data, IUNET, view=view, seed=5)
    control = find_ticket(
        make_network(), data, replace(IUNET, control="shuffled"), view=view, seed=5
    )
    assert masks.kept_per_layer(control.mask) == masks.kept_per_layer(plain.mask)
    assert masks.iou(control.mask, plain.mask) < 0.5
    assert same(control.start, plain.start)
    masks.check_held(control.network.state_dict(), control.mask)
    again = find_ticket(make_network(), data, replace(IUNET, control="shuffled"), view=view, seed=5)
    assert same_ticket(again, control)


def test_control_top_start_is_the_mask_of_the_largest_initial_weights(make_network, data, view):
    control = find_ticket(
        make_network(), data, replace(IUNET, control="top_start"), view=view, seed=5
    )
    plain = find_ticket(make_network(), data, IUNET, view=view, seed=5)
    start = make_network().state_dict()
    for name, kept in control.mask.items():
        k = int(plain.mask[name].sum())
        assert int(kept.sum()) == k
        smallest_kept = start[name].abs()[kept].min()
        assert int((start[name].abs() > smallest_kept).sum()) < k


def test_compression_1_needs_no_rounds(make_network, data, tmp_path):
    config = replace(CONFIG, compression=1, schedule=partial(schedules.exponential, rounds=3))
    ticket = find_ticket(make_network(), data, config, checkpoint_dir=tmp_path)
    plain = find_ticket(make_network(), data, replace(CONFIG, compression=1))
    assert same_ticket(ticket, plain)
    assert len(ticket.history) == FINETUNE.epochs


def test_without_scale_and_contrast_it_is_one_shot_magnitude_pruning(make_network, data):
    config = replace(CONFIG, init_scale=1.0)
    ticket = find_ticket(make_network(), data, config, seed=2)
    options = {"batch_size": 32, "seed": 2}
    twin = make_network()
    start = copy.deepcopy(twin.state_dict())
    nesterov = {"momentum": 0.9, "nesterov": True, "fused": True}
    sgd = torch.optim.SGD(twin.parameters(), lr=0.05, **nesterov)
    loop.train(twin, data, sgd, epochs=2, name="search", **options)
    mask = loop.top_magnitudes(twin, 0.25)
    assert same(ticket.mask, mask)
    twin.load_state_dict(start)
    adamw = torch.optim.AdamW(twin.parameters(), lr=3e-3, weight_decay=1e-2, fused=True)
    loop.train(
        twin, data, adamw, epochs=3, name="finetune", mask=mask, schedule="restarts", **options
    )
    assert same(ticket.network.state_dict(), twin.state_dict())


@pytest.mark.parametrize("rewind", ["start", "none", "step:4"])
def test_one_round_is_one_shot(make_network, data, view, rewind):
    one_shot = replace(IUNET, rewind=rewind)
    in_rounds = replace(one_shot, schedule=partial(schedules.exponential, rounds=1))
    assert same_ticket(
        find_ticket(make_network(), data, one_shot, view=view),
        find_ticket(make_network(), data, in_rounds, view=view),
    )


@pytest.mark.parametrize("init_scale", [1.0, 0.25])
def test_without_a_search_the_start_is_pruned(make_network, data, init_scale):
    config = replace(CONFIG, search=replace(SEARCH, epochs=0), init_scale=init_scale)
    ticket = find_ticket(make_network(), data, config)
    assert same(ticket.mask, loop.top_magnitudes(make_network(), 0.25))
    assert same(ticket.start, make_network().state_dict())
    assert {row["phase"] for row in ticket.history} == {"finetune"}


def test_without_finetuning_the_untrained_ticket_is_handed_over(make_network, data):
    config = replace(CONFIG, finetune=replace(FINETUNE, epochs=0))
    ticket = find_ticket(make_network(), data, config)
    expected = make_network()
    masks.apply_(expected, ticket.mask)
    assert same(ticket.network.state_dict(), expected.state_dict())


def test_the_searched_mask_differs_from_the_starts(make_network, data, view):
    ticket = find_ticket(make_network(), data, IUNET, view=view)
    assert masks.iou(ticket.mask, loop.top_magnitudes(make_network(), 0.25)) < 0.9


def test_the_scale_is_on_all_layers_of_the_search_and_gone_after_it(make_network, data):
    config = replace(CONFIG, search=replace(SEARCH, optimizer=SGD(lr=1e-30)))
    ticket = find_ticket(make_network(), data, config)
    start = make_network()
    assert same(ticket.start, start.state_dict())
    scale_(start, 0.25)
    for name in (*ENCODER, "decoder.weight"):
        assert torch.equal(ticket.searched.state[name], start.get_parameter(name))
    assert torch.equal(start.decoder.weight, make_network().decoder.weight * 0.25)


# --- iterative pruning --------------------------------------------------------------------------


@pytest.mark.parametrize("rewind", ["start", "none"])
def test_rounds_are_nested_and_their_densities_geometric(make_network, data, rewind):
    found = []

    def watched(network, *, only):
        scores = criteria.magnitude(network, only=only)
        found.append({name: score != 0 for name, score in scores.items()})
        return scores

    config = replace(
        CONFIG,
        compression=8,
        criterion=watched,
        rewind=rewind,
        schedule=partial(schedules.exponential, rounds=3),
    )
    ticket = find_ticket(make_network(), data, config)
    rounds = [*found, ticket.mask]
    assert [masks.count(mask) for mask in rounds] == [352, 176, 88, 44]
    for before, after in pairwise(rounds):
        assert not any((after[name] & ~before[name]).any() for name in before)
    phases = [row["phase"] for row in ticket.history]
    assert phases == ["search"] * 2 + ["round 1"] * 2 + ["round 2"] * 2 + ["finetune"] * 3


def test_no_round_revives_what_an_earlier_one_pruned(make_network, data):
    found = []

    def smallest_first(network, *, only):  # a pruned weight, which is 0, would be the best
        scores = criteria.magnitude(network, only=only)
        found.append({name: score != 0 for name, score in scores.items()})
        return {name: -score for name, score in scores.items()}

    schedule = partial(schedules.exponential, rounds=3)
    config = replace(CONFIG, criterion=smallest_first, schedule=schedule)
    ticket = find_ticket(make_network(), data, config)
    for before, after in pairwise([*found, ticket.mask]):
        assert not any((after[name] & ~before[name]).any() for name in before)
    assert len(found) == 3


def test_iterative_pruning_is_train_prune_rewind_again(make_network, data):
    config = replace(
        CONFIG, init_scale=1.0, compression=4, schedule=partial(schedules.exponential, rounds=2)
    )
    ticket = find_ticket(make_network(), data, config)
    network, mask = make_network(), None
    options = {"seed": 0, "prunable": ENCODER}
    train(network, data, SEARCH, name="search", **options)
    for density, name, phase in [(0.5, "search", SEARCH), (0.25, "finetune", FINETUNE)]:
        mask = masks.keep_top(criteria.magnitude(network, only="enc*"), density, within=mask)
        network = make_network()
        train(network, data, phase, name=name, mask=mask, **options)
        assert density != 0.5 or same(ticket.searched.state, network.state_dict())
    assert same(ticket.mask, mask)
    assert same(ticket.network.state_dict(), network.state_dict())


# --- rewinding ----------------------------------------------------------------------------------


def test_each_rewind_does_what_it_says(make_network, data, view):
    found = {
        rewind: find_ticket(make_network(), data, replace(IUNET, rewind=rewind), view=view)
        for rewind in ("start", "scaled_start", "none", "random", "step:0", "step:3", "step:6")
    }
    mask, start = found["start"].mask, make_network()
    assert all(same(ticket.mask, mask) for ticket in found.values())
    assert same(found["start"].start, start.state_dict())

    scale_(start, 0.25)
    assert same(found["scaled_start"].start, start.state_dict())
    assert same(found["step:0"].start, start.state_dict())

    one_epoch = make_network()
    scale_(one_epoch, 0.25)
    phase = replace(IUNET.search, epochs=1)  # 3 steps
    train(one_epoch, data, phase, name="search", seed=0, prunable=ENCODER, view=view)
    assert same(found["step:3"].start, one_epoch.state_dict())

    searched = found["none"].searched.state
    assert same(found["none"].start, searched)
    assert same(found["step:6"].start, searched)

    fresh = make_network()
    initialise_(fresh, generator=stream(0, "rewind"))
    assert same(found["random"].start, fresh.state_dict())
    finals = [ticket.network.state_dict() for ticket in found.values()]
    assert len({float(state["decoder.weight"].sum()) for state in finals}) == 5


def test_random_reinitialisation_shares_nothing_with_the_start(make_network, data):
    # the control of the lottery papers: the same mask, weights that know nothing of the start
    ticket = find_ticket(make_network(), data, replace(CONFIG, rewind="random"))
    other = find_ticket(make_network(), data, replace(CONFIG, rewind="random"), seed=1)
    start = make_network().state_dict()
    for name in (*ENCODER, "decoder.weight"):
        assert not (ticket.start[name] == start[name]).any()
        assert not (ticket.start[name] == other.start[name]).any()
        correlation = torch.corrcoef(
            torch.stack([ticket.start[name].flatten(), start[name].flatten()])
        )
        assert abs(float(correlation[0, 1])) < 0.45
        ratio = float(ticket.start[name].std() / start[name].std())
        assert ratio == pytest.approx(1, abs=0.35)
    assert same(ticket.mask, find_ticket(make_network(), data, CONFIG).mask)


@pytest.mark.parametrize("rewind", ["step:7", "step:100"])
def test_a_step_beyond_the_search_is_refused_before_training(make_network, data, rewind):
    with pytest.raises(InputError, match=f"rewind='{rewind}' must lie within the search"):
        find_ticket(make_network(), data, replace(CONFIG, rewind=rewind), progress=forbidden)


def test_a_step_of_no_search_is_refused(make_network, data):
    config = replace(CONFIG, rewind="step:1", search=replace(SEARCH, epochs=0))
    with pytest.raises(InputError, match="rewind='step:1' must lie within the search"):
        find_ticket(make_network(), data, config, progress=forbidden)


def test_a_step_that_the_time_limit_cut_off_is_refused(make_network, data):
    config = replace(CONFIG, rewind="step:5")
    with pytest.raises(InputError, match="must lie within the search"):
        find_ticket(make_network(), data, config, time_limit=0)


# --- criteria and selection -----------------------------------------------------------------------


def test_the_random_criterion_ignores_the_weights_and_follows_the_seed(make_network, data):
    config = replace(CONFIG, criterion=criteria.random)
    one = find_ticket(make_network(), data, config)
    same_seed = find_ticket(make_network(seed=9), data, config)
    other = find_ticket(make_network(), data, config, seed=1)
    assert same(one.mask, same_seed.mask)
    assert masks.iou(one.mask, other.mask) == pytest.approx(0.25 / 1.75, abs=0.1)
    assert one.density == 0.25


def test_scope_layer_keeps_the_same_share_in_each_layer(make_network, data):
    ticket = find_ticket(make_network(), data, replace(CONFIG, scope="layer"))
    assert masks.kept_per_layer(ticket.mask) == {ENCODER[0]: 24, ENCODER[1]: 64}


def test_every_layer_keeps_its_floor(make_network, data):
    def second_layer_first(network, *, only):
        scores = criteria.magnitude(network, only=only)
        return {ENCODER[0]: scores[ENCODER[0]], ENCODER[1]: 100 + scores[ENCODER[1]]}

    config = replace(CONFIG, criterion=second_layer_first, min_per_layer=7)
    ticket = find_ticket(make_network(), data, config)
    assert masks.kept_per_layer(ticket.mask) == {ENCODER[0]: 7, ENCODER[1]: 81}


@pytest.mark.parametrize("compression", [1, 1.5, 2, 3])
def test_compression_of_the_model_counts_every_parameter(make_network, data, compression):
    config = replace(CONFIG, compression=compression, compression_of="model")
    ticket = find_ticket(make_network(), data, config)
    n = n_parameters(make_network())
    assert n_parameters_kept(ticket.network, ticket.mask) == pytest.approx(n / compression, abs=0.5)


# --- refused before anything is trained -----------------------------------------------------------


def refuse(make_network, data, config, rule, **options):
    options = {"view": forbidden, "progress": forbidden, **options}
    with pytest.raises(InputError, match=rule) as caught:
        find_ticket(make_network(), data, config, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("phase", ["search", "finetune"])
def test_a_contrastive_weight_without_a_view_is_refused(make_network, data, phase):
    config = replace(CONFIG, **{phase: replace(SEARCH, contrastive_weight=0.5)})
    rule = f"needs a view, got {phase}.contrastive_weight=0.5"
    refuse(make_network, data, config, rule, view=None)


@pytest.mark.parametrize(
    ("options", "most"),
    [
        ({"compression": 300}, 176),
        ({"compression": 1e9}, 176),
        ({"compression": 60, "min_per_layer": 4}, 44),
        ({"compression": 250, "scope": "layer"}, 96),
        ({"compression": 40, "scope": "layer", "min_per_layer": 5}, 19.2),
        ({"compression": 8, "compression_of": "model"}, 3.9),
        ({"compression": 1000, "compression_of": "model"}, 3.9),
    ],
    ids=str,
)
def test_too_high_a_compression_is_refused_and_the_highest_is_told(
    make_network, data, options, most
):
    message = refuse(
        make_network, data, replace(IUNET, **options), "compression must leave at least"
    )
    assert f"use a compression of at most {most:g} " in message
    highest = replace(CONFIG, **{**options, "compression": most})
    ticket = find_ticket(make_network(), data, highest)
    assert min(masks.kept_per_layer(ticket.mask).values()) >= options.get("min_per_layer", 1)


def test_a_missing_encoder_lists_the_submodules(make_network, data):
    rule = r"must have a submodule 'body' .*pass encoder='NAME' \(its submodules: encoder, decoder"
    refuse(make_network, data, CONFIG, rule, encoder="body")
    with pytest.raises(InputError, match="its submodules: none"):
        find_ticket(nn.Linear(6, 3), data, CONFIG)


@pytest.mark.parametrize(
    ("option", "value", "rule"),
    [
        ("compression", 0.5, "compression must be at least 1"),
        ("compression", float("nan"), "compression must be at least 1"),
        ("compression", float("inf"), "compression must be at least 1"),
        ("compression_of", "all", "'encoder' or 'model', got 'all'"),
        ("scope", "network", "scope must be one of 'global', 'layer', .*, got 'network'"),
        ("rewind", "begin", "rewind must be 'start', .* got 'begin'"),
        ("rewind", "step:-1", "rewind must be 'start', .* got 'step:-1'"),
        ("rewind", "step:", "rewind must be 'start', .* got 'step:'"),
        ("init_scale", 0.0, "init_scale must be a positive number"),
        ("init_scale", -1.0, "init_scale must be a positive number"),
        ("min_per_layer", -1, "min_per_layer must be at least 0"),
    ],
)
def test_impossible_settings_are_refused(option, value, rule):
    with pytest.raises(InputError, match=rule):
        TicketConfig(**{option: value})


# --- any module -------------------------------------------------------------------------------


class Pictures(nn.Module):
    """A user's own module: convolutions under a name of their own."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 8, 3, stride=2),
            nn.BatchNorm2d(8),
            nn.ReLU(),
        )
        self.head = nn.Linear(8 * 2 * 2, 2)

    def forward(self, x):
        return self.head(self.features(x).flatten(1))


def pictures():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(70, 1, 6, 6, generator=generator)
    return Data(train=(x, (x[:, 0, 2, 2] > 0).long()))


def shifted(x, generator):
    return x.roll(int(torch.randint(2, (1,), generator=generator)), dims=3)


def test_a_users_convolutions_are_pruned(make_network):
    network = Pictures()
    initialise_(network, generator=torch.Generator().manual_seed(0))
    ticket = find_ticket(network, pictures(), IUNET, view=shifted, encoder="features")
    assert list(ticket.mask) == ["features.0.weight", "features.3.weight"]
    assert masks.count(ticket.mask) == (36 + 288) // 4
    masks.check_held(dict(ticket.network.named_parameters()), ticket.mask)
    assert ticket.history[0]["contrastive"] != 0


def test_an_encoder_may_be_one_layer_or_lie_deeper():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.ModuleDict({"first": nn.Linear(6, 8), "norm": nn.BatchNorm1d(8)})
            self.head = nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.body["norm"](self.body["first"](x)).relu())

    network = Deep()
    initialise_(network, generator=torch.Generator().manual_seed(0))
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    table = Data(train=(x, (x[:, 0] > 0).long()))
    ticket = find_ticket(network, table, CONFIG, encoder="body.first")
    assert masks.kept_per_layer(ticket.mask) == {"body.first.weight": 12}


# --- time and interruption ------------------------------------------------------------------------


def test_with_no_time_each_phase_still_trains_one_epoch(make_network, data, view):
    ticket = find_ticket(make_network(), data, IUNET, view=view, time_limit=0)
    assert [(row["phase"], row["epoch"]) for row in ticket.history] == [
        ("search", 1),
        ("finetune", 1),
    ]
    assert not ticket.complete
    assert ticket.density == 0.25
    masks.check_held(dict(ticket.network.named_parameters()), ticket.mask)


def test_enough_time_changes_nothing(make_network, data, view):
    free = find_ticket(make_network(), data, IUNET, view=view)
    limited = find_ticket(make_network(), data, IUNET, view=view, time_limit=1e6)
    assert same_ticket(free, limited)
    assert limited.complete


class Killed(BaseException):
    """What a kill looks like from inside: nothing may catch it."""


def kill_at(network, n):
    """Raise in the n-th forward pass of training, in this network and its copies."""
    passes = 0

    def count(module, inputs):
        nonlocal passes
        passes += module.training
        if passes == n:
            raise Killed

    network.register_forward_pre_hook(count)
    return network


ITERATIVE = replace(IUNET, schedule=partial(schedules.exponential, rounds=2), rewind="step:2")


@pytest.mark.parametrize("seconds", [-1.0, 1e9], ids=["every epoch", "only at the end"])
@pytest.mark.parametrize(
    ("config", "kill"),
    # 3 steps an epoch; 2 passes a step of the search: 12 passes, then 9, or 8 of round 1 (it
    # begins at step 2 of 6) and 9
    [(IUNET, 1), (IUNET, 8), (IUNET, 13), (IUNET, 17), (IUNET, 21), (ITERATIVE, 5),
     (ITERATIVE, 15), (ITERATIVE, 21), (ITERATIVE, 27)],
)  # fmt: skip
def test_a_killed_run_resumes_to_the_same_ticket(
    make_network, data, view, tmp_path, monkeypatch, config, kill, seconds
):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", seconds)
    whole = find_ticket(make_network(), data, config, view=view)
    with pytest.raises(Killed):
        find_ticket(kill_at(make_network(), kill), data, config, view=view, checkpoint_dir=tmp_path)
    resumed = find_ticket(make_network(), data, config, view=view, checkpoint_dir=tmp_path)
    assert same_ticket(resumed, whole)
    assert [(r["phase"], r["epoch"], r["loss"]) for r in resumed.history] == [
        (r["phase"], r["epoch"], r["loss"]) for r in whole.history
    ]


def test_a_finished_run_is_read_and_not_trained_again(make_network, data, view, tmp_path):
    options = {"view": view, "checkpoint_dir": tmp_path}
    first = find_ticket(make_network(), data, IUNET, **options)
    again = find_ticket(make_network(), data, IUNET, **options, progress=forbidden)
    assert same_ticket(first, again)


OTHERS = {
    "search": replace(IUNET, search=replace(IUNET.search, epochs=1)),
    "lr": replace(IUNET, search=replace(IUNET.search, optimizer=SGD(lr=0.06))),
    "lambda": replace(IUNET, search=replace(IUNET.search, contrastive_weight=0.5)),
    "scale": replace(IUNET, init_scale=0.5),
    "finetune": replace(IUNET, finetune=replace(FINETUNE, epochs=2)),
    "rewind": replace(IUNET, rewind="none"),
    "criterion": replace(IUNET, criterion=criteria.random),
}


@pytest.mark.parametrize("name", [*OTHERS, "seed", "network", "data", "view", "weight"])
def test_a_folder_of_other_settings_is_refused(make_network, data, view, tmp_path, name):
    find_ticket(make_network(), data, IUNET, view=view, checkpoint_dir=tmp_path)
    x, y = data.train
    call = {
        "network": make_network(seed=1 if name == "network" else 0),
        "data": Data(train=(x + 1, y), validation=data.validation) if name == "data" else data,
        "config": OTHERS.get(name, IUNET),
        "view": corruption(x, [(i, i + 1) for i in range(6)], rate=0.3) if name == "view" else view,
        "seed": int(name == "seed"),
        "checkpoint_dir": tmp_path,
    }
    if name == "weight":
        call["data"] = replace(data, weight=torch.ones(97))
    with pytest.raises(InputError, match="written by a run with other data or settings"):
        find_ticket(**call)


def test_one_search_serves_many_compressions(make_network, data, view, tmp_path):
    searches = []
    for compression in (2, 4, 8):
        config = replace(IUNET, compression=compression)
        ticket = find_ticket(
            make_network(),
            data,
            config,
            view=view,
            checkpoint_dir=tmp_path,
            progress=lambda row, n: searches.append(row) if row["phase"] == "search" else None,
        )
        assert ticket.density == pytest.approx(1 / compression)
        alone = tickets.search(make_network(), data, config, view=view)
        apart = tickets.prune(make_network(), data, alone, config, view=view)
        assert same_ticket(ticket, apart)
    assert len(searches) == SEARCH.epochs


# --- what is pruned -------------------------------------------------------------------------------


def plain_sequential():
    network = nn.Sequential(
        nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)
    )
    initialise_(network, generator=torch.Generator().manual_seed(0))
    return network


@pytest.mark.parametrize(
    ("only", "names"),
    [
        (("*",), ["0.weight", "2.weight", "4.weight"]),
        (("2.*", "4.weight"), ["2.weight", "4.weight"]),
        (("0*",), ["0.weight"]),
    ],
)
def test_only_says_what_is_pruned_in_a_network_without_an_encoder(data, only, names):
    config = replace(CONFIG, only=only, compression=2)
    ticket = find_ticket(plain_sequential(), data, config)
    assert list(ticket.mask) == names
    n = sum(plain_sequential().get_parameter(name).numel() for name in names)
    assert masks.count(ticket.mask) == n // 2
    masks.check_held(dict(ticket.network.named_parameters()), ticket.mask)
    for name in {"0.weight", "2.weight", "4.weight"} - set(names):
        assert (ticket.network.get_parameter(name) != 0).all()


def test_only_counts_beside_an_encoder_too(make_network, data, view):
    ticket = find_ticket(make_network(), data, replace(IUNET, only=("*",)), view=view)
    assert list(ticket.mask) == [*ENCODER, "decoder.weight"]
    assert masks.count(ticket.mask) == (6 * 16 + 16 * 16 + 16 * 3) // 4
    encoder = find_ticket(make_network(), data, replace(IUNET, only=("encoder.*",)), view=view)
    assert same_ticket(encoder, find_ticket(make_network(), data, IUNET, view=view))


def test_without_encoder_or_only_the_error_names_both_remedies(data):
    rule = r"must have a submodule 'encoder'.*pass encoder='NAME' .*or only=\('\*',\) in the config"
    refuse(plain_sequential, data, CONFIG, rule)


@pytest.mark.parametrize("phase", ["search", "finetune"])
def test_a_contrastive_term_needs_an_encoder_even_with_only(data, view, phase):
    contrasting = replace(SEARCH, contrastive_weight=1.0)
    config = replace(CONFIG, only=("*",), **{phase: contrasting})
    refuse(plain_sequential, data, config, r"must have a submodule 'encoder'", view=view)
    ticket = find_ticket(plain_sequential(), data, config, view=view, encoder="2")
    assert len(ticket.mask) == 3


def test_patterns_that_match_nothing_are_refused_with_the_names_there_are(data):
    config = replace(CONFIG, only=("layer.*",))
    refuse(plain_sequential, data, config, r"no Linear or Conv weight matches .*0.weight, 2.weight")


def test_less_than_one_scored_row_is_refused():
    with pytest.raises(InputError, match="scored_rows must be at least 1, got 0"):
        TicketConfig(scored_rows=0)


# --- criteria that look at data -------------------------------------------------------------------

AT_START = replace(CONFIG, search=replace(SEARCH, epochs=0), only=("*",))


def by_hand(name, network, data, seed, n_rows, batch_size=32):
    """Return the scores of a criterion on the rows that a ticket of this seed looks at."""
    x, y = data.train
    rows = torch.randperm(len(x), generator=stream(seed, "scored rows"))[:n_rows]
    arguments = {"batches": [(x[at], y[at]) for at in rows.split(batch_size)]}
    if name == "synflow":
        arguments = {"example": x[:1]}
    return criteria.CRITERIA[name](network, **arguments)


@pytest.mark.parametrize("n_rows", [20, 70, 1_000])
@pytest.mark.parametrize("name", ["snip", "grasp", "grasp_abs", "gradient", "synflow", "wanda"])
def test_criteria_at_the_start_are_the_criteria_by_hand(data, name, n_rows):
    config = replace(AT_START, criterion=criteria.CRITERIA[name], scored_rows=n_rows)
    network = plain_sequential()
    ticket = find_ticket(network, data, config, seed=3)
    scores = by_hand(name, plain_sequential(), data, 3, n_rows)
    assert same(ticket.mask, masks.keep_top(scores, 0.25, min_per_layer=1))
    assert same(network.state_dict(), plain_sequential().state_dict())
    assert same(find_ticket(copy.deepcopy(network), data, config, seed=3).mask, ticket.mask)
    assert {row["phase"] for row in ticket.history} == {"finetune"}


@pytest.mark.parametrize("name", ["snip", "grasp", "gradient", "wanda"])
def test_other_rows_give_another_mask(data, name):
    config = replace(AT_START, criterion=criteria.CRITERIA[name], scored_rows=10)
    found = [find_ticket(plain_sequential(), data, config, seed=seed).mask for seed in (0, 1)]
    more = find_ticket(plain_sequential(), data, replace(config, scored_rows=80)).mask
    assert not same(found[0], found[1])
    assert not same(found[0], more)


def test_the_loss_of_the_search_is_the_loss_that_is_scored(data):
    def reversed_classes(logits, y, weight):
        assert weight is None
        return torch.nn.functional.cross_entropy(logits, 2 - y)

    search = replace(AT_START.search, loss=reversed_classes)
    config = replace(AT_START, search=search, criterion=criteria.snip)
    other = Data(train=(data.train[0], 2 - data.train[1]))
    scores = by_hand("snip", plain_sequential(), other, 0, 100)
    mask = masks.keep_top(scores, 0.25, min_per_layer=1)
    assert same(find_ticket(plain_sequential(), data, config).mask, mask)
    assert not same(find_ticket(plain_sequential(), other, config).mask, mask)


def test_synflow_in_rounds_is_its_loop_by_hand(data):
    schedule = partial(schedules.exponential, rounds=20)
    config = replace(AT_START, compression=16, criterion=criteria.synflow, schedule=schedule)
    ticket = find_ticket(plain_sequential(), data, config)
    network, mask = plain_sequential(), None
    n = 6 * 16 + 16 * 8 + 8 * 3
    for density in schedule(1 / 16):
        scores = criteria.synflow(network, data.train[0][:1])
        mask = masks.keep_top(scores, density, within=mask, min_per_layer=1)
        masks.apply_(network, mask)
    assert same(ticket.mask, mask)
    assert masks.count(mask) == round(n / 16)
    assert same(ticket.start, plain_sequential().state_dict())
    once = find_ticket(plain_sequential(), data, replace(config, schedule=schedules.one_shot))
    assert not same(once.mask, mask)


@pytest.mark.parametrize("name", ["magnitude", "snip", "synflow"])
def test_rounds_without_a_search_are_keep_in_rounds(data, tmp_path, name):
    schedule = partial(schedules.linear, rounds=4)
    config = replace(AT_START, criterion=criteria.CRITERIA[name], schedule=schedule, scope="erk")
    kept = masks.keep_in_rounds(
        plain_sequential(),
        lambda network: by_hand(name, network, data, 0, 100) if name != "magnitude"
        else criteria.magnitude(network),
        schedule(0.25),
        scope="erk",
        min_per_layer=1,
    )  # fmt: skip
    ticket = find_ticket(plain_sequential(), data, config, checkpoint_dir=tmp_path)
    assert same(ticket.mask, kept)
    assert len(ticket.history) == FINETUNE.epochs
    assert ticket.searched.mask is None
    assert [path.name for path in tmp_path.iterdir()] == ["density-0.25.safetensors"]


# --- rounds as a chain ----------------------------------------------------------------------------

SAME = replace(CONFIG, init_scale=1.0, finetune=SEARCH)
"""The finetuning repeats the search, as in the lottery papers."""


@pytest.mark.parametrize("rewind", ["start", "scaled_start", "step:2", "none", "random", "lr:2"])
@pytest.mark.parametrize("control", ["none", "shuffled", "reversed"])
def test_rounds_in_one_call_are_a_fold_of_one_shot_rounds(
    make_network, data, view, rewind, control
):
    search = replace(IUNET.search, optimizer=SGD(lr=0.05, schedule="cosine"))
    kept = (0.6, 0.4, 0.2)
    config = replace(
        IUNET, search=search, finetune=search if rewind == "lr:2" else FINETUNE, rewind=rewind,
        control=control, compression=5, schedule=partial(schedules.listed, densities=kept),
    )  # fmt: skip
    whole = find_ticket(make_network(), data, config, view=view, seed=3)
    searched = tickets.search(make_network(), data, config, view=view, seed=3)
    for density in kept[:-1]:
        one = replace(
            config, compression=1 / density, schedule=schedules.one_shot, finetune=search,
            rewind="start" if rewind == "random" else rewind,
            control="reversed" if control == "reversed" else "none",
        )  # fmt: skip
        ticket = tickets.prune(make_network(), data, searched, one, view=view, seed=3)
        assert ticket.density == pytest.approx(density, abs=2e-3)
        searched = ticket.as_searched()
    last = replace(config, schedule=schedules.one_shot)
    ticket = tickets.prune(make_network(), data, searched, last, view=view, seed=3)
    assert same_ticket(ticket, whole)
    assert same(ticket.searched.mask, whole.searched.mask)
    told = [[(row["epoch"], row["lr"], row["loss"]) for row in one.history]
            for one in (ticket, whole)]  # fmt: skip
    assert told[0] == told[1]


def test_as_searched_is_the_ticket_before_it_is_pruned_again(make_network, data):
    config = replace(SAME, rewind="step:2", compression=2)
    ticket = find_ticket(make_network(), data, config)
    searched = ticket.as_searched()
    assert same(searched.start, make_network().state_dict())
    assert same(searched.kept, ticket.searched.kept)
    assert same(searched.state, ticket.network.state_dict())
    assert same(searched.mask, ticket.mask)
    assert searched.history == ticket.history
    with pytest.raises(InputError, match=r"asks for 235 weights but only 176 are left"):
        tickets.prune(make_network(), data, searched, replace(config, compression=1.5))


@pytest.mark.parametrize("rewind", ["start", "none"])
def test_a_phase_that_repeats_the_search_has_its_batches(make_network, data, rewind):
    seen = []

    def loss(logits, y, weight):
        if len(y) != 40:  # validation
            seen.append(y.tolist())
        return torch.nn.functional.cross_entropy(logits, y)

    phase = replace(SEARCH, loss=loss)
    config = replace(SAME, search=phase, finetune=phase, rewind=rewind)
    find_ticket(make_network(), data, config)
    assert len(seen) == 12
    assert seen[:6] == seen[6:]
    seen.clear()
    find_ticket(make_network(), data, replace(config, finetune=replace(phase, epochs=1)))
    assert seen[:3] != seen[6:]
    assert [len(y) for y in seen[:3]] == [len(y) for y in seen[6:]]


@pytest.mark.parametrize("k", [0, 1, 3, 4, 6])
def test_a_late_rewind_trains_what_is_left_of_the_search(make_network, data, k):
    passes = []

    def loss(logits, y, weight):
        if len(y) != 40:
            passes.append(y.tolist())
        return torch.nn.functional.cross_entropy(logits, y)

    phase = replace(SEARCH, loss=loss, optimizer=SGD(lr=0.05, schedule="cosine"))
    config = replace(SAME, search=phase, finetune=phase, rewind=f"step:{k}")
    ticket = find_ticket(make_network(), data, config)
    assert passes[6:] == passes[k:6]
    if k:
        until_k = make_network()
        one = replace(phase, epochs=1 if k <= 3 else 2)
        # a whole search of so many steps, in the learning rates of the longer one
        kept = train(until_k, data, phase, name="search", seed=0, prunable=ENCODER, keep_step=k)
        assert same(ticket.start, kept.kept)
        constant = replace(one, steps=k, optimizer=SGD(lr=0.05))
        stopped = make_network()
        train(stopped, data, constant, name="search", seed=0, prunable=ENCODER)
        same_rates = k <= 3  # those of the first epoch
        assert same(ticket.start, stopped.state_dict()) == same_rates
        for name in ("encoder.1.running_mean", "encoder.1.running_var"):
            assert not torch.equal(ticket.start[name], make_network().state_dict()[name])
        assert int(ticket.start["encoder.1.num_batches_tracked"]) == k
    rates = [row["lr"] for row in ticket.history]
    assert rates[:2] == pytest.approx([0.05, 0.025])
    assert rates[2:] == rates[k // 3 : 2]


def test_with_nothing_pruned_a_late_rewind_ends_where_the_search_did(make_network, data):
    phase = replace(SEARCH, optimizer=SGD(lr=0.05, momentum=0, nesterov=False, schedule="cosine"))
    for k in (1, 4):
        config = replace(SAME, search=phase, finetune=phase, rewind=f"step:{k}", compression=1)
        ticket = find_ticket(make_network(), data, config)
        assert same(ticket.network.state_dict(), ticket.searched.state)


# --- rewinding of learning rates ------------------------------------------------------------------


@pytest.mark.parametrize("k", [0, 2, 3, 5, 6])
@pytest.mark.parametrize("compression", [1, 4])
def test_a_rewind_of_learning_rates_keeps_the_weights(make_network, data, k, compression):
    phase = replace(SEARCH, epochs=3, optimizer=SGD(lr=0.05, schedule="cosine"))
    config = replace(SAME, search=phase, finetune=phase, rewind=f"lr:{k}", compression=compression)
    ticket = find_ticket(make_network(), data, config)
    assert same(ticket.start, ticket.searched.state)
    twin = make_network()
    train(twin, data, phase, name="search", seed=0, prunable=ENCODER)
    assert same(ticket.start, twin.state_dict())
    train(twin, data, phase, name="search", seed=0, prunable=ENCODER, first_step=k,
          mask=ticket.mask)  # fmt: skip
    assert same(ticket.network.state_dict(), twin.state_dict())
    rates = [row["lr"] for row in ticket.history]
    assert rates[:3] == pytest.approx([0.05, 0.0375, 0.0125])
    assert rates[3:] == rates[k // 3 : 3]


def test_learning_rates_of_the_beginning_are_no_rewind(make_network, data):
    found = [find_ticket(make_network(), data, replace(SAME, rewind=r)) for r in ("lr:0", "none")]
    assert same_ticket(*found)
    later = find_ticket(make_network(), data, replace(SAME, rewind="lr:3"))
    assert not same_ticket(found[0], later)


def test_a_rewind_of_learning_rates_needs_a_phase_that_repeats_the_search(make_network, data):
    with pytest.raises(InputError, match=r"finetune must equal search, got rewind='lr:2'") as err:
        replace(CONFIG, rewind="lr:2")
    assert "\n" not in str(err.value)
    config = replace(SAME, rewind="lr:7")
    refuse(make_network, data, config, "rewind='lr:7' must lie within the search")


# --- controls that do something -------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [1, 3])
def test_every_control_changes_the_mask_and_keeps_as_many(make_network, data, view, rounds):
    config = replace(
        IUNET,
        search=replace(IUNET.search, optimizer=SGD(lr=0.5)),
        compression=8,
        schedule=partial(schedules.exponential, rounds=rounds),
        criterion=criteria.lamp,
    )
    find = partial(find_ticket, make_network(), data, view=view, seed=5)
    plain = find(config)
    changed = {c: find(replace(config, control=c))
               for c in ("shuffled", "shuffled_globally", "top_start", "reversed")}  # fmt: skip
    for one in changed.values():
        assert masks.count(one.mask) == masks.count(plain.mask) == 44
        assert masks.iou(one.mask, plain.mask) < 0.9
        masks.check_held(one.network.state_dict(), one.mask)
        assert same(one.start, plain.start)
    of_layers = masks.kept_per_layer(plain.mask)
    for name in ("shuffled", "top_start"):
        assert masks.kept_per_layer(changed[name].mask) == of_layers
    for name in ("shuffled_globally", "reversed"):
        assert masks.kept_per_layer(changed[name].mask) != of_layers
    assert masks.iou(changed["reversed"].mask, plain.mask) < 0.05
    masked = [changed[name].mask for name in changed]
    assert not any(same(a, b) for i, a in enumerate(masked) for b in masked[:i])
    if rounds > 1:  # only what the last pruning found is changed, except for scores
        before = plain.searched.mask
        assert all(same(one.searched.mask, before) == (name != "reversed")
                   for name, one in changed.items())  # fmt: skip


def test_a_global_shuffle_spreads_the_mask_evenly(make_network, data):
    def first_layer_only(network, *, only):
        scores = criteria.magnitude(network, only=only)
        return {ENCODER[0]: 100 + scores[ENCODER[0]], ENCODER[1]: scores[ENCODER[1]]}

    config = replace(CONFIG, criterion=first_layer_only)
    assert masks.kept_per_layer(find_ticket(make_network(), data, config).mask) == {
        ENCODER[0]: 87, ENCODER[1]: 1
    }  # fmt: skip
    shuffled = find_ticket(make_network(), data, replace(config, control="shuffled_globally"))
    kept = masks.kept_per_layer(shuffled.mask)
    assert sum(kept.values()) == 88
    assert 12 <= kept[ENCODER[0]] <= 36  # 24 are expected


@pytest.mark.parametrize("epochs", [0, 2])
def test_reversed_keeps_exactly_the_lowest_scores(make_network, data, epochs):
    search = replace(SEARCH, epochs=epochs)
    config = replace(CONFIG, search=search, control="reversed", min_per_layer=0)
    ticket = find_ticket(make_network(), data, config)
    sizes = {name: ticket.searched.state[name].abs() for name in ENCODER}
    kept = torch.cat([sizes[name][ticket.mask[name]] for name in ENCODER])
    others = torch.cat([sizes[name][~ticket.mask[name]] for name in ENCODER])
    assert len(kept) == 88
    assert kept.max() <= others.min()


def test_random_weights_in_rounds_have_the_tickets_mask_and_nothing_else_of_it(make_network, data):
    rounds = replace(SAME, compression=8, schedule=partial(schedules.exponential, rounds=3))
    found = {
        rewind: find_ticket(make_network(), data, replace(rounds, rewind=rewind))
        for rewind in ("start", "random")
    }
    assert same(found["random"].mask, found["start"].mask)
    assert same(found["random"].searched.state, found["start"].searched.state)
    fresh = make_network()
    initialise_(fresh, generator=stream(0, "rewind"))
    assert same(found["random"].start, fresh.state_dict())
    assert not same(found["random"].network.state_dict(), found["start"].network.state_dict())


def test_random_weights_are_drawn_as_the_network_draws_its_own(data):
    network = LeNet300100(6, 3, widths=(80, 40))
    initialise_(network, generator=torch.Generator().manual_seed(0))
    config = replace(CONFIG, rewind="random", finetune=replace(FINETUNE, epochs=0))
    ticket = find_ticket(network, data, config)
    for name, fans in {"encoder.1": 6 + 80, "encoder.3": 80 + 40, "decoder": 40 + 3}.items():
        weight = ticket.start[f"{name}.weight"]
        assert not torch.equal(weight, network.get_parameter(f"{name}.weight"))
        # Glorot's; Kaiming's would be larger by .5 to 4 in variance
        error = weight.numel() ** -0.5
        assert float(weight.std()) == pytest.approx((2 / fans) ** 0.5, rel=3 * error)
        assert (ticket.start[f"{name}.bias"] == 0).all()
    masks.check_held(ticket.network.state_dict(), ticket.mask)


def test_a_dense_network_may_have_a_time_limit_whatever_its_schedule(make_network, data):
    listed = partial(schedules.listed, densities=(0.5, 0.25))
    dense = replace(CONFIG, compression=1, schedule=listed)
    limited = find_ticket(make_network(), data, dense, time_limit=1e6)
    assert same_ticket(limited, find_ticket(make_network(), data, dense))
