"""The command `secateurs`: fit, predict, evaluate and list, on files.

Exit codes: 0 done, 2 wrong use or bad input (one line on stderr), 130 interrupted, 1 a bug.
What is slow to import is imported inside the verbs, so that help comes at once.
"""

import argparse
import contextlib
import difflib
import hashlib
import json
import os
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from secateurs import __version__
from secateurs.errors import CollapseWarning, InputError, TimeLimitWarning

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from secateurs.comparison import Comparison
    from secateurs.estimator import TicketClassifier, TicketRegressor

    Model: TypeAlias = TicketClassifier | TicketRegressor
    _Series: TypeAlias = pd.Series[Any]

__all__ = [
    "DATA_HELP",
    "MAX_CLASSES",
    "MIN_ROWS_PER_CLASS",
    "NOT_SETTINGS",
    "TASKS",
    "TOPICS",
    "build_parser",
    "choose_task",
    "main",
]

TASKS = ("auto", "classification", "regression")
TOPICS = ("networks", "criteria", "objectives", "measures", "datasets")

MAX_CLASSES = 20
MIN_ROWS_PER_CLASS = 5
"""Whole numbers are taken for classes up to so many values, each in so many rows on average."""

NOT_SETTINGS = ("checkpoint_dir", "device", "verbose")
"""Parameters that an interrupted fit may change when it continues."""

DATA_HELP = ".parquet, .csv or .feather file, sklearn:NAME or openml:TASK_ID"


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; its `parse_args` raises InputError on wrong use.

    >>> build_parser().parse_args(["fit", "a.csv", "--target", "y", "--out", "m"]).target
    'y'
    """
    parser = _Parser(
        prog="secateurs",
        description="Train wide, prune to the structure, ship something really smaller.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"secateurs {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    fit = verbs.add_parser(
        "fit",
        help="find a ticket for a table and write it as a model folder",
        description="Find a ticket for a table and write it as a model folder. If it is "
        "interrupted, the same command continues.",
        allow_abbrev=False,
    )
    fit.add_argument("data", metavar="DATA", help=DATA_HELP)
    fit.add_argument("--target", metavar="COLUMN", help="what to predict (known for sklearn:NAME)")
    fit.add_argument("--out", metavar="DIR", type=Path, required=True, help="model folder to write")
    fit.add_argument(
        "--set",
        metavar="NAME=JSON",
        action="append",
        default=[],
        help="a parameter of TicketClassifier or TicketRegressor, as in compression=16; repeatable",
    )
    fit.add_argument(
        "--compare",
        action="store_true",
        help="first hold out a fifth of the rows and measure simpler models there, too",
    )
    fit.add_argument("--task", choices=TASKS, default="auto", help="by default the target decides")
    fit.add_argument("--overwrite", action="store_true", help="replace the model at DIR")
    fit.add_argument("--quiet", action="store_true", help="print the comparison and warnings only")
    fit.set_defaults(run=_fit)

    predict = verbs.add_parser(
        "predict",
        help="write predictions for the rows of a table",
        description="Write predictions for the rows of a table: a column `prediction` and, for "
        "classes, a column `proba_CLASS` for each.",
        allow_abbrev=False,
    )
    predict.add_argument("model", metavar="MODEL", type=Path, help="model folder")
    predict.add_argument("data", metavar="DATA", help=DATA_HELP)
    predict.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        required=True,
        help=".parquet, .csv or .feather to write",
    )
    predict.set_defaults(run=_predict)

    evaluate = verbs.add_parser(
        "evaluate",
        help="measure a model on a table with known targets",
        description="Measure a model on a table with known targets.",
        allow_abbrev=False,
    )
    evaluate.add_argument("model", metavar="MODEL", type=Path, help="model folder")
    evaluate.add_argument("data", metavar="DATA", help=DATA_HELP)
    evaluate.add_argument("--target", metavar="COLUMN", help="by default the one that was fitted")
    evaluate.add_argument("--json", action="store_true", help="print one JSON object")
    evaluate.set_defaults(run=_evaluate)

    listing = verbs.add_parser(
        "list",
        help="say what there is, by name",
        description="Say what there is, by name.",
        allow_abbrev=False,
    )
    listing.add_argument("topic", nargs="?", choices=TOPICS, help="everything by default")
    listing.set_defaults(run=_list)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    Args:
        argv: the words after `secateurs`; None takes those of this process.

    Raises:
        Exception: a bug; bad input is told in one line on stderr and gives 2.

    >>> code = main(["--version"])
    secateurs 0.1.0
    >>> code
    0
    """
    # Spinning OpenMP threads on shared cores cost far more than they win. Before torch comes in.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    words = sys.argv[1:] if argv is None else argv
    try:
        with _terminable(), _warnings_in_one_line():
            args = build_parser().parse_args(words)
            run: Callable[[argparse.Namespace], None] = args.run
            run(args)
            sys.stdout.flush()
    except SystemExit as end:  # help and version
        return int(end.code or 0)
    except KeyboardInterrupt:
        fitting = list(words[:1]) == ["fit"]
        _tell("interrupted" + ("; run the same command to continue" if fitting else ""))
        return 130
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as err:  # InputError, scikit-learn's checks, and the disk
        _tell(f"error: {_one_line(err)}")
        return 2
    return 0


def _tell(message: str) -> None:
    print(f"secateurs: {message}", file=sys.stderr, flush=True)


def _one_line(error: BaseException | str) -> str:
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the command like Ctrl-C."""

    def interrupt(_signal: int, _frame: object) -> NoReturn:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    def show(message: Warning | str, *_: object, **__: object) -> None:
        _tell(f"warning: {_one_line(str(message))}")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what libraries tell developers
        warnings.simplefilter("default", UserWarning)
        warnings.simplefilter("always", CollapseWarning)
        warnings.simplefilter("always", TimeLimitWarning)
        warnings.showwarning = show
        yield


# --- fit -------------------------------------------------------------------------------------


def _fit(args: argparse.Namespace) -> None:
    given = _settings(args.set)
    out: Path = args.out if args.out.name not in ("", "..") else args.out.resolve()
    if out.is_dir() and any(out.iterdir()) and not args.overwrite:
        raise InputError(
            f"{out} exists; pass --overwrite to replace the model there, or another --out"
        )

    from secateurs.data.tables import read_table, split_target
    from secateurs.estimator import TicketClassifier, TicketRegressor

    kinds: dict[str, type[Model]] = {
        "classification": TicketClassifier,
        "regression": TicketRegressor,
    }
    asked = list(kinds.values()) if args.task == "auto" else [kinds[args.task]]
    _check_names(given, asked)
    table = read_table(args.data)
    X, series = split_target(table, args.target)
    _refuse_dates(series)
    if args.task == "auto":
        task, reason = choose_task(series)
    else:
        task, reason = args.task, "as asked"
    kind = kinds[task]
    _check_names(given, [kind])
    y = _values(series)
    if task == "classification":
        _check_classes(y)
    if isinstance(given.get("class_weight"), dict):
        given["class_weight"] = _by_class(given["class_weight"], y)
    estimator = kind(**{"random_state": 0, "verbose": int(not args.quiet), **given})

    def say(line: str) -> None:
        if not args.quiet:
            print(line, flush=True)

    identity = _identity(X, y, estimator)
    with _workspace(out, identity) as (partial, continues):
        say(f"task: {task}, {reason}")
        if continues:
            say(f"continuing from {partial}")
        if estimator.checkpoint_dir is None:
            estimator.set_params(checkpoint_dir=partial / "model")
        compared = _compare(estimator, X, y, partial, quiet=args.quiet) if args.compare else None
        if compared is not None:
            say(f"fitting the model to ship on all {len(X):,} rows")
        estimator.fit(X, y)
        estimator.summary_ |= {"data": table.name, "target": str(series.name)}
        # Where it was trained is nobody's business after that.
        estimator.set_params(checkpoint_dir=None, verbose=0)
        size = _ship(estimator, out, partial, compared)
    if not args.quiet:
        _say_what_came_out(estimator, out, size)


def _settings(texts: Sequence[str]) -> dict[str, Any]:
    """Return `--set` as a dict: JSON values, or the bare string where it is not JSON."""
    given: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InputError(f"--set takes NAME=JSON, such as compression=16, got {text!r}")
        if name in given:
            raise InputError(f"--set takes every parameter once, got {name!r} twice")
        try:
            given[name] = json.loads(value)
        except ValueError:
            given[name] = value
    return given


def _check_names(given: Collection[str], kinds: Sequence[type]) -> None:
    known: list[str] = list(dict.fromkeys(n for kind in kinds for n in kind._get_param_names()))  # type: ignore[attr-defined]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            title = " and ".join(kind.__name__ for kind in kinds)
            raise InputError(
                f"unknown parameter {name!r}; {hint}{title} take{'s' * (len(kinds) == 1)} "
                f"{', '.join(sorted(known))}"
            )


def _refuse_dates(y: "_Series") -> None:
    import pandas as pd

    kind = pd.api.types.infer_dtype(y, skipna=True)
    if kind.startswith(("date", "time", "period", "interval")):
        raise InputError(
            f"the target must be labels or numbers, got {kind} values in {str(y.name)!r}; turn "
            "them into numbers, such as days"
        )


def choose_task(y: "_Series") -> tuple[str, str]:
    """Return "classification" or "regression", and why.

    Numbers mean regression, unless they are whole with at most 20 distinct values that occur in
    5 rows each on the average. Everything else means classes.

    >>> import pandas as pd
    >>> choose_task(pd.Series(["yes", "no"], name="paid"))
    ('classification', "because the target 'paid' is no number")
    >>> choose_task(pd.Series([0.5, 1.0], name="dose"))[0]
    'regression'
    """
    import numpy as np
    import pandas as pd

    name = f"the target {str(y.name)!r}"
    kind = pd.api.types.infer_dtype(y, skipna=True)
    if kind not in ("integer", "floating", "mixed-integer-float", "decimal"):
        return "classification", f"because {name} is no number"
    numbers = np.asarray(y, dtype=np.float64)
    if not (numbers == np.round(numbers)).all():
        return "regression", f"because {name} has numbers with fractions"
    n = len(np.unique(numbers))
    few = n <= MAX_CLASSES and n * MIN_ROWS_PER_CLASS <= len(numbers)
    count = f"{n:,} distinct whole number{'s' * (n != 1)} in {len(numbers):,} rows"
    other = "regression" if few else "classification"
    return (
        "classification" if few else "regression",
        f"because {name} has {count} (--task {other} otherwise)",
    )


def _values(y: "_Series") -> "NDArray[Any]":
    """Return a target column as NumPy labels or numbers, whatever backed it."""
    import numpy as np
    import pandas as pd

    plain: NDArray[Any] = pd.Series(np.asarray(y)).infer_objects().to_numpy()
    return plain


def _check_classes(y: "NDArray[Any]") -> None:
    """Refuse numbers with fractions, and classes of which one row can teach nothing."""
    import pandas as pd
    from sklearn.utils.multiclass import check_classification_targets

    from secateurs.data.tables import check_classes

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # many classes may be meant
        check_classification_targets(y)
    check_classes(pd.Series(y))


def _by_class(weights: Mapping[str, Any], y: "NDArray[Any]") -> dict[Any, Any]:
    """Return class weights by label: the names in JSON objects are always strings."""
    labels = {str(label): label for label in dict.fromkeys(y.tolist())}
    unknown = [name for name in weights if name not in labels]
    if unknown:
        raise InputError(
            f"class_weight must name classes of the target ({', '.join(list(labels)[:20])}), "
            f"got {unknown[0]!r}"
        )
    return {labels[name]: weight for name, weight in weights.items()}


def _identity(X: "pd.DataFrame", y: "NDArray[Any]", estimator: "Model") -> dict[str, Any]:
    """Return what decides the result: a folder with checkpoints belongs to just one."""
    from secateurs.comparison import row_hashes

    digest = hashlib.sha256(json.dumps([[str(c), str(t)] for c, t in X.dtypes.items()]).encode())
    digest.update(row_hashes(X).tobytes())
    digest.update(json.dumps([str(y.dtype), y.tolist()], default=str).encode())
    settings = {n: v for n, v in estimator.get_params().items() if n not in NOT_SETTINGS}
    return {
        "version": __version__,
        "data": digest.hexdigest(),
        "settings": {
            "estimator": type(estimator).__name__,
            **json.loads(json.dumps(settings, default=str)),
        },
    }


def _claim(partial: Path, identity: Mapping[str, Any]) -> bool:
    """Make `partial` ours; return whether an earlier command with this identity left it."""
    from secateurs.checkpoint import write_atomic

    note = partial / "command.json"
    if note.is_file():
        try:
            left = json.loads(note.read_bytes())
            old, new = left["settings"], identity["settings"]
            same_rest = left["version"] == identity["version"]
            same_data = left["data"] == identity["data"]
        except (ValueError, KeyError, TypeError) as err:
            raise InputError(f"{note} is damaged; remove {partial}") from err
        names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
        differs = [
            *([] if same_data else ["other data"]),
            *([f"other settings ({', '.join(names)})"] if names else []),
            *([] if same_rest else [f"another version ({left['version']})"]),
        ]
        if differs:
            raise InputError(
                f"{partial} holds an unfinished fit of {' and '.join(differs)}; finish it by its "
                "own command, remove that folder, or choose another --out"
            )
        return True
    if os.path.lexists(partial) and (
        not partial.is_dir() or any(not path.name.startswith(".") for path in partial.iterdir())
    ):
        raise InputError(
            f"{partial} is where unfinished work goes, but it exists and is something else; "
            "move it away or choose another --out"
        )
    content = json.dumps(identity, indent=1)

    def write(temporary: Path) -> None:
        temporary.write_text(content, encoding="utf-8")

    write_atomic(note, write)
    return False


@contextmanager
def _workspace(out: Path, identity: Mapping[str, Any]) -> Iterator[tuple[Path, bool]]:
    """Yield OUT.partial and whether it holds earlier work of the same command.

    It is removed at the end, and after an error unless there is something to continue from.
    """
    from secateurs.model_directory import check_replaceable

    partial = out.with_name(f"{out.name}.partial")
    absent = [parent for parent in out.parents if not parent.exists()]
    ours = False
    try:
        check_replaceable(out)
        existed = partial.exists()
        try:
            continues = _claim(partial, identity)
        except BaseException:
            if not existed:
                shutil.rmtree(partial, ignore_errors=True)
            raise
        ours = True
        yield partial, continues
    except BaseException:
        work = ("*.safetensors", "compare-*.json")
        if ours and not any(any(partial.rglob(pattern)) for pattern in work):
            shutil.rmtree(partial, ignore_errors=True)
        for parent in absent:
            with contextlib.suppress(OSError):  # not made, or in use by now
                parent.rmdir()
        raise
    shutil.rmtree(partial, ignore_errors=True)


def _compare(
    estimator: "Model", X: "pd.DataFrame", y: "NDArray[Any]", partial: Path, *, quiet: bool
) -> "Comparison":
    from rich.console import Console

    from secateurs.comparison import compare, table

    def say(line: str) -> None:
        if not quiet:
            _tell(line)

    found = compare(estimator, X, y, folder=partial, say=say)
    Console(width=None if sys.stdout.isatty() else 120).print(table(found))
    sys.stdout.flush()
    share = found.rows_seen / found.rows_held_out
    if share > 0.01:
        _tell(
            f"note: {found.rows_seen:,} of the held-out rows ({share:.0%}) also occur in training "
            "with the same features; scores on them measure memory, too"
        )
    return found


def _ship(estimator: "Model", out: Path, partial: Path, compared: "Comparison | None") -> int:
    """Put the whole model folder in its place in one step; return its bytes."""
    from secateurs.checkpoint import write_atomic
    from secateurs.comparison import folder_bytes

    ready, replaced = partial / "ready", partial / "replaced"
    estimator.save(ready)
    size = folder_bytes(ready)
    if compared is not None:
        content = compared.to_json()

        def write(temporary: Path) -> None:
            temporary.write_text(content, encoding="utf-8")

        write_atomic(ready / "comparison.json", write)
    shutil.rmtree(replaced, ignore_errors=True)
    if out.exists():
        out.rename(replaced)
    try:
        ready.rename(out)
    except OSError:
        if replaced.exists():
            replaced.rename(out)
        raise
    return size


def _regime(summary: Mapping[str, Any]) -> str:
    """Return how far the search went, and the word for it.

    Independent masks of density d have an IoU near d / (2 - d), lazy ones near 1. Rich: weights
    moved by more than their size and the mask is nearer to independent of the start's; lazy: both
    otherwise.
    """
    moved, overlap = summary["weight_movement"], summary["start_mask_overlap"]
    chance = summary["density"] / (2 - summary["density"])
    far, new = moved > 1, overlap < (1 + chance) / 2
    word = "rich" if far and new else "between rich and lazy" if far or new else "lazy"
    return (
        f"{word}: weights moved by {moved:.2g} times their start; mask overlap with the start's "
        f"{overlap:.2f} (chance {chance:.2f}, lazy 1)"
    )


def _say_what_came_out(model: "Model", out: Path, size: int) -> None:
    summary = model.summary_
    lines = {
        "model": str(out),
        "kept": f"{summary['parameters_kept']:,} of {summary['parameters']:,} parameters "
        f"(compression {summary['compression']:g})",
        "bytes": f"{size:,}",
    }
    if summary["weight_movement"] is not None:
        lines["regime"] = _regime(summary)
    lines["seconds"] = f"{summary['seconds']:.1f}"
    lines["next"] = f"secateurs predict {out} NEW_ROWS.csv --out predictions.csv"
    for name, line in lines.items():
        print(f"{name:<8} {line}")


# --- predict and evaluate --------------------------------------------------------------------


def _load(path: Path) -> "Model":
    from secateurs.estimator import load

    model = load(path)
    if model.device != "cpu":
        model.set_params(device=None)  # the machine that trained it may have had others
    return model


def _features(model: "Model", frame: "pd.DataFrame") -> "pd.DataFrame":
    """Return the table without the column that the model predicts."""
    from secateurs.preparation import input_names

    target = model.summary_.get("target")
    drop = target in frame.columns and target not in input_names(model.preparation_)
    return frame.loc[:, frame.columns != target] if drop else frame


def _predict(args: argparse.Namespace) -> None:
    import pandas as pd

    from secateurs.data.tables import dump_table, read_table

    model = _load(args.model)
    X = _features(model, read_table(args.data).frame)
    if args.out.exists() and Path(args.data).exists() and args.out.samefile(args.data):
        raise InputError(f"--out must not be the table itself, got {args.out}; choose another file")
    if hasattr(model, "predict_proba"):
        proba = model.predict_proba(X)
        columns = {"prediction": model.classes_[proba.argmax(1)]}
        columns |= {f"proba_{c}": proba[:, i] for i, c in enumerate(model.classes_.tolist())}
    else:
        columns = {"prediction": model.predict(X)}
    dump_table(pd.DataFrame(columns), args.out)
    print(
        f"{args.out}: {len(X):,} rows, columns {', '.join(list(columns)[:8])}"
        f"{', ...' * (len(columns) > 8)}"
    )


def _as_classes(y: "NDArray[Any]", classes: "NDArray[Any]") -> "NDArray[Any]":
    """Return labels as the model's: files keep 1, "1" and True apart, people do not."""
    import numpy as np

    by_name = {str(label): i for i, label in enumerate(classes.tolist())}
    by_name |= {str(float(c)): i for i, c in enumerate(classes.tolist()) if isinstance(c, int)}
    places = [by_name.get(str(label), -1) for label in y.tolist()]
    if -1 in places:
        raise InputError(
            f"the target must be one of the model's classes ({', '.join(map(str, classes[:20]))}), "
            f"got {y.tolist()[places.index(-1)]!r}"
        )
    return classes[np.array(places, dtype=np.intp)]


def _evaluate(args: argparse.Namespace) -> None:
    import numpy as np

    from secateurs.data.tables import read_table, split_target
    from secateurs.measures.quality import classification, regression

    model = _load(args.model)
    table = read_table(args.data)
    fitted = model.summary_.get("target")
    target = args.target or (fitted if fitted in table.frame.columns else table.target)
    if target is None:
        raise InputError(
            f"the table lacks the target that was fitted, {fitted!r}; name another by --target"
        )
    X, series = split_target(table, target)
    X, y = _features(model, X), _values(series)
    scores: dict[str, float] = {"rows": len(X)}
    if hasattr(model, "predict_proba"):
        labels = _as_classes(y, model.classes_)
        majority = float(np.unique(labels, return_counts=True)[1].max() / len(labels))
        found = classification(labels, model.predict_proba(X), model.classes_)
        scores |= {"accuracy": found.pop("accuracy"), "majority_accuracy": majority, **found}
    else:
        try:
            numbers = y.astype(np.float64)
        except (TypeError, ValueError) as err:
            raise InputError(
                f"the target of a regression must be numbers, got {y.tolist()[0]!r} in "
                f"{str(series.name)!r}"
            ) from err
        scores |= regression(numbers, model.predict(X))
    if args.json:
        print(json.dumps({n: v if v == v else None for n, v in scores.items()}))  # NaN is no JSON
        return
    for name, value in scores.items():
        shown = f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
        print(f"{name.replace('_', ' '):<20} {shown}")


# --- list ------------------------------------------------------------------------------------


def _line(thing: Any) -> str:
    return str(thing.__doc__ or "").strip().partition("\n")[0]


def _listed(topic: str) -> dict[str, str]:
    if topic == "datasets":
        from secateurs.data.tables import BUNDLED, SUFFIXES

        found = {f"sklearn:{name}": _line(read) for name, read in BUNDLED.items()}
        folder = _data_root() / "tabular"
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if path.name.endswith(SUFFIXES):
                found[str(path)] = f"{path.stat().st_size / 1024:,.0f} KiB"
        return found
    if topic == "measures":
        modules = [import_module(f"secateurs.measures.{m}") for m in ("quality", "size", "regime")]
        return {name: _line(getattr(m, name)) for m in modules for name in m.__all__}
    module = import_module(f"secateurs.{topic}")
    names = {
        "networks": ("NETWORKS",),
        "criteria": ("CRITERIA",),
        "objectives": ("LOSSES", "CONTRASTIVE"),
    }[topic]
    known = {key: thing for name in names for key, thing in getattr(module, name).items()}
    return {key: _line(thing) for key, thing in known.items()}


def _data_root() -> Path:
    """Return where data are looked for: SECATEURS_DATA, else the user's cache folder."""
    told = os.environ.get("SECATEURS_DATA")
    if told:
        return Path(told)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "secateurs"


def _list(args: argparse.Namespace) -> None:
    for topic in TOPICS if args.topic is None else (args.topic,):
        if args.topic is None:
            print(f"{topic}:")
        found = _listed(topic)
        width = max(map(len, found))
        for name, line in found.items():
            print(f"{'  ' * (args.topic is None)}{name:<{width}}  {line}")
