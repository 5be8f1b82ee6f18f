"""The arms of the tables, defined once (method, section 2.8): IUNet's settings, changed.

Each takes the settings of IUNet and returns those of the arm, so that an arm means the same for
every network and recipe.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from secateurs.errors import InputError
from secateurs.optimizers import SGD, BetaLasso, Optimizer
from secateurs.tickets import TicketConfig

__all__ = ["ARMS", "OMP_PAPER_LR", "Arm", "arm", "beta_lasso"]

Arm = Callable[[TicketConfig], TicketConfig]

OMP_PAPER_LR = 1e-3
"""Learning rate of the search of *omp-paper*."""


def _search(config: TicketConfig, **changes: Any) -> TicketConfig:
    return replace(config, search=replace(config.search, **changes))


def _sgd(config: TicketConfig, **changes: Any) -> Optimizer:
    optimizer = config.search.optimizer
    if not isinstance(optimizer, SGD):
        raise InputError(
            "this arm sets the learning rate of an SGD search, got "
            f"{type(optimizer).__name__}; start from settings with SGD"
        )
    return replace(optimizer, **changes)


def _untrained(config: TicketConfig) -> TicketConfig:
    return replace(config, finetune=replace(config.finetune, epochs=0, snapshots=1))


def _dense(config: TicketConfig) -> TicketConfig:
    return replace(config, compression=1.0, rewind="start")


def _dense_equal_steps(config: TicketConfig) -> TicketConfig:
    search, finetune = config.search, config.finetune
    if search.batch_size != finetune.batch_size:
        raise InputError(
            "this arm adds the epochs of the search to those of the finetuning, which are as many "
            f"steps only with one batch size, got {search.batch_size} and {finetune.batch_size}"
        )
    if search.epochs and (search.steps is None) != (finetune.steps is None):
        raise InputError(
            "this arm adds the search to the finetuning, so both must be in epochs or both in "
            f"steps, got steps {search.steps} and {finetune.steps}; set both"
        )
    rounds = len(config.schedule(1 / config.compression))
    if finetune.steps is not None:
        whole = replace(finetune, steps=(search.steps or 0) * rounds + finetune.steps)
    else:  # its cycles grow in proportion
        whole = replace(finetune, epochs=search.epochs * rounds + finetune.epochs)
    return replace(_dense(config), finetune=whole)


def _contrastive(config: TicketConfig) -> TicketConfig:
    if not config.search.contrastive_weight:
        raise InputError("this arm needs a search with a contrastive_weight, got 0; set one")
    return config


def _dense_ilo(config: TicketConfig) -> TicketConfig:
    search = _contrastive(config).search
    finetune = replace(
        config.finetune,
        contrastive=search.contrastive,
        contrastive_weight=search.contrastive_weight,
        temperature=search.temperature,
    )
    return replace(_dense(config), finetune=finetune)


def _contrastive_pretraining(config: TicketConfig) -> TicketConfig:
    return _search(_no_prune(_contrastive(config)), loss_weight=0.0)


def _no_prune(config: TicketConfig) -> TicketConfig:
    return replace(config, compression=1.0, rewind="none")


def _omp_rich(config: TicketConfig) -> TicketConfig:
    return replace(_search(config, contrastive_weight=0.0), init_scale=1.0)


def _omp_paper(config: TicketConfig) -> TicketConfig:
    optimizer = _sgd(config, lr=OMP_PAPER_LR, encoder_lr=None)
    return _search(_omp_rich(config), optimizer=optimizer)


def _no_pis_matched(config: TicketConfig) -> TicketConfig:
    encoder_lr = config.search.optimizer.lr / config.init_scale**2
    matched = _search(config, optimizer=_sgd(config, encoder_lr=encoder_lr))
    return replace(matched, init_scale=1.0)


ARMS: dict[str, Arm] = {
    "IUNet": lambda config: config,
    "dense": _dense,
    "dense, equal steps": _dense_equal_steps,
    "dense with ILO": _dense_ilo,
    "contrastive pretraining": _contrastive_pretraining,
    "searched dense": lambda config: _untrained(_no_prune(config)),
    "no-prune": _no_prune,
    "omp-paper": _omp_paper,
    "omp-rich": _omp_rich,
    "no-ILO": lambda config: _search(config, contrastive_weight=0.0),
    "no-PIS": lambda config: replace(config, init_scale=1.0),
    "no-PIS, matched lr": _no_pis_matched,
    "no rewind": lambda config: replace(config, rewind="none"),
    "pruned search": lambda config: _untrained(replace(config, rewind="none")),
    "untrained ticket": _untrained,
    "untrained shuffled mask": lambda config: _untrained(replace(config, control="shuffled")),
    "untrained top-|start| mask": lambda config: _untrained(replace(config, control="top_start")),
    "untrained, re-initialised": lambda config: _untrained(replace(config, rewind="random")),
    "shuffled mask": lambda config: replace(config, control="shuffled"),
    "top-|start| mask": lambda config: replace(config, control="top_start"),
    "re-initialised": lambda config: replace(config, rewind="random"),
}


def arm(name: str, config: TicketConfig) -> TicketConfig:
    """Return the settings of an arm.

    Args:
        name: one of `ARMS`.
        config: IUNet's settings.

    Raises:
        InputError: no such arm, or one that these settings cannot have.

    >>> arm("no-PIS", TicketConfig(init_scale=0.25)).init_scale
    1.0
    """
    if name not in ARMS:
        raise InputError(f"an arm must be one of {', '.join(ARMS)}, got {name!r}")
    return ARMS[name](config)


def beta_lasso(config: TicketConfig, *, l1: float) -> TicketConfig:
    """Return beta-Lasso: one training with its update, then finetuning without rewinding.

    It has no target density: what its threshold set to zero is pruned. `l1` is to be chosen on
    validation rows.

    >>> beta_lasso(TicketConfig(), l1=1e-6).search.optimizer.l1
    1e-06
    """
    search = replace(
        config.search,
        contrastive_weight=0.0,
        optimizer=BetaLasso(lr=config.search.optimizer.lr, l1=l1),
    )
    return replace(config, search=search, init_scale=1.0, compression=1.0, rewind="none")
