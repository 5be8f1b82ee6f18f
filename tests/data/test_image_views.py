import pytest
import torch

from reference import image_views as slow
from secateurs.data import image_views
from secateurs.data.image_views import IMAGE_VIEWS
from secateurs.errors import InputError


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def photos(n, *, channels=3, height=9, width=9, seed=0):
    return torch.randint(
        256, (n, channels, height, width), dtype=torch.uint8, generator=seeded(seed)
    )


@pytest.mark.parametrize("sides", [(32, 32), (9, 14), (14, 9), (1, 1), (1, 5)])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_crops_equal_their_slow_twin(sides, channels):
    x = photos(20, channels=channels, height=sides[0], width=sides[1]).float()
    crops = image_views._draw_crops(x, seeded(1), scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3))
    flipped = torch.rand(20, generator=seeded(2)) < 0.5
    fast = image_views._resize(x, crops, flipped)
    for i, (top, left, height, width) in enumerate(torch.stack(crops, 1).int().tolist()):
        expected = slow.crop(
            x[i], top=top, left=left, height=height, width=width, flipped=flipped[i]
        )
        torch.testing.assert_close(fast[i], expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_jitter_equals_its_slow_twin(channels):
    x = photos(100, channels=channels, height=4, width=5).float()
    ranges = [(0.2, 1.8)] * 3 + [(-0.5, 0.5)]
    jitter = image_views._draw_jitter(x, seeded(1), ranges=ranges, p=0.8)
    assert len({tuple(order) for order in jitter.order.tolist()}) == 24
    fast = image_views._recolour(x, jitter)
    for i, (factors, order, applied) in enumerate(zip(*jitter, strict=True)):
        expected = slow.jitter(
            x[i], factors=factors.tolist(), order=order.tolist(), applied=applied
        )
        torch.testing.assert_close(fast[i], expected, atol=2e-2, rtol=0)


@pytest.mark.parametrize("name", IMAGE_VIEWS)
def test_every_image_of_a_batch_draws_its_own(name):
    x = photos(1).expand(64, -1, -1, -1)
    if name in ("flip", "grayscale"):
        view = {"flip": image_views.horizontal_flip, "grayscale": image_views.grayscale}[name](
            p=0.5
        )
        n_different = 2
    else:
        view, n_different = IMAGE_VIEWS[name](), 50
    assert len(view(x, seeded()).flatten(1).unique(dim=0)) >= n_different


@pytest.mark.parametrize("name", IMAGE_VIEWS)
def test_batches_that_are_not_images_are_refused(name):
    with pytest.raises(InputError, match=r"needs \[rows, channels, height, width\]"):
        IMAGE_VIEWS[name]()(torch.zeros(3, 8, 8), seeded())
