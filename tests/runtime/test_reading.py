from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

from reference import programs
from secateurs.errors import InputError
from secateurs.estimator import TicketClassifier, TicketRegressor
from secateurs.networks.conv import CNN, MLPVis
from secateurs.networks.dense import MLP, mlp_tab
from secateurs.networks.image_network import IMAGE_NETWORKS, ImageNetwork
from secateurs.networks.lenet import LeNet300100
from secateurs.networks.pixels import Normalise
from secateurs.networks.resnet import ResNet18
from secateurs.runtime import fallback
from secateurs.runtime.program import check
from secateurs.runtime.reading import ensemble, read


def _x(*shape):
    return torch.randn(5, *shape, generator=torch.Generator().manual_seed(0))


def _agree(network, x, mask=None, **more):
    program = read(network, mask, x, **more)
    check(program)
    with torch.no_grad():
        weight = next(network.parameters(), x)
        wanted = network.eval()(x.to(weight.dtype)).float().numpy()
    made = programs.evaluate(program, x.numpy())
    atol = {torch.bfloat16: 0.05, torch.float16: 5e-3}.get(weight.dtype, 1e-5)
    np.testing.assert_allclose(made, wanted, atol=atol * (0.1 + np.abs(wanted).max()))
    return program


def _normalise(channels):
    return Normalise([0.4] * channels, [0.2] * channels)


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (lambda: mlp_tab(7, 3), (7,)),
        (lambda: MLP(7, 3, widths=(8, 8, 5, 5), skip=True), (7,)),
        (lambda: MLP(7, 3, widths=(8, 8), dropout=0.5), (7,)),
        (lambda: LeNet300100(49, 10), (49,)),
        (lambda: LeNet300100(49, 10, normalise=_normalise(1)), (1, 7, 7)),
        (lambda: CNN(1, size=8), (3, 8, 8)),
        (lambda: CNN(1, size=8, normalise=_normalise(3)), (3, 8, 8)),
        (lambda: MLPVis(1, size=8, normalise=_normalise(3)), (3, 8, 8)),
        (lambda: ResNet18(width=2), (3, 32, 40)),
        (lambda: ResNet18(width=2, stem="cifar", channels=1, normalise=_normalise(1)), (1, 8, 9)),
    ],
)
def test_our_own_networks_are_read(build, shape):
    torch.manual_seed(0)
    network = build()
    network(torch.rand(4, *shape))  # statistics of BatchNorm
    assert network.training
    _agree(network, _x(*shape))


@pytest.mark.parametrize("kind", IMAGE_NETWORKS)
def test_networks_of_image_estimators_are_read(kind):
    width = None if kind == "lenet_300_100" else 1
    described = ImageNetwork(kind=kind, width=width, shape=(3, 8, 8), n_outputs=4)
    network = described.start(np.full(3, 0.5), np.full(3, 0.25), seed=0)
    x = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    program = read(network, example=x)
    with torch.no_grad():
        wanted = network.eval()(x).numpy()
    np.testing.assert_allclose(programs.evaluate(program, x.numpy()), wanted, atol=1e-5)


def test_a_mask_zeroes_weights_and_the_network_stays():
    network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    mask = {"0.weight": torch.rand(3, 4, generator=torch.Generator().manual_seed(0)) < 0.5}
    program = read(network, mask)
    kept = mask["0.weight"].numpy()
    assert np.array_equal(program.ops[0].weight != 0, kept)
    assert np.array_equal(program.ops[2].weight, before["2.weight"].numpy())
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    program.ops[2].weight[:] = 7  # what was read is a copy
    assert torch.equal(network[2].weight, before["2.weight"])


def test_pruned_weights_are_zero_whatever_they_were():
    network = nn.Linear(2, 1, bias=False)
    network.weight.data = torch.tensor([[float("nan"), 2.0]])
    mask = {"weight": torch.tensor([[False, True]])}
    assert read(network, mask).ops[0].weight.tolist() == [[0, 2]]


@pytest.mark.parametrize(
    ("mask", "said"),
    [({"w": torch.ones(2, 2) > 0}, "none"), ({"weight": torch.ones(2, 3) > 0}, r"\(2, 2\)")],
)
def test_a_mask_of_another_network_is_refused(mask, said):
    with pytest.raises(InputError, match=said):
        read(nn.Linear(2, 2), mask)


def test_a_mask_that_is_not_bool_is_refused():
    with pytest.raises(InputError, match="must be bool"):
        read(nn.Linear(2, 2), {"weight": torch.ones(2, 2)})


def test_random_numbers_and_gradients_are_left_alone():
    network = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    state = torch.get_rng_state()
    read(network)
    assert torch.equal(torch.get_rng_state(), state)
    assert network[0].weight.requires_grad
    assert network[0].weight.grad is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_floats_become_float32(dtype):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten()).to(dtype)
    program = _agree(network, _x(3, 5, 5))
    assert {op.weight.dtype for op in program.ops[:2]} == {np.dtype(np.float32)}


@pytest.mark.gpu
def test_a_network_on_a_gpu_is_read_and_stays_there():
    network = CNN(1, size=8, normalise=_normalise(3)).cuda()
    program = read(network, example=torch.zeros(1, 3, 8, 8))
    assert next(network.parameters()).is_cuda
    x = _x(3, 8, 8)
    with torch.no_grad():
        wanted = network.cpu().eval()(x).numpy()
    np.testing.assert_allclose(fallback.run(program, x.numpy()), wanted, atol=1e-4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.compile itself
def test_wrapped_networks_are_read():
    plain = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    mask = {"0.weight": torch.eye(3, 4) > 0}
    for network in (
        nn.DataParallel(plain),
        torch.optim.swa_utils.AveragedModel(plain),
        torch.compile(plain),
    ):
        (first, _) = read(network, mask).ops
        assert np.count_nonzero(first.weight) == 3


def test_weights_that_are_computed_are_read_as_they_are():
    torch.manual_seed(0)
    pruned = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    prune.random_unstructured(pruned[0], "weight", 0.5)
    normed = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), nn.Tanh())
    for network in (pruned, normed):
        program = _agree(network, _x(4))
        assert [op.kind for op in program.ops] == ["linear", "activation"]
    assert np.count_nonzero(read(pruned).ops[0].weight) == 6


def test_shared_layers_are_read_each_time():
    layer = nn.Linear(4, 4)
    program = _agree(nn.Sequential(layer, nn.ReLU(), layer), _x(4))
    assert len(program.ops) == 3


def test_operations_bear_the_names_of_modules():
    network = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.BatchNorm1d(4), nn.ReLU()))
    assert [op.name for op in read(network).ops] == ["0", "1.0", "1.1"]


def test_what_the_output_does_not_need_is_left_out():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x):
            made = self.one(x).relu()
            self.two(x).tanh()
            return made

    program = _agree(Net(), _x(4))
    assert [op.name for op in program.ops] == ["one", ""]


@pytest.mark.parametrize("layer", [nn.Linear(4, 2), nn.BatchNorm1d(4)])
def test_the_shape_is_that_of_the_first_layer(layer):
    assert read(nn.Sequential(nn.Flatten(), layer)).input_shape == (4,)


@pytest.mark.parametrize("network", [nn.Conv2d(3, 4, 3), nn.ReLU()])
def test_an_example_is_asked_for_where_the_shape_is_not_known(network):
    with pytest.raises(InputError, match="pass example"):
        read(network)


def test_an_example_is_asked_for_where_the_guess_is_wrong():
    with pytest.raises(InputError, match=r"on \[rows, 49\], what its first.*pass an example"):
        read(LeNet300100(49, 10, normalise=_normalise(1)))


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4), (1, 2, 3, 4, 5), (2, 0)])
def test_an_example_is_a_batch(shape):
    with pytest.raises(InputError, match="example must be a batch"):
        read(nn.Linear(4, 2), example=torch.zeros(shape))


def test_an_example_that_does_not_fit_is_refused_in_one_line():
    with pytest.raises(InputError, match=r"on \[rows, 5\] it raised RuntimeError") as caught:
        read(nn.Linear(4, 2), example=torch.zeros(1, 5))
    assert "\n" not in str(caught.value)


class _Block(nn.Module):
    """A residual block around a part that has no operation."""

    def __init__(self):
        super().__init__()
        self.linear, self.act = nn.Linear(4, 4), nn.SiLU()

    def forward(self, x):
        return x + self.act(self.linear(x))


def test_a_part_that_is_not_supported_is_named():
    network = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ELU()))
    with pytest.raises(InputError, match=r"module '1\.0' \(ELU\) is not: elu.*unsupported='torch'"):
        read(network)


@pytest.mark.parametrize("inplace", [False, True])
def test_a_part_may_be_left_to_torch(inplace):
    network = nn.Sequential(nn.Linear(4, 4), nn.SiLU(inplace=inplace), nn.Linear(4, 2))
    program = _agree(network, _x(4), unsupported="torch")
    assert [op.kind for op in program.ops] == ["linear", "call", "linear"]
    x = np.ones((2, 4), np.float32)
    made = program.ops[1].function(x)
    assert made.dtype == np.float32
    assert (x == 1).all()
    with torch.no_grad():
        network[0].weight.zero_()  # a program does not follow the network


def test_a_part_left_to_torch_has_its_mask():
    class Odd(nn.Linear):
        def forward(self, x):
            return super().forward(x).sin()

    network = nn.Sequential(Odd(4, 3, bias=False))
    program = read(network, {"0.weight": torch.zeros(3, 4) > 0}, unsupported="torch")
    assert [op.kind for op in program.ops] == ["call"]
    assert not program.ops[0].function(np.ones((2, 4), np.float32)).any()


def test_functions_of_the_network_itself_may_be_left_to_torch():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(4, 3).double(), nn.Linear(3, 2).double()

        def forward(self, x):
            return self.two(F.leaky_relu(self.one(x), 0.1) * 2)

    program = _agree(Net(), _x(4), unsupported="torch")
    assert [op.kind for op in program.ops] == ["linear", "call", "scale", "linear"]


def test_what_other_values_pass_by_is_left_to_torch_as_a_whole():
    program = _agree(nn.Sequential(nn.Linear(4, 4), _Block()), _x(4), unsupported="torch")
    assert [(op.kind, op.name) for op in program.ops] == [("linear", "0"), ("call", "1")]


def test_a_whole_network_is_not_left_to_torch():
    with pytest.raises(InputError, match="forward of _Block itself is not"):
        read(_Block(), unsupported="torch")


def test_parts_of_several_values_are_left_to_torch_with_what_contains_them():
    class Two(nn.Module):
        def forward(self, x, y):
            return x * y

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.two = Two()

        def forward(self, x):
            return self.two(x, x.tanh())

    program = _agree(nn.Sequential(nn.Linear(4, 4), Outer()), _x(4), unsupported="torch")
    assert [(op.kind, op.name) for op in program.ops] == [("linear", "0"), ("call", "1")]


def test_networks_may_be_read_in_inference_mode_and_in_threads():
    network = nn.Sequential(nn.Linear(4, 4), nn.SiLU())
    with torch.inference_mode():
        assert len(read(network, unsupported="torch").ops) == 2
    with ThreadPoolExecutor(4) as pool:
        programs_ = list(pool.map(lambda _: read(network, unsupported="torch"), range(8)))
    assert all([op.kind for op in one.ops] == ["linear", "call"] for one in programs_)


def test_what_is_left_to_torch_makes_one_tensor():
    network = nn.Sequential(nn.Linear(4, 4), nn.LSTM(4, 3))
    with pytest.raises(InputError, match=r"1; it does not make one tensor"):
        read(network, unsupported="torch")


def test_a_network_has_one_output():
    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    with pytest.raises(InputError, match="what it returns is not a tensor"):
        read(Pair(), example=torch.zeros(1, 4))


def test_a_constant_is_no_output():
    class Constant(nn.Module):
        def forward(self, x):
            return torch.ones(len(x), 2)

    with pytest.raises(InputError, match="computed from its input"):
        read(Constant(), example=torch.zeros(1, 4))


def test_a_network_that_cannot_be_copied_is_refused():
    class Locked(nn.Linear):
        def __deepcopy__(self, memo):
            raise TypeError("no copies")

    with pytest.raises(InputError, match="Locked cannot be copied"):
        read(Locked(4, 2))
    with pytest.raises(InputError, match=r"LazyLinear cannot be copied.* run lazy modules once"):
        read(nn.LazyLinear(2), example=torch.zeros(1, 3))


def test_only_two_ways_with_what_is_unsupported():
    with pytest.raises(InputError, match="'error' or 'torch', got 'skip'"):
        read(nn.Linear(4, 2), unsupported="skip")


def test_an_ensemble_is_the_mean_of_its_members():
    torch.manual_seed(0)
    networks = [MLP(4, 3, widths=(5,), skip=True).eval() for _ in range(3)]
    members = [read(network) for network in networks]
    x = _x(4)
    with torch.no_grad():
        outs = torch.stack([network(x) for network in networks])
    for softmax, wanted in ((True, outs.softmax(-1).mean(0)), (False, outs.mean(0))):
        program = ensemble(members, softmax=softmax)
        check(program)
        np.testing.assert_allclose(programs.evaluate(program, x.numpy()), wanted, atol=1e-6)
    (single, wanted) = ensemble(members[:1], softmax=True), outs[0].softmax(-1)
    np.testing.assert_allclose(programs.evaluate(single, x.numpy()), wanted, atol=1e-6)


def test_an_ensemble_has_members_of_one_kind():
    for members in ([], [read(nn.Linear(4, 2)), read(nn.Linear(4, 3))]):
        with pytest.raises(InputError, match="one input and one output shape"):
            ensemble(members, softmax=False)


def test_estimators_predict_what_their_programs_compute():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 4))
    options = {"widths": (8, 8), "search_epochs": 1, "finetune_epochs": 7, "random_state": 0}
    clf = TicketClassifier(n_tickets=2, snapshots=2, **options).fit(x, x[:, 0] > 0)
    encoded = clf._encode(x).numpy()
    members = [read(m, mask) for m, mask in zip(clf.members_, clf.masks_, strict=True)]
    assert len(members) == 4
    made = fallback.run(ensemble(members, softmax=True), encoded)
    np.testing.assert_allclose(made, clf.predict_proba(x), atol=1e-6)
    reg = TicketRegressor(n_tickets=2, **options).fit(x, 100 + 20 * x[:, 0])
    members = [read(m, mask) for m, mask in zip(reg.members_, reg.masks_, strict=True)]
    target = (reg.target_mean_, reg.target_scale_)
    made = fallback.run(ensemble(members, softmax=False, target=target), encoded)
    np.testing.assert_allclose(made[:, 0], reg.predict(x), rtol=1e-5)
