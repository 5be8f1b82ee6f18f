import copy
import shutil

import pytest
import torch
from torch import nn
from torch.nn.parallel import DataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from secateurs import masks
from secateurs.errors import InputError

X = torch.randn(24, 6, generator=torch.Generator().manual_seed(1))
Y = torch.randn(24, 3, generator=torch.Generator().manual_seed(2))

OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.1),
    "AdamW fused": lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.1, fused=True),
    "Adam L2": lambda p: torch.optim.Adam(p, lr=0.05, weight_decay=0.1, amsgrad=True),
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def made(seed=0):
    """Return a network and a mask of half of its Linear weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    weights = {"0.weight": network[0].weight, "3.weight": network[3].weight}
    return network, {n: torch.rand(w.shape, generator=seeded(3)) < 0.5 for n, w in weights.items()}


def loss_of(network, x=X, y=Y):
    return (network(x) - y).square().mean()


def steps(network, optimizer, n=5, *, after=lambda: None):
    for _ in range(n):
        optimizer.zero_grad()
        loss_of(network).backward()
        optimizer.step()
        after()


def n_revived(network, mask):
    return sum(int((w[~mask[n]] != 0).sum()) for n, w in masks.check(network, mask).items())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_pruned_weights_stay_zero_and_the_others_learn(name):
    network, mask = made()
    before = copy.deepcopy(network.state_dict())
    optimizer = OPTIMIZERS[name](network.parameters())
    with masks.hold(network, mask, optimizer) as held:
        assert n_revived(network, mask) == 0
        steps(network, optimizer, after=lambda: masks.check_held(network, held.mask))
    for key, kept in mask.items():
        assert (network.get_parameter(key)[kept] != before[key][kept]).all()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_without_hold_they_come_back_even_when_gradients_are_masked(name):
    # the commonest published mistake: masked gradients, and an optimizer with a memory
    network, mask = made()
    optimizer = OPTIMIZERS[name](network.parameters())
    steps(network, optimizer, 1)
    masks.apply_(network, mask)
    assert n_revived(network, mask) == 0
    for _ in range(3):
        optimizer.zero_grad()
        loss_of(network).backward()
        for key, kept in mask.items():
            network.get_parameter(key).grad.mul_(kept)
        optimizer.step()
    n_pruned = sum(int((~kept).sum()) for kept in mask.values())
    assert n_revived(network, mask) > 0.9 * n_pruned


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_held_network_trains_as_a_loop_masked_by_hand(name):
    network, mask = made()
    twin = copy.deepcopy(network)
    optimizer = OPTIMIZERS[name](network.parameters())
    with masks.hold(network, mask, optimizer):
        steps(network, optimizer)

    weights = {n: twin.get_parameter(n) for n in mask}
    optimizer = OPTIMIZERS[name](twin.parameters())
    for n, weight in weights.items():
        weight.data[~mask[n]] = 0
    for _ in range(5):
        optimizer.zero_grad()
        loss_of(twin).backward()
        for n, weight in weights.items():
            weight.grad[~mask[n]] = 0
        optimizer.step()
        for n, weight in weights.items():
            weight.data[~mask[n]] = 0
    for key, value in twin.state_dict().items():
        assert torch.equal(network.state_dict()[key], value)


class Noisy(torch.optim.SGD):
    """An optimizer that moves weights whatever their gradients and its memory."""

    def step(self, closure=None):
        with torch.no_grad():
            for group in self.param_groups:
                for weight in group["params"]:
                    weight.add_(torch.randn(weight.shape, generator=seeded()))


def test_weights_are_masked_whatever_the_optimizer_does():
    network, mask = made()
    optimizer = Noisy(network.parameters(), lr=0.1)
    with masks.hold(network, mask, optimizer):
        steps(network, optimizer, after=lambda: masks.check_held(network, mask))
    steps(network, optimizer, 1)
    assert n_revived(network, mask) > 0


def test_an_optimizer_with_a_past_forgets_what_is_pruned():
    network, mask = made()
    optimizer = OPTIMIZERS["AdamW"](network.parameters())
    steps(network, optimizer)
    with masks.hold(network, mask, optimizer):
        for key, kept in mask.items():
            state = optimizer.state[network.get_parameter(key)]
            for part in ("exp_avg", "exp_avg_sq"):
                assert (state[part][~kept] == 0).all()
                assert (state[part][kept] != 0).any()
            assert float(state["step"]) == 5
        steps(network, optimizer, after=lambda: masks.check_held(network, mask))


def test_clipping_sees_the_norm_of_the_small_network():
    # two of five hidden units are pruned whole: the small dense network has three
    network, small = (nn.Sequential(nn.Linear(6, h), nn.Tanh(), nn.Linear(h, 3)) for h in (5, 3))
    unit = torch.tensor([True, False, True, False, True])
    mask = {"0.weight": unit[:, None].expand(5, 6), "2.weight": unit.expand(3, 5)}
    with torch.no_grad():
        network[0].bias.zero_()
        for part, value in (
            (small[0].weight, network[0].weight[unit]),
            (small[0].bias, network[0].bias[unit]),
            (small[2].weight, network[2].weight[:, unit]),
            (small[2].bias, network[2].bias),
        ):
            part.copy_(value)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with masks.hold(network, mask, optimizer):
        for one in (network, small):
            loss_of(one).backward()
        norms = [nn.utils.clip_grad_norm_(one.parameters(), 1e-3) for one in (network, small)]
        assert norms[0] == pytest.approx(float(norms[1]), rel=1e-5)
        assert torch.allclose(network[0].weight.grad[unit], small[0].weight.grad, rtol=1e-4)
        optimizer.step()
    network.zero_grad()
    loss_of(network).backward()
    assert (network[0].weight.grad[unit] != 0).any()  # without hold nothing is masked


def test_gradients_add_up_over_batches_and_stay_masked():
    network, mask = made()
    network.eval()  # BatchNorm would see batches of different sizes
    twin = copy.deepcopy(network)
    for one, parts in ((network, 4), (twin, 1)):
        optimizer = torch.optim.SGD(one.parameters(), lr=0.1, momentum=0.9)
        with masks.hold(one, mask, optimizer):
            for _ in range(3):
                optimizer.zero_grad()
                for x, y in zip(X.chunk(parts), Y.chunk(parts), strict=True):
                    (loss_of(one, x, y) / parts).backward()
                    for key, kept in mask.items():
                        assert (one.get_parameter(key).grad[~kept] == 0).all()
                optimizer.step()
    for key in mask:
        assert torch.allclose(network.get_parameter(key), twin.get_parameter(key), atol=1e-6)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_a_gradient_scaler_works_and_skips_what_has_overflown(kind):
    network, mask = made()
    optimizer = OPTIMIZERS["SGD"](network.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    with masks.hold(network, mask, optimizer) as held:
        for step in range(4):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=kind):
                loss = loss_of(network)
            scaler.scale(loss * (float("inf") if step == 2 else 1)).backward()
            before, scale = network[0].weight.detach().clone(), scaler.get_scale()
            scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
            assert torch.equal(before, network[0].weight) == (step == 2)
            assert (scaler.get_scale() < scale) == (step == 2)
            masks.check_held(network, held.mask)


def test_an_overflow_in_pruned_weights_alone_skips_nothing():
    layer = nn.Linear(2, 1, bias=False)
    mask = {"weight": torch.tensor([[True, False]])}
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    factors = torch.tensor([[1.0, 3e38]])  # four times the second is infinite
    with masks.hold(layer, mask, optimizer):
        before = layer.weight.detach().clone()
        scaler.scale((layer.weight * factors).sum()).backward()
        assert layer.weight.grad.tolist() == [[4, 0]]
        scaler.step(optimizer)
    assert torch.allclose(layer.weight, before - torch.tensor([[0.1, 0]]))


def test_an_averaged_copy_made_inside_is_masked_and_one_made_before_can_be():
    network, mask = made()
    optimizer = OPTIMIZERS["AdamW"](network.parameters())
    before = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    before.update_parameters(network)
    with masks.hold(network, mask, optimizer):
        inside = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.9))
        steps(
            network,
            optimizer,
            after=lambda: [copy_.update_parameters(network) for copy_ in (inside, before)],
        )
    masks.check_held(inside, mask)
    assert (inside.module[0].weight[mask["0.weight"]] != network[0].weight[mask["0.weight"]]).any()
    assert n_revived(before, mask) > 0
    masks.apply_(before, mask)
    masks.check_held(before, mask)


def compiled_equals_eager(backend):
    network, mask = made()
    twin = copy.deepcopy(network)
    compiled = torch.compile(twin, backend=backend)
    for one in (network, compiled):
        optimizer = OPTIMIZERS["SGD"](one.parameters())
        with masks.hold(one, mask, optimizer) as held:
            steps(one, optimizer, after=lambda one=one, held=held: masks.check_held(one, held.mask))
    for key in mask:
        assert torch.allclose(network.get_parameter(key), twin.get_parameter(key), atol=1e-5)


@pytest.fixture
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_a_compiled_network_is_held(fresh_compiler):
    compiled_equals_eager("aot_eager")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.skipif(shutil.which("c++") is None, reason="inductor needs a C++ compiler")
def test_a_network_compiled_to_machine_code_is_held(fresh_compiler):
    compiled_equals_eager("inductor")


def test_a_data_parallel_network_is_held():
    network, mask = made()
    optimizer = OPTIMIZERS["SGD"](network.parameters())
    wrapped = DataParallel(network)
    with masks.hold(wrapped, mask, optimizer):
        steps(wrapped, optimizer, after=lambda: masks.check_held(network, mask))


def test_gradients_are_masked_before_ranks_share_them(tmp_path):
    network, mask = made()
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        wrapped = nn.parallel.DistributedDataParallel(network)
        optimizer = OPTIMIZERS["SGD"](wrapped.parameters())
        with masks.hold(wrapped, mask, optimizer):
            for _ in range(3):
                optimizer.zero_grad()
                loss_of(wrapped).backward()
                for key, kept in mask.items():
                    gradient = network.get_parameter(key).grad
                    assert (gradient[~kept] == 0).all()
                    assert (gradient[kept] != 0).any()
                optimizer.step()
                masks.check_held(network, mask)
    finally:
        torch.distributed.destroy_process_group()


def test_class_keys_and_copies_stay_as_they_are_inside():
    network, mask = made()
    keys, optimizer = list(network.state_dict()), OPTIMIZERS["SGD"](network.parameters())
    with masks.hold(network, mask, optimizer):
        steps(network, optimizer)
        twin = copy.deepcopy(network)
        assert type(network) is type(twin) is nn.Sequential
        assert list(network.state_dict()) == list(twin.state_dict()) == keys
        fresh, _ = made(seed=1)
        fresh.load_state_dict(network.state_dict(), strict=True)
        before = copy.deepcopy(network.state_dict())
        # the copy is free: its training is not held and does not touch the original
        steps(twin, OPTIMIZERS["SGD"](twin.parameters()))
        assert n_revived(twin, mask) > 0
        assert all(torch.equal(before[key], now) for key, now in network.state_dict().items())
    masks.check_held(fresh, mask)


@pytest.mark.parametrize("ends", ["well", "in an error"])
def test_nothing_is_held_after_the_block(ends):
    network, mask = made()
    optimizer = OPTIMIZERS["AdamW"](network.parameters())
    try:
        with masks.hold(network, mask, optimizer):
            steps(network, optimizer)
            if ends == "in an error":
                raise KeyError
    except KeyError:
        pass
    assert not optimizer._optimizer_step_post_hooks
    for key in mask:
        assert not network.get_parameter(key)._post_accumulate_grad_hooks
    masks.check_held(network, mask)
    steps(network, optimizer, 1)
    assert n_revived(network, mask) > 0


def test_leaving_asserts_the_mask():
    network, mask = made()
    optimizer = OPTIMIZERS["AdamW"](network.parameters())
    fresh, words = made(seed=1)[0], r"pruned weights of 0\.weight are not zero"
    with pytest.raises(AssertionError, match=words), masks.hold(network, mask, optimizer):
        network.load_state_dict(fresh.state_dict())
    with pytest.raises(AssertionError, match=words), masks.hold(network, mask, optimizer):
        network[0].weight = nn.Parameter(torch.ones(16, 6))


def test_leaving_never_hides_an_error_and_update_is_the_remedy():
    network, mask = made()
    optimizer, fresh = OPTIMIZERS["AdamW"](network.parameters()), made(seed=1)[0]

    def load(then):
        with masks.hold(network, mask, optimizer) as held:
            network.load_state_dict(fresh.state_dict())
            then(held)

    with pytest.raises(ZeroDivisionError):
        load(lambda held: 1 / 0)
    load(lambda held: held.update(held.mask))
    masks.check_held(network, mask)


def test_an_optimizer_of_other_weights_is_refused():
    network, mask = made()
    others = OPTIMIZERS["SGD"](copy.deepcopy(network).parameters())
    some = OPTIMIZERS["SGD"](network[0].parameters())
    for held_mask, optimizer, words in (
        (mask, others, r"none holds 0\.weight, 3\.weight; pass all optimizers"),
        (mask, some, r"none holds 3\.weight; pass all optimizers"),
        (mask, [], r"none holds 0\.weight, 3\.weight; pass all optimizers"),
        ({}, some, "a mask to hold must name at least one weight"),
    ):
        with pytest.raises(InputError, match=words), masks.hold(network, held_mask, optimizer):
            pass
    assert n_revived(network, mask) > 0  # nothing was applied
    assert not some._optimizer_step_post_hooks


def test_several_optimizers_are_held():
    network, mask = made()
    optimizers = [
        OPTIMIZERS["SGD"](network[0].parameters()),
        OPTIMIZERS["AdamW"](network[3].parameters()),
    ]
    with masks.hold(network, mask, optimizers) as held:
        for step in range(6):
            network.zero_grad()
            loss_of(network).backward()
            optimizers[step % 2].step()
            masks.check_held(network, held.mask)


def test_a_frozen_weight_is_masked_too():
    network, mask = made()
    network[0].weight.requires_grad_(False)
    optimizer = OPTIMIZERS["SGD"](network.parameters())
    with masks.hold(network, mask, optimizer):
        steps(network, optimizer, after=lambda: masks.check_held(network, mask))
        network[0].weight.requires_grad_(True)
        steps(network, optimizer, after=lambda: masks.check_held(network, mask))


def test_a_network_may_change_its_type_inside():
    network, mask = made()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with masks.hold(network, mask, optimizer):
        network.double()
        for _ in range(3):
            optimizer.zero_grad()
            loss_of(network, X.double(), Y.double()).backward()
            optimizer.step()
            masks.check_held(network, mask)


@pytest.mark.gpu
def test_a_network_may_move_to_the_gpu_inside():
    network, mask = made()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    with masks.hold(network, mask, optimizer) as held:
        network.cuda()
        for _ in range(3):
            optimizer.zero_grad()
            loss_of(network, X.cuda(), Y.cuda()).backward()
            optimizer.step()
            masks.check_held(network, held.mask)
        held.update({name: kept.roll(1, 0) for name, kept in mask.items()})
        masks.check_held(network, held.mask)


def test_the_mask_of_the_caller_may_change_afterwards():
    network, mask = made()
    optimizer = OPTIMIZERS["SGD"](network.parameters())
    with masks.hold(network, mask, optimizer) as held:
        before = {name: kept.clone() for name, kept in mask.items()}
        mask["0.weight"].fill_(True)
        held.mask["3.weight"] = None
        steps(network, optimizer)
        masks.check_held(network, before)


def test_update_holds_the_new_mask_and_forgets_what_changed():
    network, mask = made()
    optimizer = OPTIMIZERS["AdamW"](network.parameters())
    other = {name: kept.roll(1, 0) for name, kept in mask.items()}
    with masks.hold(network, mask, optimizer) as held:
        steps(network, optimizer)
        loss_of(network).backward()
        before = copy.deepcopy(optimizer.state)
        held.update(other)
        masks.check_held(network, other)
        for name, kept in other.items():
            weight, changed = network.get_parameter(name), kept != mask[name]
            assert changed.any()
            assert (weight[kept & changed] == 0).all()
            assert (weight[kept & ~changed] != 0).all()
            assert (weight.grad[~kept] == 0).all()
            old = [before[p] for p in before if p.shape == weight.shape]
            for part in ("exp_avg", "exp_avg_sq"):
                now = optimizer.state[weight][part]
                assert (now[changed] == 0).all()
                assert any(torch.equal(o[part][~changed], now[~changed]) for o in old)
        assert masks.iou(held.mask, other) == 1
        steps(network, optimizer, after=lambda: masks.check_held(network, other))
        grown = other["0.weight"] & ~mask["0.weight"]
        # a unit whose kept weights are all new is constant at first, and may stay silent
        assert (network[0].weight[grown] != 0).float().mean() > 0.6
        with pytest.raises(
            InputError, match=r"0\.weight \(the mask held \(16, 6\), the new mask none"
        ):
            held.update({"3.weight": other["3.weight"]})
        with pytest.raises(InputError, match="a mask must fit the network"):
            held.update(other | {"0.weight": torch.ones(2, 2, dtype=torch.bool)})
        assert masks.iou(held.mask, other) == 1


def test_gradual_pruning_in_a_loop_of_ones_own():
    # Zhu & Gupta (2018): density falls with the cube of the time that is left
    network, mask = made()
    weights = {name: network.get_parameter(name) for name in mask}
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.02)
    seen, losses = [], []
    with masks.hold(network, masks.ones(weights), optimizer) as held:
        for step in range(120):
            if step % 10 == 0 and step <= 80:
                density = 0.1 + 0.9 * (1 - step / 80) ** 3
                scores = {name: weight.abs() for name, weight in weights.items()}
                held.update(masks.keep_top(scores, density, within=held.mask))
                assert masks.count(held.mask) == masks.n_to_keep(density, 144)
                seen.append(masks.density(held.mask))
            optimizer.zero_grad()
            loss = loss_of(network)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    assert seen == sorted(seen, reverse=True)
    assert seen[0] == 1
    assert masks.density(held.mask) == pytest.approx(0.1, abs=0.004)
    masks.check_held(network, held.mask)
    assert losses[-1] < 0.9 * losses[0]


LIGHTNING_NOISE = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*",
    "ignore:.*GPU available but not used.*",
    "ignore:.*isinstance.treespec, LeafSpec.*",
)


def guest(lightning, *, optimizer_first):
    """Return a LightningModule around `made`, its mask and a Trainer's data."""

    class Guest(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network, self.kept = made()
            self.worst, self.n_steps = 0, 0
            if optimizer_first:
                self.ready = OPTIMIZERS["AdamW"](self.network.parameters())

        def training_step(self, batch, _):
            self.worst = max(self.worst, n_revived(self.network, self.kept))
            self.n_steps += 1
            return loss_of(self.network, *batch)

        def configure_optimizers(self):
            return self.ready if optimizer_first else OPTIMIZERS["AdamW"](self.network.parameters())

    rows = torch.utils.data.TensorDataset(X, Y)
    return Guest(), torch.utils.data.DataLoader(rows, batch_size=6)


def trainer_of(lightning, **options):
    return lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=0.5,
        **options,
    )


@LIGHTNING_NOISE
def test_a_lightning_trainer_is_held_from_outside():
    lightning = pytest.importorskip("pytorch_lightning")
    module, loader = guest(lightning, optimizer_first=True)
    with masks.hold(module.network, module.kept, module.ready):
        trainer_of(lightning).fit(module, loader)
    assert (module.worst, module.n_steps) == (0, 12)
    masks.check_held(module.network, module.kept)


@LIGHTNING_NOISE
def test_a_lightning_trainer_is_held_by_a_callback():
    lightning = pytest.importorskip("pytorch_lightning")

    class Hold(lightning.Callback):
        def on_train_start(self, trainer, module):
            self.block = masks.hold(module.network, module.kept, trainer.optimizers)
            self.block.__enter__()

        def on_train_end(self, trainer, module):
            self.block.__exit__(None, None, None)

    module, loader = guest(lightning, optimizer_first=False)
    trainer_of(lightning, callbacks=[Hold()]).fit(module, loader)
    assert (module.worst, module.n_steps) == (0, 12)
    masks.check_held(module.network, module.kept)
    module, loader = guest(lightning, optimizer_first=False)
    trainer_of(lightning).fit(module, loader)
    assert module.worst > 0
