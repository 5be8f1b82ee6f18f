"""Lottery tickets of a small residual network, in a training loop of one's own.

Train, prune, rewind, repeat, on the digits that scikit-learn ships; each ticket beside its mask
shuffled within layers. It runs in seconds on a CPU, and one seed proves nothing: it shows how the
parts go together.

    python examples/prune_any_module.py
"""

import copy

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

import secateurs as sc
from secateurs.networks.init import prunable

EPOCHS, BATCH_SIZE = 6, 64


class Residual(nn.Module):
    """Two 3x3 convolutions beside a skip connection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.body(x)).relu()


def train(network: nn.Module, mask: sc.masks.Mask, x: Tensor, y: Tensor) -> None:
    """Train as one would without pruning, but for the line with `hold`."""
    network.train()
    order = torch.Generator().manual_seed(1)  # the same batches in every round
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    with sc.masks.hold(network, mask, optimizer):
        for _ in range(EPOCHS):
            for rows in torch.randperm(len(x), generator=order).split(BATCH_SIZE):
                optimizer.zero_grad()
                F.cross_entropy(network(x[rows]), y[rows]).backward()
                optimizer.step()


@torch.no_grad()
def accuracy(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the share of rows that are classified correctly."""
    return (network.eval()(x).argmax(1) == y).float().mean().item()


def main() -> None:
    """Print a row for each round."""
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.from_numpy(digits.images).float()[:, None] / 16
    rows, test_rows = train_test_split(range(len(images)), test_size=0.25, random_state=0)
    labels = torch.from_numpy(digits.target)
    data, test = (images[rows], labels[rows]), (images[test_rows], labels[test_rows])

    stem = nn.Sequential(nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU())
    network = nn.Sequential(stem, Residual(16), nn.Flatten(), nn.Linear(256, 10))
    start = copy.deepcopy(network.state_dict())
    mask = sc.masks.ones(prunable(network))
    generator = torch.Generator().manual_seed(2)

    train(network, mask, *data)
    print(f"dense {accuracy(network, *test):.3f}")
    print("density  ticket  shuffled  kept in each layer")
    for density in sc.schedules.exponential(0.05, rounds=4):
        scores = sc.criteria.magnitude(network)
        mask = sc.masks.keep_top(scores, density, within=mask, min_per_layer=10)
        shuffled = sc.masks.shuffle(mask, generator=generator)
        found = []
        for arm in (shuffled, mask):  # the ticket last: the next round prunes what it learnt
            network.load_state_dict(start)
            train(network, arm, *data)
            found.append(accuracy(network, *test))
        kept = list(sc.masks.kept_per_layer(mask).values())
        print(f"{sc.masks.density(mask):7.3f}  {found[1]:6.3f}  {found[0]:8.3f}  {kept}")


if __name__ == "__main__":
    main()
