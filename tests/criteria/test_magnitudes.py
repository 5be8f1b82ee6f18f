import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import nn

from reference import criteria as slow
from secateurs import criteria, masks


def layer_of(values):
    values = torch.as_tensor(values)
    layer = nn.Linear(values.shape[1], values.shape[0], bias=False, dtype=values.dtype)
    with torch.no_grad():
        layer.weight.copy_(values)
    return layer


def test_magnitude_keeps_the_largest_absolute_weights():
    scores = criteria.magnitude(layer_of([[-5.0, 1.0, 3.0, -2.0]]))
    assert scores["weight"].tolist() == [[5, 1, 3, 2]]
    assert not scores["weight"].requires_grad
    assert masks.keep_top(scores, 0.5)["weight"].tolist() == [[True, False, True, False]]


@pytest.mark.parametrize("name", ["magnitude", "normalised_magnitude", "lamp"])
def test_scores_are_a_copy_of_the_weights(make_network, name):
    network = make_network()
    with torch.no_grad():
        for p in network.parameters():
            p.abs_()
    scores = criteria.CRITERIA[name](network)
    scores["decoder.weight"].zero_()
    assert (network.decoder.weight != 0).all()


# --- normalised magnitude -------------------------------------------------------------------------


def test_normalised_magnitudes_have_a_mean_square_of_1_in_every_layer(make_network):
    network = make_network()
    with torch.no_grad():
        network.decoder.weight.mul_(1e-3)
    for name, score in criteria.normalised_magnitude(network).items():
        assert float(score.double().square().mean()) == pytest.approx(1, rel=1e-5)
        ratio = network.get_parameter(name).detach().abs() / score
        torch.testing.assert_close(ratio, ratio.flatten()[0].expand_as(ratio))


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
@pytest.mark.parametrize("name", ["normalised_magnitude", "lamp"])
def test_no_scale_of_a_layer_over_or_underflows(name, scale):
    plain = layer_of([[3.0, -1.0, 2.0, 0.0]])
    scaled = layer_of(plain.weight.detach() * scale)
    scores = criteria.CRITERIA[name](scaled)["weight"]
    expected = criteria.CRITERIA[name](plain)["weight"] * (scale > 0)
    torch.testing.assert_close(scores, expected, rtol=1e-6, atol=0)


# --- LAMP -----------------------------------------------------------------------------------------

WEIGHTS = arrays.arrays(
    "float32",
    st.tuples(st.integers(1, 5), st.integers(1, 6)),
    elements=st.one_of(
        st.floats(-10, 10, width=32, allow_subnormal=False), st.sampled_from([0.0, 1.0, -1.0])
    ),
)


@given(WEIGHTS)
def test_lamp_equals_the_slow_twin(values):
    score = criteria.lamp(layer_of(values))["weight"]
    torch.testing.assert_close(score, slow.lamp(torch.from_numpy(values)), rtol=1e-9, atol=1e-300)
    assert float(score.max()) == float((values != 0).any())


@given(WEIGHTS, st.floats(0.1, 1))
def test_within_a_layer_lamp_chooses_what_magnitude_chooses(values, density):
    layer = layer_of(values)
    chosen = [
        masks.keep_top(score(layer), density, allow_empty=True)["weight"]
        for score in (criteria.lamp, criteria.magnitude)
    ]
    assert torch.equal(*chosen)


def test_lamp_keeps_a_layer_whose_weights_are_all_small(make_network):
    network = make_network()
    with torch.no_grad():
        network.encoder[0].weight.mul_(1e-4)
    density = 3 / sum(score.numel() for score in criteria.magnitude(network).values())
    mask = masks.keep_top(criteria.lamp(network), density)
    assert list(masks.kept_per_layer(mask).values()) == [1, 1, 1]
    lost = masks.keep_top(criteria.magnitude(network), density, allow_empty=True)
    assert masks.kept_per_layer(lost)["encoder.0.weight"] == 0
