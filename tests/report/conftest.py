"""Made results as a study would have them, and a page with every kind of block on them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from secateurs.experiments.arms import arm
from secateurs.experiments.run import run
from secateurs.experiments.spec import PeerCell, Rows, Run, TicketCell, key
from secateurs.experiments.store import Plan, Store
from secateurs.optimizers import SGD
from secateurs.report import figures
from secateurs.report.page import Axis, Facts, Figure, Scrubber, Section, Table, Text, Value, render
from secateurs.tickets import TicketConfig
from secateurs.training import PhaseConfig

ARMS = ["dense", "IUNet", "omp-paper", "no-ILO", "no-PIS", "random mask"]
NAMES = (
    "age workclass fnlwgt education education-num marital-status occupation relationship race sex "
    "capital-gain capital-loss hours-per-week native-country income-last-year balance housing loan "
    "day-of-month duration-of-last-contact campaign pdays previous-outcome contact-type euribor3m"
)
COLUMNS = NAMES.split()
COMMAND = "secateurs paper papers/iunet/table_4.py --out runs/table-4 --scale paper"


@pytest.fixture(scope="session")
def runs():
    """Accuracy of eight seeds at compressions 2 to 32; the dense arm at 1 only."""
    generator = np.random.default_rng(0)
    rows = [
        {
            "arm": arm,
            "compression": r,
            "accuracy": 74 - 0.3 * i * np.log2(r) + generator.normal(0, 0.5),
        }
        for i, arm in enumerate(ARMS)
        for r in ((1,) if arm == "dense" else (2, 4, 8, 16, 32))
        for _ in range(8)
    ]
    return pd.DataFrame(rows)


@pytest.fixture(scope="session")
def history():
    """Loss and weight movement of 105 epochs, four seeds an arm."""
    generator = np.random.default_rng(1)
    epoch = np.arange(105)
    parts = [
        pd.DataFrame(
            {
                "epoch": epoch,
                "loss": 0.5 + 0.02 * i + np.exp(-epoch / 20) + generator.normal(0, 0.01, 105),
                "movement": 2.0 ** (-2 * i) * (1 - np.exp(-epoch / 30)),
                "arm": arm,
            }
        )
        for i, arm in enumerate(ARMS[:5])
        for _ in range(4)
    ]
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="session")
def histograms():
    """Counts [105, 60] for four initial scales, and the edges of the bins."""
    generator = np.random.default_rng(2)
    edges = np.linspace(-6, 0.5, 61)
    counts = {}
    for scale in (1, 0.25, 0.125, 0.0625):
        sizes = generator.normal(np.log10(0.06 * scale), 0.4, 4000)
        grown = np.where(generator.random(4000) < 0.25, 0.008, -0.002)
        rows = [np.histogram(sizes + grown * epoch, edges)[0] for epoch in range(105)]
        counts[f"κ = {scale:g}"] = np.array(rows)
    return counts, edges


@pytest.fixture(scope="session")
def layers():
    """Densities of nine layers for three arms."""
    rows = [
        {"layer": f"encoder.{3 * i}.weight", "arm": arm, "density": 0.4 * 0.8 ** (i * k)}
        for k, arm in enumerate(("omp-paper", "no-ILO", "IUNet"))
        for i in range(9)
    ]
    return pd.DataFrame(rows)


@pytest.fixture(scope="session")
def weights():
    """A first layer [512, 25] at density 1/8."""
    generator = np.random.default_rng(3)
    matrix = generator.normal(0, 1, (512, 25)) * generator.gamma(0.6, 1, 25)
    return np.where(np.abs(matrix) >= np.quantile(np.abs(matrix), 0.875), matrix, 0)


@pytest.fixture(scope="session")
def pairs():
    """A symmetric matrix of 25 columns with a diagonal of 0."""
    drawn = np.random.default_rng(4).normal(0, 0.1, (25, 25))
    return (drawn + drawn.T) * (1 - np.eye(25)) / 2


@pytest.fixture(scope="session")
def drawings(runs, history, histograms, layers, weights, pairs):
    """One SVG of every function, and the labels of the frames."""
    counts, edges = histograms
    frames, labels = figures.weight_histograms(counts, edges, range(105))
    shares = np.random.default_rng(5).dirichlet(np.full(25, 0.6))
    return {
        "accuracy": figures.accuracy_by_compression(
            runs, value="accuracy", ylabel="balanced accuracy (%)", order=ARMS
        ),
        "loss": figures.curves(history, y="loss", by="arm", ylabel="validation loss", order=ARMS),
        "movement": figures.curves(
            history, y="movement", by="arm", ylabel="weight movement", logy=True, order=ARMS
        ),
        "layers": figures.layer_density(layers, order=ARMS),
        "map": figures.weight_map(weights, row_label="neuron", column_label="", columns=COLUMNS),
        "columns": figures.column_bars(
            COLUMNS, shares, chance=1 / 25, error=shares / 8, xlabel="share of kept weights"
        ),
        "pairs": figures.pair_matrix(COLUMNS, pairs),
        "frames": frames,
    }, labels


@pytest.fixture(scope="session")
def sections(drawings, runs):
    """A report of four sections in which every block and every figure occurs."""
    svgs, labels = drawings
    groups = runs.groupby(["arm", "compression"], sort=False)["accuracy"]
    rows = [
        [
            arm,
            r,
            Value(part.mean(), error=part.std() / 8**0.5, note="published 74.1" if r == 8 else ""),
            None if arm == "dense" else Value(part.mean() - 74, error=0.2),
            1_843_210 // r,
            3.1 / r,
        ]
        for (arm, r), part in groups
    ]

    def figure(title, name):
        return Figure(
            title=title, svg=svgs[name], alt=f"{title}, drawn.", caption="Means of eight seeds."
        )

    return [
        Section(
            title="Summary",
            intro="Eight paired splits.",
            blocks=[
                Facts(title="This run", items={"Scale": "small", "Runs": "208 of 208 done"}),
                Figure(
                    title="Accuracy by compression",
                    svg=svgs["accuracy"],
                    alt="Accuracy of five arms falls with compression.",
                    caption="Bands are one standard error.",
                    command=COMMAND,
                ),
            ],
        ),
        Section(
            title="Results",
            blocks=[
                Table(
                    title="Arms",
                    columns=["Arm", "r", "Accuracy (%)", "Against dense", "Weights", "ms"],
                    rows=rows,
                    note="Differences are paired by split.",
                    command=COMMAND,
                ),
                figure("Validation loss", "loss"),
                figure("Weight movement", "movement"),
                Scrubber(
                    title="How |w| spreads",
                    frames_svg=svgs["frames"],
                    axes=[Axis("epoch", labels)],
                    alt="Histograms of |w| for four initial scales.",
                    caption="A valley opens.",
                    command=COMMAND,
                ),
            ],
        ),
        Section(
            title="Structure",
            blocks=[
                Text(title="How to read this", paragraphs=["A pruned weight is 0.", "1 < 2 & 3"]),
                figure("First layer", "map"),
                figure("Columns that are read", "columns"),
                figure("Density by layer", "layers"),
                figure("Columns read together", "pairs"),
                Text(paragraphs="That is all."),
            ],
        ),
        Section(
            title="Every run",
            blocks=[
                Table(
                    title="Runs",
                    columns=["Run", "Arm", "Accuracy", "Log-loss"],
                    rows=[
                        [f"{i:06d}", row.arm, row.accuracy, None]
                        for i, row in enumerate(runs.itertuples())
                    ],
                )
            ],
        ),
    ]


@pytest.fixture(scope="session")
def page(sections):
    """The report as HTML."""
    return render(
        "IUNet ablations",
        sections,
        subtitle="Table 4",
        stamp="smoke: not evidence",
        footer="secateurs 0.1.0",
    )


IUNET = TicketConfig(
    search=PhaseConfig(epochs=3, optimizer=SGD(lr=0.05), contrastive_weight=1.0),
    finetune=PhaseConfig(epochs=7),
)


def cell(name, split, compression=8.0):
    config = arm(name, replace(IUNET, compression=compression))
    rows = Rows(dataset="sklearn:wine", split=split, validation_folds=4)
    return TicketCell(rows=rows, config=config, widths=(16, 16), seed=split)


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """Real tiny cells: arms on two splits, a peer, a cell that fails, a grid of compressions."""
    store = Store(tmp_path_factory.mktemp("runs"))
    runs = [
        Run(cell=cell(name, split), arm=name)
        for name in ("dense", "IUNet", "no-ILO")
        for split in range(2)
    ]
    peer = PeerCell(rows=Rows(dataset="sklearn:wine", validation_folds=4))
    bad = PeerCell(rows=Rows(dataset="sklearn:nothing"))
    runs += [Run(cell=peer, arm="majority"), Run(cell=bad, arm="<b>broken")]
    store.write_plan(
        Plan(
            name="arms",
            title="Arms & arms",
            claim="A claim.",
            runs=runs,
            baseline="dense",
            published={("sklearn:wine", "IUNet"): 12.34},
            command="secateurs run arms.toml",
            stamp="smoke: not evidence",
        )
    )
    grid = [
        Run(cell=cell("IUNet", split, r), arm="IUNet")
        for split in range(2)
        for r in (2.0, 4.0, 8.0)
    ]
    grid += [Run(cell=cell("dense", split), arm="dense") for split in range(2)]
    store.write_plan(Plan(name="grid", title="Grid", runs=grid, baseline="dense"))
    summary = run([one.cell for one in [*runs, *grid]], store, device="cpu")
    assert list(summary.failed) == [key(bad)]
    return store
