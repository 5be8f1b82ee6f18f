"""How movement depends on the rate and the steps, and what pilots of which length would foretell.

    python benchmarks/tabular/pilots.py --out runs/autopilot

Searches at eight rates on eight tables (three that scikit-learn ships and digits, the tuning sets),
with and without the contrastive term, movement after every epoch: `curves.jsonl`, which is read
again. Then `autopilot.steer` flies on these curves, interpolated in logarithms between rates.
"""

import argparse
import itertools
import json
import math
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import design
import numpy as np

from secateurs import autopilot
from secateurs.data.views import corruption
from secateurs.experiments.rows import prepare
from secateurs.experiments.spec import Rows
from secateurs.measures.regime import weight_movement
from secateurs.networks.init import prunable
from secateurs.optimizers import SGD
from secateurs.preparation import groups
from secateurs.recipes import PRESETS
from secateurs.tabular import start_network
from secateurs.tickets import TicketConfig, search
from secateurs.training import PhaseConfig, Trained

SETS = ("sklearn:iris", "sklearn:wine", "sklearn:breast_cancer", "sklearn:digits", *design.TUNING)
RATES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
TARGETS = (0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 2.0)
RECIPE = PRESETS["default"]
PHASE = PhaseConfig(epochs=RECIPE.search_epochs, optimizer=SGD(lr=RECIPE.search_lr))


def curve(dataset: str, weight: float, rate: float) -> list[float]:
    """Return the movement after each epoch of a search."""
    prepared = prepare(Rows(dataset=dataset, split=100, validation_folds=4))
    x = prepared.data.train[0]
    network = start_network(x.shape[1], len(prepared.classes), RECIPE.widths, seed=100)
    names = list(prunable(network, only="encoder.*"))
    scaled = {name: RECIPE.init_scale * network.state_dict()[name].clone() for name in names}
    searched = search(
        network,
        prepared.data,
        TicketConfig(search=replace(autopilot.at_rate(PHASE, rate), contrastive_weight=weight)),
        seed=100,
        view=corruption(x, groups(prepared.preparation), rate=0.6),
        watch=lambda now, _: {"moved": weight_movement(scaled, now.state_dict(), names)},
    )
    return [row["moved"] for row in searched.history]


def curves(path: Path) -> dict[tuple[str, float], dict[float, list[float]]]:
    """Return the curves by table, contrastive weight and rate; what is missing is searched."""
    found: dict[tuple[str, float], dict[float, list[float]]] = {}
    if path.exists():
        for line in path.read_text().splitlines():
            told = json.loads(line)
            found.setdefault((told["name"], told["lam"]), {})[told["lr"]] = told["h"]
    path.parent.mkdir(parents=True, exist_ok=True)
    for dataset in SETS:
        for weight in (1.0, 0.0):
            for rate in RATES:
                known = found.setdefault((dataset, weight), {})
                if rate in known:
                    continue
                known[rate] = curve(dataset, weight, rate)
                told = {"name": dataset, "lam": weight, "lr": rate, "h": known[rate]}
                with path.open("a") as file:
                    file.write(json.dumps(told) + "\n")
    return found


def fly(table: dict[float, list[float]], target: float) -> autopilot.Steering:
    """Return how the autopilot reaches a target on interpolated curves, a step an epoch."""
    log_rates = np.log(RATES)

    def moved(rate: float, epoch: int) -> float:
        logs = np.log([table[r][epoch - 1] for r in RATES])
        beyond = min(math.log(rate) - log_rates[0], 0.0)  # movement is linear in small rates
        return float(np.exp(np.interp(math.log(rate), log_rates, logs) + beyond))

    def run(phase: PhaseConfig, *, name, deadline, follow=None, every=1) -> Trained:
        steps = phase.n_steps(phase.batch_size)
        told = []
        for step in (every, steps) if follow else ():
            state = SimpleNamespace(state_dict=lambda s=step: moved(phase.optimizer.lr, s))
            told.append({"step": step, **follow(state, step)})
        return Trained(
            history=[{}] * steps, snapshots=[moved(phase.optimizer.lr, steps)], kept=None,
            complete=True, curve=told,
        )  # fmt: skip

    _, steering = autopilot.steer(
        run, PHASE, target, n_rows=PHASE.batch_size, moved=lambda state: state
    )
    return steering


def main() -> None:
    """Print slopes, the slowing, and how often targets are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/autopilot"))
    tables = curves(parser.parse_args().out / "curves.jsonl")
    ends = {name: [known[r][-1] for r in RATES] for name, known in tables.items()}
    print(f"{len(tables)} tables and losses, movement after {PHASE.epochs} epochs by rate")
    for (name, weight), end in ends.items():
        print(f"  {name:<22} lambda {weight:g}  " + " ".join(f"{m:7.3f}" for m in end))
    slopes = np.diff(np.log([*ends.values()]), axis=1) / np.diff(np.log(RATES))
    print("slope of log movement by log rate, 5% to 95%, between")
    for i, (low, high) in enumerate(itertools.pairwise(RATES)):
        least, most = np.quantile(slopes[:, i], [0.05, 0.95])
        print(f"  {low:g} and {high:g}: {least:.2f} to {most:.2f}")
    for share in (0.1, 0.2, 0.3, 0.4):
        end = math.ceil(share * PHASE.epochs)
        half = math.ceil(end / 2)
        local, later = [], []
        for known in tables.values():
            for rate in RATES[2:6]:
                row = known[rate]
                exponent = math.log(row[end - 1] / row[half - 1]) / math.log(end / half)
                local.append(exponent * math.log(PHASE.epochs / end))
                later.append(math.log(row[-1] / row[end - 1]))
        x, y = np.array(local), np.array(later)
        slowing = x @ y / (x @ x)
        met, pilots, searches = {}, [], []
        for limit in (1, autopilot.SEARCHES):
            before = autopilot.PILOT_SHARE, autopilot.SEARCHES
            autopilot.PILOT_SHARE, autopilot.SEARCHES = share, limit
            flights = [fly(known, t) for known in tables.values() for t in TARGETS]
            autopilot.PILOT_SHARE, autopilot.SEARCHES = before
            off = np.array([one.kept.movement / one.target for one in flights])
            met[limit] = 100 * np.mean(abs(off - 1) <= 0.25)
            pilots = [len(one.pilots) for one in flights]
            searches = [len(one.searches) for one in flights]
        print(
            f"pilots of {share:g}: slowing {slowing:.2f}, off by {np.std(y - slowing * x):.2f} in "
            f"log; within 25%: {met[1]:.0f}% by one search, {met[autopilot.SEARCHES]:.0f}% by up "
            f"to {autopilot.SEARCHES}; {np.mean(pilots):.2f} pilots and {np.mean(searches):.2f} "
            f"searches, {np.mean(searches) + share * np.mean(pilots):.2f} searches' worth"
        )


if __name__ == "__main__":
    main()
