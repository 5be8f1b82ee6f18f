"""Any network as encoder and decoder, split before its last layer."""

import copy

import torch
from torch import Tensor, nn

from secateurs.errors import InputError

__all__ = ["Split", "split"]


class Split(nn.Module):
    """decoder(encoder(x)); `split` makes it.

    `encoder` is the network with `nn.Identity` in the decoder's place, so its output is what the
    decoder took: the hidden representation h. Its weights keep their names behind `encoder.`.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, *, name: str, initial: str) -> None:
        """Hold both parts; `name` is the decoder's place, `initial` how `initialise_` draws."""
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.name, self.initial = name, initial

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of the whole network."""
        out: Tensor = self.decoder(self.encoder(x))
        return out

    def whole(self) -> nn.Module:
        """Return a copy of the network as it was before the split, with the present weights.

        Its class and the keys of its state are those of the network that was split.

        >>> network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> list(split(network, decoder="2").whole().state_dict())
        ['0.weight', '0.bias', '2.weight', '2.bias']
        """
        both = copy.deepcopy(self)  # together: what the parts share stays shared
        _put_(both.encoder, both.name, both.decoder)
        return both.encoder


def _put_(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)


def split(network: nn.Module, *, decoder: str, example: Tensor | None = None) -> Split:
    """Split a network before its last layer, for a loss that needs the hidden representation.

    `find_ticket(split(network, decoder="fc"), ...)` prunes all but that layer and contrasts what
    goes into it; `Split.whole` is the way back.

    Args:
        network: any module of one input and one output; it is copied, never modified.
        decoder: name of its last layer, as in `named_modules()`: "fc", "classifier.3".
        example: [rows, ...] inputs that tell whether the layer is the last one, or None for no
            such check.

    Raises:
        InputError: no such submodule (lists the Linear ones), one that has several names, or, on
            the example, one that is not called exactly once or is not the last, or outputs that
            are not one tensor.

    >>> network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> split(network, decoder="2", example=torch.ones(1, 3)).encoder(torch.ones(5, 3)).shape
    torch.Size([5, 4])
    """
    modules = dict(network.named_modules(remove_duplicate=False))
    if not decoder or decoder not in modules:
        linear = [name for name, module in modules.items() if isinstance(module, nn.Linear)]
        raise InputError(
            f"decoder must name a submodule of the network, got {decoder!r}; its Linear layers are "
            f"{', '.join(linear) or 'none'}"
        )
    same = [name for name, module in modules.items() if module is modules[decoder]]
    if len(same) > 1:
        raise InputError(
            f"a decoder must be in one place, but {' and '.join(same)} are the same module; "
            "give the last layer one of its own"
        )
    encoder = copy.deepcopy(network)
    last = encoder.get_submodule(decoder)
    _put_(encoder, decoder, nn.Identity())
    initial = getattr(network, "initial", "kaiming")
    made = Split(encoder, last, name=decoder, initial=initial)
    made.training = network.training
    if example is not None:
        _check_last(network, made, example)
    return made


@torch.no_grad()
def _check_last(network: nn.Module, made: Split, example: Tensor) -> None:
    """Raise unless the decoder is called once, and last, on its way to the network's outputs."""
    whole, parts, calls = copy.deepcopy(network).eval(), copy.deepcopy(made).eval(), []
    whole.get_submodule(made.name).register_forward_hook(lambda *_: calls.append(1))
    expected = whole(example)
    if not isinstance(expected, Tensor):
        raise InputError(
            f"a network must give one tensor to be split, got {type(expected).__name__}; "
            "wrap it in a module that gives the logits"
        )
    if len(calls) != 1:
        raise InputError(
            f"a decoder must be called once in a forward pass, but {made.name} is called "
            f"{len(calls)} times; name the layer that gives the outputs"
        )
    problem = ""
    try:
        found = parts(example)
    except (RuntimeError, AttributeError, TypeError, ValueError) as err:
        problem = f"without it the rest fails: {err}".splitlines()[0]
    else:
        equal = found.shape == expected.shape and torch.allclose(found, expected, equal_nan=True)
        problem = "" if equal else "the outputs are not what it gives"
    if problem:
        raise InputError(
            f"a decoder must be the network's last layer, but after {made.name} something follows: "
            f"{problem}; name the last one, or make what follows a part of it"
        )
