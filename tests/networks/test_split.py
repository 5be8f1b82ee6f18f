import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from secateurs import Data, PhaseConfig, TicketConfig, find_ticket, masks
from secateurs.errors import InputError
from secateurs.networks.init import initialise_
from secateurs.networks.resnet import ResNet18
from secateurs.networks.split import split
from secateurs.optimizers import SGD


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Theirs(nn.Module):
    """A network as people write it: nested, with a branch, and layers that forward names."""

    initial = "glorot"

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.side = nn.Linear(16, 6)
        self.classifier = nn.Sequential(
            nn.Dropout(0.1), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)
        )

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)) + x)
        return self.classifier(self.side(F.adaptive_avg_pool2d(x, 2).flatten(1)))


X = torch.randn(40, 1, 6, 6, generator=seeded())


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def untouched(network, state, modes):
    return same(network.state_dict(), state) and [m.training for m in network.modules()] == modes


def test_the_parts_compute_what_the_whole_does_and_the_whole_is_left_alone():
    network = Theirs()
    network.norm.eval()  # modes differ within the network
    network.classifier[3].register_forward_hook(lambda *_: None)
    modules, modes = list(network.modules()), [m.training for m in network.modules()]
    state = copy.deepcopy(network.state_dict())
    parts = split(network, decoder="classifier.3", example=X)
    assert untouched(network, state, modes)
    assert all(one is other for one, other in zip(network.modules(), modules, strict=True))
    assert not {id(p) for p in parts.parameters()} & {id(p) for p in network.parameters()}
    assert [m.training for m in parts.whole().modules()] == modes
    assert list(parts.state_dict()) == [
        *(f"encoder.{name}" for name in state if not name.startswith("classifier.3")),
        "decoder.weight",
        "decoder.bias",
    ]
    h = parts.eval().encoder(X)
    assert h.shape == (40, 6)
    assert torch.equal(parts(X), network.eval()(X))
    assert torch.equal(parts.decoder(h), network(X))


def test_a_flat_sequence_and_a_nested_decoder_are_split_too():
    flat = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    x = torch.randn(3, 4, generator=seeded())
    parts = split(flat, decoder="2", example=x)
    assert torch.equal(parts.encoder(x), flat[1](flat[0](x)))
    parts = split(Theirs().eval(), decoder="classifier", example=X)  # not only a Linear layer
    assert parts.encoder(X).shape == (40, 6)
    assert isinstance(parts.decoder, nn.Sequential)


def test_the_whole_comes_back_with_trained_weights_and_its_own_names():
    network = Theirs().eval()
    parts = split(network, decoder="classifier.3")
    with torch.no_grad():
        for parameter in parts.parameters():
            parameter.add_(0.1)
    whole = parts.whole()
    assert type(whole) is Theirs
    assert list(whole.state_dict()) == list(network.state_dict())
    assert torch.equal(whole(X), parts(X))
    assert not torch.equal(whole(X), network(X))
    network.load_state_dict(whole.state_dict())
    assert torch.equal(network(X), parts(X))
    before = parts(X)
    for parameter in whole.parameters():  # a copy: what happens to it is its own
        parameter.data.zero_()
    assert torch.equal(parts(X), before)


def test_the_network_says_how_its_start_is_drawn():
    network, parts = Theirs(), split(Theirs(), decoder="classifier.3")
    initialise_(network, generator=seeded())
    initialise_(parts, generator=seeded())
    assert same(parts.whole().state_dict(), network.state_dict())


def test_a_ticket_of_a_network_without_an_encoder():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = ResNet18(width=2, channels=1).encoder
            self.fc = nn.Linear(16, 3)

        def forward(self, x):
            return self.fc(self.body(x))

    network = Plain()
    initialise_(network, generator=seeded())
    start = copy.deepcopy(network.state_dict())
    x = torch.randn(40, 1, 8, 8, generator=seeded(1))
    data = Data(train=(x, x.flatten(1)[:, :3].argmax(1)))
    phase = PhaseConfig(epochs=1, batch_size=16, optimizer=SGD(lr=0.05), contrastive_weight=1.0)
    config = TicketConfig(
        search=phase, finetune=PhaseConfig(epochs=1, optimizer=SGD(lr=0.05)), compression=4
    )
    parts = split(network, decoder="fc", example=x)
    ticket = find_ticket(
        parts, data, config, view=lambda x, g: x + torch.randn(x.shape, generator=g), device="cpu"
    )
    assert same(network.state_dict(), start)
    assert all(name.startswith("encoder.body.") for name in ticket.mask)
    assert "contrastive" in ticket.history[0]
    assert ticket.density == pytest.approx(1 / 4, abs=1e-3)
    whole = ticket.network.whole()
    assert list(whole.state_dict()) == list(start)
    mask = {name.removeprefix("encoder."): kept for name, kept in ticket.mask.items()}
    masks.check_held(whole, mask)
    assert torch.equal(whole.eval()(x), ticket.network.eval()(x))


# --- what cannot be split -----------------------------------------------------------------------


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.fc = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.fc(self.fc(self.body(x)))


class Never(Twice):
    def forward(self, x):
        return self.body(x)


class Reads(Twice):
    def forward(self, x):
        return self.fc(self.body(x)) * self.fc.weight.mean()


class Softmax(Twice):
    def forward(self, x):
        return self.fc(self.body(x)).softmax(1)


class Sums(Twice):
    """What follows the decoder cannot take what goes into it."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(self.body(x)) @ torch.ones(2, 1)


class Pair(Twice):
    def forward(self, x):
        h = self.body(x)
        return self.fc(h), h


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (Twice, "fc is called 2 times"),
        (Never, "fc is called 0 times"),
        (Reads, "after fc something follows: without it the rest fails: .* no attribute 'weight'"),
        (Softmax, "after fc something follows: the outputs are not what it gives"),
        (Sums, "after fc something follows: without it the rest fails"),
        (Pair, "a network must give one tensor to be split, got tuple"),
    ],
)
def test_a_layer_that_is_not_the_last_is_refused_on_an_example(make, told):
    network, x = make(), torch.randn(3, 4, generator=seeded())
    state, modes = copy.deepcopy(network.state_dict()), [m.training for m in network.modules()]
    with pytest.raises(InputError, match=told) as err:
        split(network, decoder="fc", example=x)
    assert "\n" not in str(err.value)
    assert untouched(network, state, modes)
    assert len(network.fc._forward_hooks) == 0


@pytest.mark.parametrize("name", ["head", "", "classifier.4", "classifier."])
def test_an_unknown_name_lists_the_linear_layers(name):
    listed = "its Linear layers are side, classifier.1, classifier.3"
    with pytest.raises(InputError, match=f"got '{name}'; {listed}$"):
        split(Theirs(), decoder=name)
    with pytest.raises(InputError, match=r"its Linear layers are none$"):
        split(nn.Sequential(nn.ReLU()), decoder="head")


def test_a_layer_in_two_places_is_refused_without_an_example():
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    network.append(network[0])
    with pytest.raises(InputError, match="but 0 and 2 are the same module"):
        split(network, decoder="2")
