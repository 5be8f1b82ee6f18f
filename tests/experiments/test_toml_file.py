import pytest

from secateurs import criteria
from secateurs.errors import InputError
from secateurs.experiments.spec import key
from secateurs.experiments.toml_file import read_toml

TOML = """
widths = [16, 16]
[rows]
dataset = "sklearn:wine"
[config.search]
epochs = 3
[grid]
rows.split = [0, 1]
config.compression = [2, 8.0]
[arms.IUNet]
config.search.contrastive_weight = 1.0
[arms.OMP]
config.init_scale = 1.0
"""


@pytest.fixture
def toml(tmp_path):
    path = tmp_path / "spec.toml"
    path.write_text(TOML)
    return path


def test_a_file_is_the_product_of_its_grid_and_its_arms(toml):
    runs = read_toml(toml)
    assert [run.arm for run in runs] == ["IUNet"] * 4 + ["OMP"] * 4
    points = [(run.cell.rows.split, run.cell.config.compression) for run in runs[:4]]
    assert points == [(0, 2), (0, 8), (1, 2), (1, 8)]
    assert runs[0].cell.config.search.contrastive_weight == 1
    assert runs[4].cell.config.init_scale == 1
    assert all(run.cell.config.search.epochs == 3 for run in runs)
    assert len({key(run.cell) for run in runs}) == 8


def test_settings_replace_what_the_file_says(toml):
    settings = {"grid.rows.split": [7], "config.finetune.optimizer.lr": 0.5, "seed": 3}
    runs = read_toml(toml, settings)
    assert len(runs) == 4
    assert {run.cell.rows.split for run in runs} == {7}
    assert {run.cell.config.finetune.optimizer.lr for run in runs} == {0.5}
    assert {run.cell.seed for run in runs} == {3}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"config.sarch.epochs": 3}, "unknown name 'sarch'; did you mean 'search'"),
        ({"config.search.epochs": "3"}, "config.search.epochs must be an integer, got '3'"),
        ({"grid.rows.split": 3}, "grid.rows.split must be a list of at least one value, got 3"),
        ({"grid.rows.split": []}, "grid.rows.split must be a list"),
        ({"widths.a": 3}, r"widths.a cannot be set: widths is \[16, 16\]"),
        ({"arms.IUNet": 3}, "arms.IUNet must be a table of names, got 3"),
    ],
)
def test_wrong_settings_are_refused_by_their_dotted_name(toml, settings, message):
    with pytest.raises(InputError, match=message):
        read_toml(toml, settings)


def test_a_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_toml(tmp_path / "no.toml")
    (tmp_path / "bad.toml").write_text("a = ")
    with pytest.raises(InputError, match="must be TOML"):
        read_toml(tmp_path / "bad.toml")


def test_without_arms_the_file_names_the_line(tmp_path):
    path = tmp_path / "dense.toml"
    path.write_text('[rows]\ndataset = "a"\n[config]\ncompression = 1')
    (run,) = read_toml(path)
    assert run.arm == "dense"


def test_a_file_may_ask_for_images(tmp_path):
    path = tmp_path / "images.toml"
    path.write_text("""
network = "lenet_300_100"
widths = [30, 10]
rows = {kind = "ImageRows", dataset = "sklearn:digits", n_validation = 100}
[config]
only = ["*"]
[config.search]
epochs = 0
[config.finetune]
steps = 50
[grid]
rows.n_train = [100, 200]
config.compression = [2, 8]
[arms.SNIP]
config.criterion = "snip"
[arms.GraSP]
config.criterion = {name = "grasp", temperature = 100}
config.scored_rows = 250
[arms.SynFlow]
config.criterion = "synflow"
config.schedule = {name = "exponential", rounds = 100}
""")
    runs = read_toml(path)
    assert len(runs) == 3 * 4
    assert {run.cell.rows.n_train for run in runs} == {100, 200}
    by_arm = {run.arm: run.cell.config for run in runs}
    assert by_arm["SNIP"].criterion is criteria.snip
    assert by_arm["GraSP"].criterion.func is criteria.grasp
    assert by_arm["GraSP"].criterion.keywords == {"temperature": 100.0}
    assert len(by_arm["SynFlow"].schedule(0.5)) == 100
    assert len({key(run.cell) for run in runs}) == 12
    assert all(run.cell.config.finetune.steps == 50 for run in runs)
