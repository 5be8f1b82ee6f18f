"""The command line as people's scripts know it: verbs, options, exit codes, settings by name."""

import argparse
import inspect
import os
import subprocess
import sys
import time

import pytest

from secateurs import __version__
from secateurs.cli import build_parser, main
from secateurs.estimator import TicketClassifier, TicketRegressor
from secateurs.image_classifier import ImageTicketClassifier

ENGINE = [
    "--out DIR!",
    "--jobs N",
    "--cluster ADDRESS",
    "--num-gpus X",
    "--device NAME",
    "--dry-run",
    "--finished",
    "--figures DIR",
    "--quiet",
]

SURFACE = {
    "fit": [
        "DATA",
        "--target COLUMN",
        "--out DIR!",
        "--set NAME=JSON",
        "--compare",
        "--task {auto,classification,regression}",
        "--size PIXELS",
        "--overwrite",
        "--quiet",
    ],
    "predict": ["MODEL", "DATA", "--out FILE!"],
    "evaluate": ["MODEL", "DATA", "--target COLUMN", "--json"],
    "export": [
        "MODEL",
        "--format {onnx,runtime}!",
        "--out FILE!",
        "--precision {fp32,bf16,int8}",
    ],
    "run": ["SPEC", "--set a.b=JSON", *ENGINE],
    "paper": ["FILE", "--scale {smoke,small,paper}!", "--splits N", *ENGINE],
    "report": ["RUNS", "--out FILE!"],
    "list": ["[{networks,criteria,objectives,measures,datasets,runs}]", "[DIR]"],
}

CLASSIFIER = [
    "batch_size",
    "checkpoint_dir",
    "class_weight",
    "compression",
    "contrastive_weight",
    "corruption_rate",
    "criterion",
    "device",
    "finetune_epochs",
    "finetune_lr",
    "init_scale",
    "n_jobs",
    "n_tickets",
    "precision",
    "preset",
    "random_state",
    "regime",
    "rewind",
    "search_epochs",
    "search_lr",
    "snapshots",
    "temperature",
    "time_limit",
    "val_fraction",
    "verbose",
    "views",
    "weight_decay",
    "widths",
]
IMAGES = [
    "batch_size",
    "checkpoint_dir",
    "compression",
    "contrastive_weight",
    "criterion",
    "device",
    "finetune_epochs",
    "finetune_lr",
    "init_scale",
    "network",
    "precision",
    "random_state",
    "rewind",
    "search_epochs",
    "search_lr",
    "time_limit",
    "val_fraction",
    "verbose",
    "view",
    "width",
]
ONLY_CLASSES = {"class_weight", "contrastive_weight", "corruption_rate", "temperature", "views"}

# A value for every parameter, as one would type it.
SETTINGS = {
    "batch_size": "64",
    "checkpoint_dir": "null",
    "class_weight": "balanced",
    "compression": "4",
    "contrastive_weight": "0.5",
    "corruption_rate": "0.3",
    "criterion": "random",
    "device": "cpu",
    "finetune_epochs": "7",
    "finetune_lr": "1e-2",
    "init_scale": "0.5",
    "n_jobs": "-1",
    "n_tickets": "1",
    "precision": "fp32",
    "preset": "default",
    "random_state": "1",
    "regime": "null",
    "rewind": "scaled_start",
    "search_epochs": "2",
    "search_lr": "1e-2",
    "snapshots": "1",
    "temperature": "0.5",
    "time_limit": "600",
    "val_fraction": "0.2",
    "verbose": "0",
    "views": "null",
    "weight_decay": "0",
    "widths": "[16, 16]",
}


def described(action):
    options = ",".join(map(str, action.choices)) if action.choices else None
    metavar = f"{{{options}}}" if options else action.metavar
    if not action.option_strings:
        return f"[{metavar}]" if action.nargs == "?" else metavar
    takes = "" if action.nargs == 0 else f" {metavar}"
    return f"{action.option_strings[-1]}{takes}{'!' * action.required}"


def test_verbs_and_options_are_the_frozen_ones():
    (verbs,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    found = {
        verb: [described(a) for a in parser._actions if not isinstance(a, argparse._HelpAction)]
        for verb, parser in verbs.choices.items()
    }
    assert found == SURFACE


def test_parameters_are_the_frozen_ones():
    for kind, names in (
        (TicketClassifier, CLASSIFIER),
        (TicketRegressor, sorted(set(CLASSIFIER) - ONLY_CLASSES)),
        (ImageTicketClassifier, IMAGES),
    ):
        assert sorted(set(inspect.signature(kind).parameters)) == names
    assert sorted(SETTINGS) == CLASSIFIER


@pytest.mark.parametrize("data", ["sklearn:iris", "sklearn:diabetes"])
def test_every_parameter_can_be_set(data, tmp_path, capsys):
    left_out = ONLY_CLASSES if data == "sklearn:diabetes" else ()
    words = [f"{name}={v}" for name, v in SETTINGS.items() if name not in left_out]
    sets = [part for word in words for part in ("--set", word)]
    assert main(["fit", data, "--out", str(tmp_path / "m"), *sets]) == 0, capsys.readouterr().err


def run(*words, **kwargs):
    return subprocess.run(
        [sys.executable, "-m", "secateurs", *words],
        capture_output=True,
        text=True,
        check=False,
        **kwargs,
    )


def test_version():
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"secateurs {__version__}\n")


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from secateurs.cli import main; code = main(['fit', '--help']); "
        "heavy = {'torch', 'sklearn', 'pandas', 'numpy', 'rich'} & set(sys.modules); "
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow  # by the clock, so on a machine with nothing else to do
def test_help_comes_at_once():
    best = []
    for _ in range(3):
        begin = time.perf_counter()
        assert run("--help").returncode == 0
        best.append(time.perf_counter() - begin)
    assert min(best) < 0.5


def test_openmp_threads_sleep_before_torch_comes(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    code = (
        "import os, sys; from secateurs.cli import main; main(['list', 'networks']); "
        "assert 'torch' in sys.modules; print(os.environ['OMP_WAIT_POLICY'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert done.stdout.split()[-1] == "passive", done.stderr
