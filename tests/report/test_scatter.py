"""Scatters are read back: marks stand where the data are, and the words say what was left out."""

import re
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from secateurs.errors import InputError
from secateurs.measures import statistics
from secateurs.report import drawing, scatter
from secateurs.report.drawing import PALETTE, RULE
from secateurs.report.page import Section, render
from secateurs.report.scatter import accuracy_against_cost, arm_families, gain_against

VALUE, COLUMN = "balanced_accuracy", "test.balanced_accuracy"
MOVED = "regime.weight_movement"


def study(arms=("dense", "IUNet", "omp", "8 tickets", "xgboost"), datasets=4, splits=3, seed=0):
    """A frame as of a store: arms of every family, of different sizes."""
    rng = np.random.default_rng(seed)
    kinds = {"xgboost": "PeerCell"}
    rows = [
        {
            "key": f"{arm} {d} {split}",
            "arm": arm,
            "tried": 1,
            "kind": kinds.get(arm, "TicketCell"),
            "n_tickets": 8 if arm == "8 tickets" else 1,
            "rows.dataset": f"set{d}",
            "rows.split": split,
            "seed": split,
            COLUMN: 0.7 + 0.05 * d + 0.01 * i + 0.01 * rng.standard_normal(),
            "size.bytes": 1e4 * 3.0**i * (1 + d),
            "size.density": np.nan if arm == "xgboost" else 1.0 if arm == "dense" else 0.125,
            "predict_seconds": 1e-3 * (1 + i),
            MOVED: np.nan if arm in ("dense", "xgboost") else 0.1 * 2.0**i * rng.uniform(1, 2),
        }
        for i, arm in enumerate(arms)
        for d in range(datasets)
        for split in range(splits)
    ]
    return pd.DataFrame(rows)


class Plot:
    """An SVG: its words, and its marks by the first line of what they say when pointed at."""

    def __init__(self, figure):
        self.root = ElementTree.fromstring(figure.svg)
        self.all = [(e.tag.rpartition("}")[2], e) for e in self.root.iter()]
        self.marks = []
        for tag, group in self.all:
            for child in group if tag == "g" else ():
                title = next((e for e in child if e.tag.endswith("title")), None)
                if title is not None:
                    self.marks.append((title.text, middle(child), group))

    def words(self):
        return [e.text for tag, e in self.all if tag == "text"]

    def text_boxes(self):
        """Return words, left, right, top, bottom of every text, by the widest font."""
        for tag, e in self.all:
            if tag != "text":
                continue
            size = float(e.get("font-size", drawing.SIZE))
            width = drawing.width_of(e.text) * size / drawing.SIZE
            x, y = float(e.get("x")), float(e.get("y"))
            x -= {"start": 0, "middle": width / 2, "end": width}[e.get("text-anchor", "start")]
            yield e.text, x, x + width, y - size / 2, y + size / 2

    def at(self, name):
        """Return the place of the mark of a method; the key's say only their name."""
        (found,) = [at for told, at, _ in self.marks if told.startswith(f"{name}\n")]
        return found

    def group(self, name):
        (found,) = [group for told, _, group in self.marks if told.startswith(f"{name}\n")]
        return found.get("style")

    def height(self):
        """Return what turns pixels into values, by the level rules and their numbers."""
        rules = sorted(
            {
                float(re.findall(r"-?\d*\.?\d+", e.get("d"))[1])
                for tag, e in self.all
                if tag == "path" and f", {RULE})" in e.get("style", "")
            }
        )
        numbers = {
            float(e.get("y")): number(e.text)
            for tag, e in self.all
            if tag == "text" and number(e.text) is not None
        }
        ticks = [
            (rule, value) for rule in rules for y, value in numbers.items() if abs(y - rule) < 6
        ]
        assert len(ticks) >= 2
        slope, start = np.polyfit(*zip(*ticks, strict=True), 1)
        return lambda y: slope * y + start, abs(slope)


def middle(mark):
    if mark.tag.endswith("circle"):
        return float(mark.get("cx")), float(mark.get("cy"))
    corners = np.array(re.findall(r"-?\d*\.?\d+", mark.get("d")), float).reshape(-1, 2)
    return tuple(corners.min(0) / 2 + corners.max(0) / 2)


def number(text):
    try:
        return float((text or "").replace("−", "-"))
    except ValueError:
        return None


# ---- accuracy against cost -----------------------------------------------------------------------


def test_marks_stand_at_the_mean_and_at_the_geometric_mean_cost():
    frame = study()
    plot = Plot(accuracy_against_cost(frame, VALUE))
    value, pixel = plot.height()
    arms = list(frame["arm"].unique())
    for arm in arms:
        cells = frame[frame["arm"] == arm]
        mean = 100 * cells.groupby("rows.dataset")[COLUMN].mean().mean()
        # a triangle's middle is not its box's
        assert value(plot.at(arm)[1]) == pytest.approx(mean, abs=2.5 * pixel)
    across = [plot.at(arm)[0] for arm in arms]  # each three times the size of the one before
    assert np.diff(across) == pytest.approx(np.diff(across)[0], abs=0.3)
    titles = [told for told, _, _ in plot.marks]
    assert any("4 of 4 data sets" in told and "bytes: " in told for told in titles)
    root = 1e4 * 24**0.25
    assert f"bytes: {root / 1e3:.3g} kB" in next(t for t in titles if t.startswith("dense\n"))


def bars(plot):
    """Return the ends of the error bars by colour: upright lines of two points."""
    found = {}
    for tag, e in plot.all:
        style = e.get("style", "")
        if tag == "path" and "stroke-opacity:0.45" in style:
            points = np.array(re.findall(r"-?\d*\.?\d+", e.get("d")), float).reshape(-1, 2)
            colour = re.search("#[0-9a-f]{6}", style)[0]
            found.setdefault(colour, []).append(points)
    return found


def test_bars_are_the_standard_error_over_data_sets():
    frame = study(("dense", "IUNet"))
    for baseline in (None, "dense"):
        plot = Plot(accuracy_against_cost(frame, VALUE, baseline=baseline))
        value, pixel = plot.height()
        (points,) = bars(plot)[PALETTE[1]]
        means = frame.groupby(["arm", "rows.dataset"])[COLUMN].mean().unstack("arm") * 100
        shown = means["IUNet"] - (means["dense"] if baseline else 0)
        ends = sorted(value(points[:, 1]))
        assert ends == pytest.approx(
            [shown.mean() - shown.sem(), shown.mean() + shown.sem()], abs=1.5 * pixel
        )


def test_gains_on_a_baseline_are_those_of_the_statistics():
    frame = study()
    figure = accuracy_against_cost(frame, VALUE, baseline="dense")
    plot = Plot(figure)
    value, pixel = plot.height()
    assert value(plot.at("dense")[1]) == pytest.approx(0, abs=pixel)
    found = statistics.compare(
        frame, arm="omp", baseline="dense", value=COLUMN, dataset="rows.dataset", split="rows.split"
    )
    told = next(told for told, _, _ in plot.marks if told.startswith("omp\n"))
    assert f"{100 * found.difference:+.2f} ± {100 * found.standard_error:.2f} points" in told
    assert "gain on dense, paired by split," in figure.caption
    assert "balanced accuracy minus dense, points" in plot.words()


def test_families_follow_the_cells_and_differ_in_colour_and_shape():
    frame = study()
    assert arm_families(frame) == {
        "dense": "dense networks",
        "IUNet": "tickets",
        "omp": "tickets",
        "8 tickets": "ensembles",
        "xgboost": "other models",
    }
    plot = Plot(accuracy_against_cost(frame, VALUE))
    styles = {arm: plot.group(arm) for arm in frame["arm"].unique()}
    assert styles["IUNet"] == styles["omp"]
    assert len(set(styles.values())) == 4
    for family in scatter.FAMILIES:
        assert family in plot.words()
    named = Plot(accuracy_against_cost(frame, VALUE, families={"omp": "controls"}))
    assert "controls" in named.words()
    assert named.group("omp") != named.group("IUNet") == styles["IUNet"]
    few = Plot(accuracy_against_cost(frame[frame["arm"] == "xgboost"], VALUE))
    assert few.group("xgboost") == styles["xgboost"]
    assert "tickets" not in few.words()


def steps(plot):
    """Return the corners of the front: the one line of its opacity."""
    (path,) = [e for tag, e in plot.all if "stroke-opacity:0.55" in e.get("style", "")]
    return np.array(re.findall(r"-?\d*\.?\d+", path.get("d")), float).reshape(-1, 2)


def test_the_front_joins_what_no_cheaper_one_equals():
    frame = study(("a", "b", "c", "d"), splits=1)
    level = {"a": 0.70, "b": 0.80, "c": 0.75, "d": 0.80}  # each three times as dear as before
    frame[COLUMN] = frame["arm"].map(level) + 0.01 * frame["rows.dataset"].str[-1].astype(int)
    figure = accuracy_against_cost(frame, VALUE)
    assert "cheapest to dearest on the front: a, b." in figure.alt
    plot = Plot(figure)
    corners = steps(plot)
    assert corners[0] == pytest.approx(plot.at("a"), abs=0.4)
    assert corners[-1] == pytest.approx(plot.at("b"), abs=2.5)
    assert set(corners[:, 0]) <= {corners[0, 0], corners[-1, 0]}
    # a method that lacks a data set leads nowhere, however good
    frame.loc[frame["arm"] == "c", COLUMN] = 0.99
    frame = frame[~((frame["arm"] == "c") & (frame["rows.dataset"] == "set0"))]
    figure = accuracy_against_cost(frame, VALUE)
    assert "on the front: a, b." in figure.alt
    assert "Hollow, on fewer data sets and not on the steps: c." in figure.caption
    assert "stroke-width:1.5" in Plot(figure).group("c")
    assert "stroke-width:1.5" not in Plot(figure).group("b")


def test_methods_below_the_floor_stand_on_it_with_their_number():
    frame = study()
    frame.loc[frame["arm"] == "omp", COLUMN] = 0.2
    figure = accuracy_against_cost(frame, VALUE, floor=60.0)
    plot = Plot(figure)
    value, pixel = plot.height()
    assert value(plot.at("omp")[1]) == pytest.approx(60, abs=2 * pixel)
    assert "omp 20.0" in plot.words()
    assert "Below the axis, drawn on its floor: omp." in figure.caption
    assert "20.00" in next(told for told, _, _ in plot.marks if told.startswith("omp\n"))
    without = Plot(accuracy_against_cost(frame, VALUE))
    assert without.height()[0](without.at("omp")[1]) == pytest.approx(20, abs=1)
    low = Plot(accuracy_against_cost(frame, VALUE, baseline="dense", floor=-5.0))
    assert any(re.fullmatch(r"omp −\d\d\.\d", word) for word in low.words())


def test_what_has_no_cost_or_value_is_left_out_and_named():
    frame = study()
    frame.loc[frame["arm"] == "omp", "size.bytes"] = np.nan
    frame.loc[frame["arm"] == "IUNet", COLUMN] = np.nan
    frame.loc[frame["arm"] == "8 tickets", "size.bytes"] = 0.0
    figure = accuracy_against_cost(frame, VALUE)
    assert "left out: IUNet, omp, 8 tickets." in figure.caption
    assert {m[0].split("\n")[0] for m in Plot(figure).marks if "\n" in m[0]} == {"dense", "xgboost"}


def test_no_split_in_common_with_the_baseline_is_no_gain():
    frame = study(("dense", "IUNet", "omp"))
    frame = frame[~((frame["arm"] == "IUNet") & (frame["rows.split"] < 2))]
    frame = frame[~((frame["arm"] == "dense") & (frame["rows.split"] == 2))]
    figure = accuracy_against_cost(frame, VALUE, baseline="dense")
    assert "left out: IUNet." in figure.caption


@pytest.mark.parametrize(
    ("cost", "label", "title"),
    [
        ("size.bytes", "bytes", "against bytes"),
        ("predict_seconds", "milliseconds per 1,000 rows, one thread", "against latency"),
        (MOVED, MOVED, f"against {MOVED}"),
    ],
)
def test_costs_are_named_with_their_units(cost, label, title):
    figure = accuracy_against_cost(study(), VALUE, cost=cost)
    assert label in Plot(figure).words()
    assert figure.title == f"Balanced accuracy {title}"


def test_latency_is_in_milliseconds():
    plot = Plot(accuracy_against_cost(study(), VALUE, cost="predict_seconds"))
    told = next(told for told, _, _ in plot.marks if told.startswith("omp\n"))
    assert "one thread: 3\n" in told


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (lambda f: f.drop(columns="size.bytes"), {}, "it lacks size.bytes"),
        (lambda f: f, {"side": "validation"}, r"it lacks validation\.balanced_accuracy"),
        (lambda f: f, {"baseline": "no"}, "baseline must be an arm with values, .* got 'no'"),
        (lambda f: f.assign(**{"size.bytes": np.nan}), {}, "no arm has both"),
        (lambda f: f.assign(**{COLUMN: np.nan}), {}, "no arm has both"),
        (lambda f: pd.concat([f, f]), {}, "several configurations"),
    ],
)
def test_what_cannot_be_drawn_against_a_cost_is_refused(change, settings, message):
    with pytest.raises(InputError, match=message):
        accuracy_against_cost(change(study()), VALUE, **settings)


# ---- many ----------------------------------------------------------------------------------------


def crowded():
    """Thirty methods, most of the same size and nearly as good as each other."""
    rng = np.random.default_rng(3)
    frame = study([f"method {i}: {'a long name ' * (i % 3)}" for i in range(30)], splits=2)
    i = frame["arm"].str.extract(r"(\d+)")[0].astype(int)
    size = np.where(i < 18, 3e5, 2e6)
    base = 0.8 + 0.02 * frame["rows.dataset"].str[-1].astype(int)
    return frame.assign(
        **{"size.bytes": size, COLUMN: base + 0.001 * i + 0.002 * rng.standard_normal(len(i))}
    )


@pytest.mark.parametrize("baseline", [None, "method 0: "])
def test_thirty_names_can_all_be_read(baseline):
    figure = accuracy_against_cost(crowded(), VALUE, baseline=baseline)
    plot = Plot(figure)
    found = list(plot.text_boxes())
    assert sum(words.startswith("method") for words, *_ in found) == 30
    for i, (a, *p) in enumerate(found):
        for b, *q in found[:i]:
            meet = p[0] < q[1] and q[0] < p[1] and p[2] < q[3] and q[2] < p[3]
            assert not meet, (a, b)
    width, height = map(float, plot.root.get("viewBox").split()[2:])
    assert min(p[0] for _, *p in found) >= 0
    assert max(p[1] for _, *p in found) <= width
    assert min(p[2] for _, *p in found) >= 0
    assert max(p[3] for _, *p in found) <= height
    assert len(figure.svg) < 40_000


def test_five_hundred_cells_are_small_and_a_page_takes_them():
    frame = study([*(f"arm {i}" for i in range(13)), "dense"], datasets=4, splits=10)
    assert (frame[MOVED].notna()).sum() == 520
    figure = gain_against(frame, value=VALUE, logx=True)
    assert len([1 for told, *_ in Plot(figure).marks if "\n" in told]) == 520
    assert len(figure.svg) < 110_000
    many = accuracy_against_cost(crowded(), VALUE)
    page = render("t", [Section(title="s", blocks=[figure, many])])
    assert page.count("<title>") >= 520 + 30


def test_scatters_follow_the_theme_and_are_the_same_each_time():
    frame = study()
    for draw in (
        lambda: accuracy_against_cost(frame, VALUE, baseline="dense", floor=-1.0),
        lambda: gain_against(frame, value=VALUE, logx=True, floor=-1.0),
    ):
        figure = draw()
        assert figure == draw()
        assert re.findall(r"(?<!, )#[0-9a-f]{6}\b", figure.svg) == []
        assert figure.svg.count("http") == 1


NAME = "数据 κ $x$ <b> & “q”\x00"


def test_names_in_any_script_stay_as_they_are():
    frame = study().replace({"omp": NAME})
    for figure in (accuracy_against_cost(frame, VALUE), gain_against(frame, value=VALUE)):
        assert any("数据 κ $x$ <b> &" in word for word in Plot(figure).words())
        assert any(told.startswith("数据 κ $x$ <b> &") for told, *_ in Plot(figure).marks)


# ---- gains ---------------------------------------------------------------------------------------


def test_gains_are_paired_with_the_baseline_on_the_same_split():
    frame = study()
    figure = gain_against(frame, value=VALUE)
    plot = Plot(figure)
    value, pixel = plot.height()
    cells = frame.set_index(["arm", "rows.dataset", "rows.split"])
    seen = 0
    for told, (_, y), _ in plot.marks:
        if "\n" not in told:
            continue  # of the key
        arm, where, numbers = told.split("\n")
        dataset, split = where.split(", split ")
        cell, dense = (cells.loc[(name, dataset, int(split))] for name in (arm, "dense"))
        gain = 100 * (cell[COLUMN] - dense[COLUMN])
        assert value(y) == pytest.approx(gain, abs=2.5 * pixel)
        assert number(numbers.split(" points")[0]) == pytest.approx(gain, abs=0.006)
        assert float(numbers.rpartition(" ")[2]) == pytest.approx(cell[MOVED], rel=0.01)
        seen += 1
    assert seen == 3 * 4 * 3
    assert "left out: 12 cells." in figure.caption  # xgboost moves nothing


@pytest.mark.parametrize("logx", [False, True])
def test_the_lower_scale_is_level_or_logarithmic(logx):
    frame = study(("dense", "IUNet"), datasets=1, splits=4)
    frame.loc[frame["arm"] == "IUNet", MOVED] = [0.01, 0.1, 1.0, 10.0]
    plot = Plot(gain_against(frame, value=VALUE, logx=logx))
    across = sorted(x for told, (x, _), _ in plot.marks if "\n" in told)
    gaps = np.diff(across)
    if logx:
        assert gaps == pytest.approx(gaps[0], abs=0.3)
        assert {"0.01", "0.1", "1", "10"} <= set(plot.words())
    else:
        assert gaps[2] / gaps[1] == pytest.approx(10, rel=0.1)


def test_the_caption_holds_the_rank_correlation():
    frame = study()
    caption = gain_against(frame, value=VALUE).caption
    wide = frame.merge(
        frame[frame["arm"] == "dense"][["rows.dataset", "rows.split", COLUMN]],
        on=["rows.dataset", "rows.split"],
        suffixes=("", ".dense"),
    ).dropna(subset=MOVED)
    wide["gain"] = wide[COLUMN] - wide[f"{COLUMN}.dense"]
    found = statistics.rank_correlation(wide[MOVED], wide["gain"], wide["rows.dataset"])
    means = wide.groupby(["arm", "rows.dataset"])[[MOVED, "gain"]].mean().reset_index()
    fewer = statistics.rank_correlation(means[MOVED], means["gain"], means["rows.dataset"])
    rhos = [number(rho) for rho in re.findall(r"ρ = ([+−]\d\.\d\d)", caption)]
    assert rhos == pytest.approx([found.rho, fewer.rho], abs=0.0051)
    assert "over 36 cells" in caption
    assert "over 12 means of an arm on a data set" in caption
    assert f"(p = {found.p:.2g})" in caption
    once = gain_against(frame[frame["rows.split"] == 0], value=VALUE)
    assert once.caption.count("ρ") == 1
    assert once.alt.endswith(").")


def test_nothing_that_varies_is_no_correlation():
    frame = study(("dense", "IUNet"), splits=2).assign(**{MOVED: 1.0})
    assert "nothing varies" in gain_against(frame, value=VALUE).caption
    assert "nothing varies" in gain_against(frame, value=VALUE, logx=True).caption


def test_a_cell_of_several_arms_is_one():
    frame = study()
    twice = pd.concat([frame, frame[frame["arm"] == "omp"].assign(arm="best of 2")])
    assert gain_against(twice, value=VALUE) == gain_against(frame, value=VALUE)


def test_cells_below_the_floor_stand_on_it_and_count_as_they_are():
    frame = study()
    worse = (frame["arm"] == "omp") & (frame["rows.dataset"] == "set0")
    frame.loc[worse, COLUMN] -= 0.3
    plain, floored = (gain_against(frame, value=VALUE, floor=floor) for floor in (None, -5.0))
    assert "drawn on its floor: 3 cells." in floored.caption
    assert floored.alt == plain.alt  # the statistic
    plot = Plot(floored)
    value, pixel = plot.height()
    low = [y for told, (_, y), _ in plot.marks if told.startswith("omp\nset0")]
    assert value(np.array(low)) == pytest.approx(-5, abs=2.5 * pixel)


def test_arms_of_a_family_share_a_look():
    frame = study()
    plot = Plot(gain_against(frame, value=VALUE, families={"IUNet": "tickets", "omp": "tickets"}))
    key = [told for told, *_ in plot.marks if "\n" not in told]
    assert key == ["tickets", "8 tickets"]
    groups = {told.split("\n")[0]: g for told, _, g in plot.marks if "\n" in told}
    assert groups["IUNet"] is groups["omp"] is not groups["8 tickets"]


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (lambda f: f.drop(columns=MOVED), {}, f"it lacks {MOVED}"),
        (lambda f: f, {"baseline": "no"}, "baseline must be one of dense, .* got 'no'"),
        (lambda f: pd.concat([f, f]), {}, "'dense' has several configurations on one split;"),
        (lambda f: f.assign(**{MOVED: np.nan}), {}, "no arm beside 'dense' has"),
        (lambda f: f.assign(**{MOVED: -1.0}), {"logx": True}, "above 0 and a split"),
        (lambda f: f.assign(**{MOVED: "far"}), {}, f"{MOVED} must be numbers"),
        (lambda f: f[f["arm"] == "dense"], {}, "no arm beside 'dense'"),
    ],
)
def test_gains_that_cannot_be_drawn_are_refused(change, settings, message):
    with pytest.raises(InputError, match=message) as raised:
        gain_against(change(study()), value=VALUE, **settings)
    assert "\n" not in str(raised.value)


# ---- marks ---------------------------------------------------------------------------------------


def area(mark):
    if mark.tag.endswith("circle"):
        return np.pi * float(mark.get("r")) ** 2
    x, y = np.array(re.findall(r"-?\d*\.?\d+", mark.get("d")), float).reshape(-1, 2).T
    return abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2


def test_marks_are_about_equally_large_and_say_what_they_are():
    sizes = {}
    for shape in drawing.SHAPES:
        (mark,) = drawing.marks([(50, 60, "a < b\x00")], shape, PALETTE[0], radius=10)
        assert middle(mark) == pytest.approx((50, 60), abs=3)
        assert mark[0].text == "a < b\N{REPLACEMENT CHARACTER}"
        sizes[shape] = area(mark)
    for a, b in pairwise(sorted(sizes.values())):
        assert b / a < 1.5
    assert max(sizes.values()) / min(sizes.values()) < 2


def test_colours_and_shapes_tell_many_arms_apart():
    looks = {
        (PALETTE[i % len(PALETTE)], drawing.SHAPES[i % len(drawing.SHAPES)]) for i in range(42)
    }
    assert len(looks) == 42
