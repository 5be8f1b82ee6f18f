"""The obvious training loop and one-shot selection: twins of `train` and `find_ticket`."""

import copy

import torch
import torch.nn.functional as F

from secateurs.device import arithmetic
from secateurs.objectives import nce
from secateurs.optimizers import lr_factor
from secateurs.seeds import stream


def train(network, data, optimizer, *, epochs, batch_size, name, seed, schedule="constant",
          mask=None, view=None, contrastive_weight=0.0):  # fmt: skip
    """ILO on an MLP by any torch optimizer, in place."""
    x, y = data.train
    weights, mask = dict(network.named_parameters()), mask or {}
    base = [group["lr"] for group in optimizer.param_groups]
    for key, kept in mask.items():
        weights[key].data *= kept
    network.train()
    for epoch in range(epochs):
        for group, lr in zip(optimizer.param_groups, base, strict=True):
            group["lr"] = lr * lr_factor(schedule, epoch, epochs)
        order = torch.randperm(len(x), generator=stream(seed, name, "order", epoch))
        batches = list(order.split(batch_size))
        if len(batches[-1]) == 1:
            batches[-2:] = [torch.cat(batches[-2:])]
        draws = stream(seed, name, "view", epoch)
        for rows in batches:
            optimizer.zero_grad()
            # this machine's linear layer: the loop is compared, the last bits of a product are not
            with arithmetic("fp32", x.device):
                h = network.encoder(x[rows])
                loss = F.cross_entropy(network.decoder(h), y[rows])
                if contrastive_weight:
                    clean = copy.deepcopy(dict(network.named_buffers()))
                    h_view = network.encoder(view(x[rows], draws))
                    loss = loss + contrastive_weight * nce(h, h_view, y[rows])
            loss.backward()
            if contrastive_weight:  # the running statistics are those of the clean pass
                network.load_state_dict(clean, strict=False)
            for key, kept in mask.items():
                weights[key].grad *= kept
            optimizer.step()
            for key, kept in mask.items():
                weights[key].data *= kept


def top_magnitudes(network, density):
    """The mask of the largest encoder weights, by sorting all of them."""
    weights = {
        n: p for n, p in network.named_parameters() if n.startswith("encoder") and p.ndim > 1
    }
    n = sum(w.numel() for w in weights.values())
    every = sorted(float(v) for w in weights.values() for v in w.detach().abs().flatten())
    threshold = every[n - round(density * n)]
    return {name: w.detach().abs() >= threshold for name, w in weights.items()}
