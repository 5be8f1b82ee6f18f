"""Mixup as its paper words it: rows and one-hot labels are mixed, then trained on as any other."""

import numpy as np
import torch

from secateurs.seeds import derive, stream


def train(network, x, y, optimizer, *, mixup, epochs, batch_size, name, seed):
    """Train an MLP in place; `y` is class indices, or numbers, which are mixed as they are."""
    n_classes = network.decoder.out_features
    one_hot = torch.eye(n_classes)[y] if y.dtype == torch.int64 else y
    network.train()
    for epoch in range(epochs):
        order = torch.randperm(len(x), generator=stream(seed, name, "order", epoch))
        rng = np.random.default_rng(derive(seed, name, "mixup", epoch))
        for rows in order.split(batch_size):
            share, partners = rng.beta(mixup, mixup), rng.permutation(len(rows))
            inputs, targets = [], []
            for row, partner in zip(rows, rows[partners], strict=True):
                inputs.append(float(share) * x[row] + float(1 - share) * x[partner])
                targets.append(float(share) * one_hot[row] + float(1 - share) * one_hot[partner])
            outputs, told = network(torch.stack(inputs)), torch.stack(targets)
            if y.dtype == torch.int64:
                loss = -(told * outputs.log_softmax(1)).sum(1).mean()
            else:
                loss = (told - outputs).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
