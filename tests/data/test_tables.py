import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from secateurs.data import tables
from secateurs.data.tables import BUNDLED, SUFFIXES, Table, dump_table, read_table, split_target
from secateurs.errors import InputError

FRAME = pd.DataFrame(
    {
        "number": [1.5, None, -3.0],
        "whole": [1, 2, 3],
        "flag": [True, False, True],
        "word": ["x", None, 'ü,\n"y"'],
    }
)


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".CSV", ".Parquet", ".FEATHER", ".csv.GZ"])
def test_what_is_written_is_read(tmp_path, suffix):
    path = tmp_path / f"my.table{suffix}"
    dump_table(FRAME.set_axis([7, 3, 5]), path)
    table = read_table(path)
    pd.testing.assert_frame_equal(table.frame, FRAME)
    assert (table.name, table.target) == ("my.table", None)
    pd.testing.assert_frame_equal(read_table(str(path)).frame, FRAME)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_writing_twice_gives_the_same_bytes(tmp_path):
    for suffix in SUFFIXES:
        dump_table(FRAME, tmp_path / f"a{suffix}")
        dump_table(FRAME, tmp_path / f"b{suffix}")
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_categories_survive_parquet_and_feather(tmp_path):
    frame = pd.DataFrame({"c": pd.Categorical(["a", None], categories=["b", "a"])})
    for suffix in (".parquet", ".feather"):
        dump_table(frame, tmp_path / f"t{suffix}")
        pd.testing.assert_frame_equal(read_table(tmp_path / f"t{suffix}").frame, frame)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"a,b\n1,x\n", {"a": [1], "b": ["x"]}),
        (b"\xef\xbb\xbfa,b\r\n1,x\r\n", {"a": [1], "b": ["x"]}),
        (b"\n\na,b\n1,x", {"a": [1], "b": ["x"]}),
        (b"a;b\n1;x,y\n", {"a": [1], "b": ["x,y"]}),
        (b"a\tb\n1\tx\n", {"a": [1], "b": ["x"]}),
        (b'"a,b"\n1\n', {"a,b": [1]}),
        (b'"a\nb",c\n1,2\n', {"a\nb": [1], "c": [2]}),
        (b"a\n1\n2.5\n", {"a": [1, 2.5]}),
    ],
)
def test_csv_dialects(tmp_path, text, expected):
    path = tmp_path / "t.csv"
    path.write_bytes(text)
    assert read_table(path).frame.to_dict("list") == expected


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_sets(name):
    table = read_table(f"sklearn:{name}")
    assert (table.name, table.target) == (name, "target")
    X, y = split_target(table)
    assert len(X) == len(y) > 100
    assert X.shape[1] == BUNDLED[name]().data.shape[1]


def test_a_user_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    dump_table(FRAME, tmp_path / "t.csv")
    assert len(read_table("~/t.csv").frame) == 3


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nowhere.csv", "no such file: 'nowhere.csv'"),
        ("nowhere/else.parquet", "no such file"),
        ("table.xlsx", r"\.csv, \.csv\.gz, \.feather, \.parquet.*sklearn:NAME.*openml:TASK_ID"),
        ("table", "'table' must be a table of the data root .*set SECATEURS_DATA"),
        (".csv", "got '.csv'"),
        ("", "got '.'"),
        ("a\0b.csv", "null"),
        ("a" * 5000 + ".csv", "cannot be read"),
        ("sklearn:irises", "breast_cancer, diabetes, digits, iris, wine, got 'irises'"),
        ("sklearn:", "got ''"),
        ("openml:", "positive number, got 'openml:'"),
        ("openml:adult", "positive number"),
        ("openml:-1", "positive number"),
        ("openml:0", "positive number"),
        ("openml:1.5", "positive number"),
        ("openml:²", "positive number"),
        ("openml: 3", "positive number"),
    ],
)
def test_bad_sources(source, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refuse(source, words)


def refuse(source, words):
    with pytest.raises(InputError, match=words) as caught:
        read_table(source)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


JUNK = np.random.default_rng(0).bytes(3000)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.parquet", JUNK, "cannot be read as .parquet"),
        ("t.feather", JUNK, "cannot be read as .feather"),
        ("t.csv", JUNK, "null bytes"),
        ("t.csv.gz", JUNK, "cannot be read as .csv.gz"),
        ("t.csv", JUNK.replace(b"\0", b""), "cannot be read as .csv"),
        ("t.csv", b"a,b\n1,caf\xe9\n", "cannot be read as .csv .*utf-8"),
        ("t.parquet", b"PAR1" + JUNK + b"PAR1", "cannot be read as .parquet"),
        ("t.parquet", b"a,b\n1,2\n", "cannot be read as .parquet"),
        ("t.parquet", b"", "cannot be read as .parquet"),
        ("t.feather", b"", "cannot be read as .feather"),
        ("t.csv", b"", "empty file"),
        ("t.csv.gz", b"", "empty file"),
        ("t.csv", b"\n \n\n", "empty file"),
        ("t.csv", b"a,b\n", "0 rows and 2 columns"),
        ("t.csv", b"a,a\n1,2\n", "'a' twice"),
        ("t.csv", b"a;a\n1;2\n", "'a' twice"),
        ("t.csv", b",a\n0,1\n", "none for column 1.*index=False"),
        ("t.csv", b"a,b,\n0,1,2\n", "none for column 3"),
        ("t.csv", b"a,b\n1,2,3\n4,5,6\n", "more values than the header"),
        ("t.csv", b"a,b\n1,2\n1,2,3\n", "line 3"),
        ("t.csv", b'a,b\n1,"2\n', "cannot be read"),
    ],
)
def test_bad_files(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    refuse(path, words)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_truncated_files(tmp_path, suffix):
    path = tmp_path / f"t{suffix}"
    rng = np.random.default_rng(0)
    dump_table(pd.DataFrame({"a": rng.normal(size=2000), "b": "word"}), path)
    content = path.read_bytes()
    for share in (0.1, 0.5, 0.99):
        path.write_bytes(content[: int(len(content) * share)])
        if suffix == ".csv":  # a shorter text is a valid one
            assert len(read_table(path).frame) < 2000
        else:
            refuse(path, "cannot be read")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_directory_is_no_table(tmp_path, suffix):
    (tmp_path / f"t{suffix}").mkdir()
    refuse(tmp_path / f"t{suffix}", "directory")
    with pytest.raises(InputError, match="directory"):
        dump_table(FRAME, tmp_path / f"t{suffix}")


@pytest.mark.parametrize(
    ("write", "suffix"),
    [(pyarrow.parquet.write_table, ".parquet"), (pyarrow.feather.write_feather, ".feather")],
)
def test_arrow_files_without_rows_columns_or_unique_names(tmp_path, write, suffix):
    path = tmp_path / f"t{suffix}"
    write(pa.table({"a": pa.array([], pa.int8())}), path)
    refuse(path, "0 rows and 1 columns")
    write(pa.table({}), path)
    refuse(path, "0 rows and 0 columns")
    if suffix == ".parquet":
        write(pa.table([[1], [2]], names=["a", "a"]), path)
        refuse(path, "'a' twice")


def test_unreadable(tmp_path):
    # Reading this pseudo-file fails for everyone, root included.
    link = tmp_path / "t.csv"
    link.symlink_to("/proc/self/mem")
    if not link.exists():
        pytest.skip("needs /proc")
    refuse(link, "cannot be read")


def test_split_target():
    frame = pd.DataFrame({"a": [1, 2], "y": ["p", "q"], "b": [3, 4]})
    X, y = split_target(frame, "y")
    assert X.columns.tolist() == ["a", "b"]
    assert y.tolist() == ["p", "q"]
    table = Table(frame=frame, name="t", target="b")
    assert split_target(table)[1].tolist() == [3, 4]
    assert split_target(table, "a")[1].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("frame", "target", "words"),
    [
        (FRAME, None, "must be named; columns are 'number', 'whole', 'flag', 'word'"),
        (FRAME, "numbr", "got 'numbr'; near names are 'number'"),
        (FRAME, "WHOLE", "near names are 'whole'"),
        (FRAME, "zzz", "columns are 'number'"),
        (FRAME, "", "got ''"),
        (FRAME, "number", "1 of 3 values missing in 'number'"),
        (FRAME[["whole"]], "whole", "features beside the target 'whole'"),
        (pd.DataFrame([[1, 2, 3]], columns=["a", "a", "b"]), "a", "'a' twice"),
        (pd.DataFrame(0, [0], [f"c{i}" for i in range(50)]), "target", "and 42 more"),
    ],
)
def test_bad_targets(frame, target, words):
    with pytest.raises(InputError, match=words) as caught:
        split_target(frame, target)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=words):
        split_target(Table(frame=frame, name="t", target=target))


@pytest.mark.parametrize(
    ("frame", "path", "words"),
    [
        (FRAME, "t.xlsx", "got .*t.xlsx"),
        (FRAME, "absent/t.csv", "cannot be written.*No such file"),
        (FRAME, "file.csv/t.csv", "cannot be written"),
        (FRAME, "a\0.csv", "cannot be written"),
        (pd.DataFrame({"a": [1, "x", [2]]}), "t.parquet", "cannot be written"),
        (pd.DataFrame({"a": [1, "x", [2]]}), "t.feather", "cannot be written"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "t.csv", "'a' twice"),
    ],
)
def test_bad_dumps(tmp_path, frame, path, words):
    (tmp_path / "file.csv").write_text("old")
    with pytest.raises(InputError, match=words) as caught:
        dump_table(frame, tmp_path / path)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["file.csv"]
    with pytest.raises(InputError, match="cannot be written"):
        dump_table(FRAME, "/proc/t.csv")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_leaves_the_old_file(tmp_path, suffix):
    resource = pytest.importorskip("resource", reason="needs limits on file sizes")
    path = tmp_path / f"t{suffix}"
    dump_table(FRAME, path)
    old = path.read_bytes()
    large = pd.DataFrame(np.random.default_rng(0).normal(size=(20_000, 2)), columns=["a", "b"])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(InputError, match=r"cannot be written.*large"):
            dump_table(large, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_an_interrupt_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "t.csv"
    dump_table(FRAME, path)
    old = path.read_bytes()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tables, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        dump_table(FRAME, path)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


# What the openml client keeps of one task, in its own format: see its functions
# `_get_task_description`, `_get_dataset_description`, `_get_dataset_features_file`,
# `_get_dataset_arff` and `_get_dataset_parquet`.
TASK = """\
<oml:task xmlns:oml="http://openml.org/openml">
  <oml:task_id>987654</oml:task_id>
  <oml:task_name>Task 987654 (Supervised Classification)</oml:task_name>
  <oml:task_type_id>1</oml:task_type_id>
  <oml:task_type>Supervised Classification</oml:task_type>
  <oml:input name="source_data">
    <oml:data_set>
      <oml:data_set_id>876543</oml:data_set_id>
      <oml:target_feature>ripe</oml:target_feature>
    </oml:data_set>
  </oml:input>
  <oml:input name="estimation_procedure">
    <oml:estimation_procedure>
      <oml:id>1</oml:id>
      <oml:type>crossvalidation</oml:type>
      <oml:data_splits_url>https://example.invalid/splits.arff</oml:data_splits_url>
      <oml:parameter name="number_repeats">1</oml:parameter>
      <oml:parameter name="number_folds">10</oml:parameter>
      <oml:parameter name="stratified_sampling">true</oml:parameter>
    </oml:estimation_procedure>
  </oml:input>
  <oml:input name="evaluation_measures">
    <oml:evaluation_measures><oml:evaluation_measure/></oml:evaluation_measures>
  </oml:input>
</oml:task>
"""
DESCRIPTION = """\
<oml:data_set_description xmlns:oml="http://openml.org/openml">
  <oml:id>876543</oml:id>
  <oml:name>pears</oml:name>
  <oml:version>1</oml:version>
  <oml:description>Pears.</oml:description>
  <oml:format>ARFF</oml:format>
  <oml:licence>Public</oml:licence>
  <oml:url>https://example.invalid/pears.arff</oml:url>
  {parquet}
  <oml:default_target_attribute>weight</oml:default_target_attribute>
  <oml:row_id_attribute>id</oml:row_id_attribute>
  <oml:status>active</oml:status>
</oml:data_set_description>
"""
PARQUET_URL = (
    "<oml:parquet_url>https://example.invalid/datasets/dataset_876543.pq</oml:parquet_url>"
)
FEATURE = """\
  <oml:feature>
    <oml:index>{index}</oml:index>
    <oml:name>{name}</oml:name>
    <oml:data_type>{kind}</oml:data_type>
{values}
    <oml:is_target>false</oml:is_target>
    <oml:is_ignore>false</oml:is_ignore>
    <oml:is_row_identifier>false</oml:is_row_identifier>
    <oml:number_of_missing_values>{missing}</oml:number_of_missing_values>
  </oml:feature>
"""
FEATURES = [
    ("id", "numeric", [], 0),
    ("weight", "numeric", [], 1),
    ("colour", "nominal", ["green", "yellow"], 1),
    ("grade", "nominal", ["1", "2"], 0),
    ("ripe", "nominal", ["no", "yes"], 0),
]
ARFF = """\
@RELATION pears
@ATTRIBUTE id INTEGER
@ATTRIBUTE weight REAL
@ATTRIBUTE colour {green,yellow}
@ATTRIBUTE grade {1,2}
@ATTRIBUTE ripe {no,yes}
@DATA
1,150.5,green,1,no
2,?,yellow,2,yes
3,170.25,?,2,yes
"""


def fill_cache(root, *, parquet):
    server = root / "org" / "openml" / "www"
    task, dataset = server / "tasks" / "987654", server / "datasets" / "876543"
    task.mkdir(parents=True)
    dataset.mkdir(parents=True)
    (task / "task.xml").write_text(TASK)
    (dataset / "description.xml").write_text(
        DESCRIPTION.format(parquet=PARQUET_URL if parquet else "")
    )
    features = "".join(
        FEATURE.format(
            index=index,
            name=name,
            kind=kind,
            missing=missing,
            values="".join(f"<oml:nominal_value>{v}</oml:nominal_value>" for v in values),
        )
        for index, (name, kind, values, missing) in enumerate(FEATURES)
    )
    (dataset / "features.xml").write_text(
        '<oml:data_features xmlns:oml="http://openml.org/openml">\n'
        f"{features}</oml:data_features>\n"
    )
    if parquet:
        pd.DataFrame(
            {
                "id": [1, 2, 3],
                "weight": [150.5, None, 170.25],
                "colour": pd.Categorical(["green", "yellow", None]),
                "grade": [1, 2, 2],  # as some copies have it: the description knows better
                "ripe": pd.Categorical(["no", "yes", "yes"]),
            }
        ).to_parquet(dataset / "dataset_876543.pq")
    else:
        (dataset / "dataset.arff").write_text(ARFF)


@pytest.fixture
def openml_cache(tmp_path, monkeypatch):
    """Point the client at an empty cache and at a server that refuses every connection."""
    openml = pytest.importorskip("openml", reason="needs the openml client")
    monkeypatch.setattr(openml.config, "_root_cache_directory", tmp_path)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)

    def refuse_connection(*_, **__):
        import requests

        raise requests.exceptions.ConnectionError("offline\nin this test")

    monkeypatch.setattr("requests.Session.get", refuse_connection)
    return tmp_path


@pytest.mark.parametrize("parquet", [False, True], ids=["arff", "parquet"])
def test_openml_task_from_the_clients_cache(openml_cache, parquet):
    fill_cache(openml_cache, parquet=parquet)
    for _ in range(2):  # the second time from what the client derived in the first
        table = read_table("openml:987654")
        assert (table.name, table.target) == ("pears", "ripe")  # the task's, not the data set's
        frame = table.frame
        assert frame.columns.tolist() == ["weight", "colour", "grade", "ripe"]  # no row id
        np.testing.assert_array_equal(frame["weight"], [150.5, np.nan, 170.25])
        for name, values in (
            ("colour", ["green", "yellow", None]),
            ("grade", ["1", "2", "2"]),
            ("ripe", ["no", "yes", "yes"]),
        ):
            assert isinstance(frame[name].dtype, pd.CategoricalDtype)
            assert [None if pd.isna(v) else str(v) for v in frame[name]] == values
        X, y = split_target(table)
        assert X.shape == (3, 3)
        assert y.tolist() == ["no", "yes", "yes"]


def test_openml_without_a_connection(openml_cache):
    import openml

    retries = openml.config.connection_n_retries
    refuse("openml:987654", "task 987654 is neither complete in the cache .*connect to the network")
    assert openml.config.connection_n_retries == retries


def test_openml_with_a_damaged_cache(openml_cache):
    fill_cache(openml_cache, parquet=False)
    (openml_cache / "org/openml/www/datasets/876543/dataset.arff").write_text("@DATA\njunk")
    refuse("openml:987654", "task 987654")


def test_openml_client_absent():
    code = textwrap.dedent("""
        import sys
        sys.modules["openml"] = None
        from secateurs.data.tables import read_table
        try:
            read_table("openml:31")
        except ValueError as err:
            print(err)
        read_table("sklearn:iris")
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "openml:31 needs the openml client" in done.stdout
    assert "pip install secateurs[tabular]" in done.stdout
    assert done.stdout.count("\n") == 1


def test_a_table_of_the_data_root_has_a_name(tmp_path, monkeypatch):
    monkeypatch.setenv("SECATEURS_DATA", str(tmp_path / "root"))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "root" / "tabular"
    folder.mkdir(parents=True)
    pd.DataFrame({"a": [1, 2]}).to_parquet(folder / "toy-1.0.parquet")
    assert read_table("toy-1.0").frame["a"].tolist() == [1, 2]
    assert read_table("toy-1.0").name == "toy-1.0"
    with pytest.raises(InputError, match="tables are"):
        read_table("toy-2.0")
    with pytest.raises(InputError, match="tables are"):
        read_table("../tabular/toy-1.0")
