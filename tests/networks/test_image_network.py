import json
import resource

import numpy as np
import pytest
import torch

from secateurs.data.images import statistics
from secateurs.errors import InputError
from secateurs.networks.conv import CNN, MLPVis
from secateurs.networks.image_network import IMAGE_NETWORKS, ImageNetwork
from secateurs.networks.init import initialise_
from secateurs.networks.pixels import Normalise
from secateurs.seeds import stream

SMALL = {"cnn": 1, "mlp_vis": 1, "resnet18": 4, "lenet_300_100": None}


def described(kind, shape=(3, 16, 16)):
    return ImageNetwork(kind=kind, width=SMALL[kind], shape=shape, n_outputs=5)


@pytest.mark.parametrize("kind", IMAGE_NETWORKS)
@pytest.mark.parametrize("shape", [(1, 9, 9), (3, 16, 16)])
def test_every_kind_takes_uint8_images_and_is_pruned_in_its_encoder(kind, shape):
    network = described(kind, shape).start(np.zeros(shape[0]), np.ones(shape[0]), seed=0)
    x = torch.randint(256, (4, *shape), dtype=torch.uint8)
    assert network(x).shape == (4, 5)
    assert network.decoder.out_features == 5
    assert network.encoder(x).shape == (4, network.decoder.in_features)


@pytest.mark.parametrize("kind", IMAGE_NETWORKS)
def test_descriptions_survive_json(kind):
    one = described(kind)
    assert ImageNetwork.from_json(json.loads(json.dumps(one.to_json()))) == one


@pytest.mark.parametrize("kind", [CNN, MLPVis])
def test_a_start_is_the_kinds_own_with_the_pixels_normalised(kind):
    x = np.random.default_rng(0).integers(256, size=(50, 3, 8, 8), dtype=np.uint8)
    mean, std = statistics(x)
    name = {CNN: "cnn", MLPVis: "mlp_vis"}[kind]
    found = ImageNetwork(kind=name, width=2, shape=(3, 8, 8), n_outputs=4).start(mean, std, seed=7)
    expected = kind(2, size=8, channels=3, n_outputs=4, normalise=Normalise(mean, std))
    initialise_(expected, generator=stream(7, "init"))
    state = expected.state_dict()
    assert found.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in found.state_dict().items())


def test_no_global_generator_moves():
    before = torch.random.get_rng_state()
    described("resnet18").start(np.zeros(3), np.ones(3), seed=0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_constant_channel_is_no_division_by_zero():
    network = described("cnn").start(np.zeros(3), np.array([0.5, 0.0, 0.5]), seed=0)
    (pixels,) = (m for m in network.modules() if isinstance(m, Normalise))
    assert pixels.std.flatten().tolist() == [0.5, 1.0, 0.5]


def test_small_images_keep_their_pixels_at_the_stem_of_a_resnet():
    small, large = (described("resnet18", (3, n, n)).blank() for n in (32, 64))
    strides = [next(m for m in net.modules() if isinstance(m, torch.nn.Conv2d)).stride[0]
               for net in (small, large)]  # fmt: skip
    assert strides == [1, 2]


def test_other_shapes_are_for_networks_that_can_take_them():
    shape = (3, 12, 20)
    for kind in ("resnet18", "lenet_300_100"):
        network = described(kind, shape).start(np.zeros(3), np.ones(3), seed=0)
        assert network.eval()(torch.zeros(2, *shape, dtype=torch.uint8)).shape == (2, 5)
    with pytest.raises(InputError, match="square images, got 12 x 20"):
        described("cnn", shape)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"kind": "vit"}, "one of cnn, mlp_vis"),
        ({"kind": ["cnn"]}, "one of cnn, mlp_vis"),
        ({"width": 0}, "whole numbers"),
        ({"width": True}, "whole numbers"),
        ({"width": 2.0}, "whole numbers"),
        ({"n_outputs": 2**40}, "whole numbers"),
        ({"shape": (3, 16)}, "whole numbers"),
        ({"shape": (3, 16, -1)}, "whole numbers"),
        ({"kind": "lenet_300_100", "width": 3}, "one size"),
    ],
)
def test_what_describes_no_network(change, told):
    with pytest.raises(InputError, match=told):
        ImageNetwork(**{"kind": "cnn", "width": 1, "shape": (3, 16, 16), "n_outputs": 2} | change)


@pytest.mark.parametrize("kind", IMAGE_NETWORKS)
def test_giants_are_refused_before_they_are_allocated(kind):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for width, shape in ((2**30, (3, 16, 16)), (2**30, (4, 2**30, 2**30))):
        giant = ImageNetwork(
            kind=kind,
            width=None if SMALL[kind] is None else width,
            shape=shape,
            n_outputs=2**30,
        )
        with pytest.raises(InputError, match=r"1,000,000,000 parameters, but .* has "):
            giant.blank()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB
