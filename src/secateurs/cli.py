"""The command `secateurs`: models from tables and images, experiments, pages from results.

Exit codes: 0 done, 2 wrong use or bad input (one line on stderr), 3 some cells of an experiment
failed, 130 interrupted, 1 a bug.
What is slow to import is imported inside the verbs, so that help comes at once.
"""

import argparse
import json
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from secateurs import __version__
from secateurs.command import settings
from secateurs.errors import CollapseWarning, InputError, RegimeWarning, TimeLimitWarning

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from secateurs.command.comparison import Comparison, Estimator, Rows
    from secateurs.image_classifier import ImageTicketClassifier

__all__ = ["EXPORTS", "PRECISIONS", "SCALES", "TASKS", "TOPICS", "build_parser", "main"]

TASKS = ("auto", "classification", "regression")
TOPICS = ("networks", "criteria", "objectives", "measures", "datasets", "runs")
SCALES = ("smoke", "small", "paper")
EXPORTS = ("onnx", "runtime")
PRECISIONS = ("fp32", "bf16", "int8")

_TABLE = ".parquet, .csv or .feather file, sklearn:NAME or openml:TASK_ID"
_IMAGES = "CLASS/*.png, train/CLASS/*.png and test/CLASS/*.png; or cifar10, fashion_mnist, ..."
_DATA = f"table: {_TABLE}; or folder of images: {_IMAGES}"


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

    def verb(name: str, run: Callable[..., int | None], does: str, more: str = ".") -> Any:
        whole = f"{does[0].upper()}{does[1:]}{more}"
        added = verbs.add_parser(name, help=does, description=whole, allow_abbrev=False)
        added.set_defaults(run=run)
        return added

    does = "find a ticket for a table or for images and write it as a model folder"
    fit = verb("fit", _fit, does, ". If it is interrupted, the same command continues.")
    fit.add_argument("data", metavar="DATA", help=_DATA)
    fit.add_argument("--target", metavar="COLUMN", help="what to predict (known for sklearn:NAME)")
    fit.add_argument("--out", metavar="DIR", type=Path, required=True, help="model folder to write")
    told = (
        "a parameter of TicketClassifier, TicketRegressor or ImageTicketClassifier, as in "
        "compression=16; repeatable"
    )
    fit.add_argument("--set", metavar="NAME=JSON", action="append", default=[], help=told)
    told = (
        "first hold out a fifth of the rows (of images: their test part, if there is one) and "
        "measure simpler models there, too"
    )
    fit.add_argument("--compare", action="store_true", help=told)
    fit.add_argument("--task", choices=TASKS, default="auto", help="by default the target decides")
    told = "height and width to bring images to, for those of several sizes; predict does it, too"
    fit.add_argument("--size", metavar="PIXELS", type=int, help=told)
    fit.add_argument("--overwrite", action="store_true", help="replace the model at DIR")
    fit.add_argument("--quiet", action="store_true", help="print the comparison and warnings only")

    more = (
        ": a column `prediction` and, for classes, a column `proba_CLASS` for each; for images a "
        "column `file` before them."
    )
    predict = verb("predict", _predict, "write predictions for rows of a table or images", more)
    predict.add_argument("model", metavar="MODEL", type=Path, help="model folder")
    told = f"table: {_TABLE}; or an image, a folder with images at any depth, cifar10, ..."
    predict.add_argument("data", metavar="DATA", help=told)
    told = ".parquet, .csv or .feather to write"
    predict.add_argument("--out", metavar="FILE", type=Path, required=True, help=told)

    does = "measure a model on a table with known targets or on images in folders of classes"
    evaluate = verb("evaluate", _evaluate, does)
    evaluate.add_argument("model", metavar="MODEL", type=Path, help="model folder")
    evaluate.add_argument("data", metavar="DATA", help=_DATA)
    evaluate.add_argument("--target", metavar="COLUMN", help="by default the one that was fitted")
    evaluate.add_argument("--json", action="store_true", help="print one JSON object")

    more = ", once it has predicted random rows as the model does."
    export = verb("export", _export, "write a model as one file for other machines", more)
    export.add_argument("model", metavar="MODEL", type=Path, help="model folder")
    told = (
        "runtime predicts with NumPy alone (secateurs.runtime.load), onnx in ONNX Runtime and "
        "others; needs secateurs[onnx]"
    )
    export.add_argument("--format", choices=EXPORTS, required=True, help=told)
    export.add_argument("--out", metavar="FILE", type=Path, required=True, help="file to write")
    told = "of the weights, for runtime; the last two are smaller and change predictions"
    export.add_argument("--precision", choices=PRECISIONS, default="fp32", help=told)

    again = ". What is finished is skipped: if it is interrupted, the same command continues."
    run = verb("run", _run, "run the cells of a TOML file and write their page", again)
    run.add_argument("spec", metavar="SPEC", type=Path, help="TOML file")
    told = "a name of SPEC, such as config.compression=16 or grid.rows.split=[0,1]; repeatable"
    run.add_argument("--set", metavar="a.b=JSON", action="append", default=[], help=told)
    _add_options(run)

    paper = verb("paper", _paper, "run one table or figure of a paper and write its page", again)
    paper.add_argument("file", metavar="FILE", type=Path, help="such as papers/iunet/table_4.py")
    told = "smoke proves that it runs, small is evidence for a day, paper is the whole"
    paper.add_argument("--scale", choices=SCALES, required=True, help=told)
    told = "only the first N splits of each data set; by default all of the scale"
    paper.add_argument("--splits", metavar="N", type=int, help=told)
    _add_options(paper)

    report = verb("report", _report, "write one page, or one table, of everything in a store")
    report.add_argument("runs", metavar="RUNS", type=Path, help="what run or paper filled")
    told = "page to write, or table of all cells: .csv, .parquet, ..."
    report.add_argument("--out", metavar="FILE", type=Path, required=True, help=told)

    listing = verb("list", _list, "say what there is, by name")
    listing.add_argument("topic", nargs="?", choices=TOPICS, help="everything by default")
    told = "folder of stores, for runs only"
    listing.add_argument(
        "folder", metavar="DIR", nargs="?", type=Path, default=Path("runs"), help=told
    )
    return parser


def _add_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--out", metavar="DIR", type=Path, required=True, help="store to fill")
    verb.add_argument("--jobs", metavar="N", type=int, help="cells at once; by default the cores")
    told = "run on Ray: auto (one that runs here), HOST:PORT, or local; needs secateurs[cluster]"
    verb.add_argument("--cluster", metavar="ADDRESS", help=told)
    told = "share of a GPU that each cell takes on a cluster"
    verb.add_argument("--num-gpus", metavar="X", type=float, default=0.0, help=told)
    verb.add_argument(
        "--device", metavar="NAME", help="cpu or cuda; by default cuda if there is one"
    )
    verb.add_argument("--dry-run", action="store_true", help="only say what is to do")
    told = "run nothing: draw what is finished, of a run that is under way, say"
    verb.add_argument("--finished", action="store_true", help=told)
    told = "also write each figure there, as an SVG file"
    verb.add_argument("--figures", metavar="DIR", type=Path, help=told)
    verb.add_argument("--quiet", action="store_true", help="print failures only")


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
            code: int | None = args.run(args)
            sys.stdout.flush()
    except SystemExit as end:  # help and version
        return int(end.code or 0)
    except KeyboardInterrupt:
        resumes = list(words[:1]) in (["fit"], ["run"], ["paper"])
        _tell("interrupted" + ("; run the same command to continue" if resumes else ""))
        return 130
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as err:  # InputError, scikit-learn's checks, and the disk
        _tell(f"error: {_one_line(err)}")
        return 2
    return code or 0


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
        warnings.simplefilter("ignore", RegimeWarning)  # the line of the regime says it
        warnings.showwarning = show
        yield


# --- fit -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What a fit is about.

    Args:
        X: features of a table, or images.
        y: targets.
        held_out: rows of their own for the comparison, or None.
        estimator: not fitted.
        source: names of the data, for the summary.
        why: the line that tells the task.
    """

    X: "Rows"
    y: "NDArray[Any]"
    held_out: "tuple[Rows, NDArray[Any]] | None" = None
    estimator: "Estimator"
    source: dict[str, Any]
    why: str


def _fit(args: argparse.Namespace) -> None:
    given = settings.parse(args.set)
    out: Path = args.out if args.out.name not in ("", "..") else args.out.resolve()

    from secateurs.command.comparison import network_folder
    from secateurs.command.pictures import is_images
    from secateurs.command.workspace import check_free, identity, ship, workspace

    check_free(out, overwrite=args.overwrite)  # before a long read
    asked = _asked_images(args, given) if is_images(args.data) else _asked_table(args, given)
    estimator, n_rows = asked.estimator, len(asked.y)

    def say(line: str) -> None:
        if not args.quiet:
            print(line, flush=True)

    command = identity(asked.X, asked.y, estimator)
    with workspace(out, command, overwrite=args.overwrite) as (partial, continues):
        say(asked.why)
        if continues:
            say(f"continuing from {partial}")
        compared = _compare(asked, partial, quiet=args.quiet) if args.compare else None
        again = compared is not None and asked.held_out is not None
        if estimator.checkpoint_dir is None:
            # with rows of its own to be measured on, the compared model is the one to ship
            place = network_folder(estimator, partial) if again else partial / "model"
            estimator.set_params(checkpoint_dir=place, verbose=estimator.verbose * (not again))
        if compared is not None and not again:
            say(f"fitting the model to ship on all {n_rows:,} rows")
        estimator.fit(asked.X, asked.y)
        seconds = float(estimator.history_["seconds"].sum()) if again else 0.0
        estimator.summary_["seconds"] = max(estimator.summary_["seconds"], seconds)
        estimator.summary_ |= asked.source
        # Where it was trained is nobody's business after that.
        estimator.set_params(checkpoint_dir=None, verbose=0)
        size = ship(estimator, out, partial, compared)
    if not args.quiet:
        _say_what_came_out(estimator, out, size)


def _asked_images(args: argparse.Namespace, given: dict[str, Any]) -> _Asked:
    from secateurs.command.pictures import to_fit
    from secateurs.image_classifier import ImageTicketClassifier

    if args.target is not None or args.task == "regression":
        word = "--target" if args.target is not None else "--task regression"
        raise InputError(
            f"images are classified by the folders that they lie in, so {word} says nothing, got "
            f"it beside {args.data!r}; leave it out"
        )
    settings.check_names(given, [ImageTicketClassifier])  # before a long read
    estimator = ImageTicketClassifier(
        **{"random_state": 0, "verbose": int(not args.quiet), **given}
    )
    estimator.check()
    images = to_fit(args.data, size=args.size)
    channels, height, width = images.x.shape[1:]
    n = len(dict.fromkeys(images.y.tolist()))
    why = (
        f"task: classification of {len(images.y):,} images, {height} x {width} with {channels} "
        f"channel{'s' * (channels != 1)}, {n} classes"
    )
    source = {"data": images.name, **({"resized_to": args.size} if args.size else {})}
    return _Asked(
        X=images.x, y=images.y, held_out=images.test, estimator=estimator, source=source, why=why
    )


def _asked_table(args: argparse.Namespace, given: dict[str, Any]) -> _Asked:
    from secateurs.command.targets import as_classes, choose_task, plain
    from secateurs.data.tables import check_classes, read_table, split_target
    from secateurs.estimator import TicketClassifier, TicketRegressor

    if args.size is not None:
        raise InputError(
            f"--size is for images, got it beside {args.data!r}, which is a table; leave it out"
        )
    kinds: dict[str, type[TicketClassifier | TicketRegressor]]
    kinds = {"classification": TicketClassifier, "regression": TicketRegressor}
    asked = kinds if args.task == "auto" else {args.task: kinds[args.task]}
    settings.check_names(given, list(asked.values()))  # before a long read
    table = read_table(args.data)
    X, series = split_target(table, args.target)
    y = plain(series)
    task, why = choose_task(series) if args.task == "auto" else (args.task, "as asked")
    settings.check_names(given, [kinds[task]])
    if task == "classification":
        check_classes(y)
    weights = given.get("class_weight")
    if isinstance(weights, dict):  # names in JSON are strings
        labels = as_classes(weights, y, "class_weight must name classes of the target")
        given = {**given, "class_weight": dict(zip(labels.tolist(), weights.values(), strict=True))}
    estimator = kinds[task](**{"random_state": 0, "verbose": int(not args.quiet), **given})
    source = {"data": table.name, "target": str(series.name)}
    return _Asked(X=X, y=y, estimator=estimator, source=source, why=f"task: {task}, {why}")


def _compare(asked: _Asked, partial: Path, *, quiet: bool) -> "Comparison":
    from rich.console import Console

    from secateurs.command.comparison import compare, table

    def say(line: str) -> None:
        if not quiet:
            _tell(line)

    model = asked.estimator
    found = compare(model, asked.X, asked.y, folder=partial, held_out=asked.held_out, say=say)
    Console(width=None if sys.stdout.isatty() else 120).print(table(found))
    sys.stdout.flush()
    share = found.rows_seen / found.rows_held_out
    if share > 0.01:
        _tell(
            f"note: {found.rows_seen:,} of the held-out rows ({share:.0%}) also occur in training "
            "with the same features; scores on them measure memory, too"
        )
    return found


def _say_what_came_out(model: "Estimator", out: Path, size: int) -> None:
    from secateurs.command.workspace import PAGE, next_command
    from secateurs.report.model import regime_line

    summary = model.summary_
    lines = {
        "model": str(out),
        "kept": f"{summary['parameters_kept']:,} of {summary['parameters']:,} parameters "
        f"(compression {summary['compression']:g})",
        "bytes": f"{size:,}",
    }
    if summary["weight_movement"] is not None:
        lines["regime"] = regime_line(summary)
    lines["seconds"] = f"{summary['seconds']:.1f}"
    if (out / PAGE).exists():
        lines["page"] = str(out / PAGE)
    lines["next"] = next_command(model, str(out))
    for name, line in lines.items():
        print(f"{name:<8} {line}")


# --- predict and evaluate --------------------------------------------------------------------


def _load(path: Path) -> "Estimator":
    from secateurs.loading import load

    model = load(path)
    if model.device != "cpu":
        model.set_params(device=None)  # the machine that trained it may have had others
    return model


def _fits_data(model: "Estimator", data: str) -> "ImageTicketClassifier | None":
    """Return a model of images; None for one of tables. Raise where DATA is of the other kind."""
    from secateurs.command.pictures import is_images
    from secateurs.image_classifier import ImageTicketClassifier

    of_images = isinstance(model, ImageTicketClassifier)
    if of_images and ":" not in data and not is_images(data) and not Path(data).exists():
        raise InputError(f"the model is one of images, and there is no {data!r}; check the name")
    if of_images != is_images(data):
        kinds = ("images", "tables") if of_images else ("tables", "images")
        raise InputError(
            f"the model is one of {kinds[0]}, got {data!r}, which is read as {kinds[1]}; choose "
            "other data or another model"
        )
    return model if isinstance(model, ImageTicketClassifier) else None


def _features(model: "Estimator", frame: "pd.DataFrame") -> "pd.DataFrame":
    """Return the table without the column that the model predicts."""
    from secateurs.preparation import input_names

    target = model.summary_.get("target")
    drop = target in frame.columns and target not in input_names(model.preparation_)
    return frame.loc[:, frame.columns != target] if drop else frame


def _predict(args: argparse.Namespace) -> None:
    import pandas as pd

    from secateurs.data.tables import dump_table, read_table

    model = _load(args.model)
    columns: dict[str, Any] = {}
    if (of_images := _fits_data(model, args.data)) is not None:
        from secateurs.command.pictures import named

        columns["file"], X = named(of_images, args.data)
    else:
        X = _features(model, read_table(args.data).frame)  # type: ignore[assignment]
    if args.out.exists() and Path(args.data).exists() and args.out.samefile(args.data):
        raise InputError(f"--out must not be the table itself, got {args.out}; choose another file")
    if hasattr(model, "predict_proba"):
        proba = model.predict_proba(X)
        columns["prediction"] = model.classes_[proba.argmax(1)]
        columns |= {f"proba_{c}": proba[:, i] for i, c in enumerate(model.classes_.tolist())}
    else:
        columns["prediction"] = model.predict(X)
    dump_table(pd.DataFrame(columns), args.out)
    print(
        f"{args.out}: {len(X):,} rows, columns {', '.join(list(columns)[:8])}"
        f"{', ...' * (len(columns) > 8)}"
    )


def _evaluate(args: argparse.Namespace) -> None:
    from secateurs.command.targets import as_classes, as_numbers, plain
    from secateurs.data.tables import read_table, split_target
    from secateurs.measures.quality import regression

    model = _load(args.model)
    if (of_images := _fits_data(model, args.data)) is not None:
        _tell_scores(_image_scores(of_images, args), json_=args.json)
        return
    table = read_table(args.data)
    fitted = model.summary_.get("target")
    target = args.target or (fitted if fitted in table.frame.columns else table.target)
    if target is None:
        raise InputError(
            f"the table lacks the target that was fitted, {fitted!r}; name another by --target"
        )
    X, series = split_target(table, target)
    X, y = _features(model, X), plain(series)
    scores: dict[str, Any] = {"rows": len(X)}
    if hasattr(model, "predict_proba"):
        rule = "the target must be one of the model's classes"
        scores |= _class_scores(model, X, as_classes(y.tolist(), model.classes_, rule))
    else:
        scores |= regression(as_numbers(y), model.predict(X))
    _tell_scores(scores, json_=args.json)


def _class_scores(model: "Estimator", X: "Rows", labels: "NDArray[Any]") -> dict[str, float]:
    import numpy as np

    from secateurs.measures.quality import classification

    majority = float(np.unique(labels, return_counts=True)[1].max() / len(labels))
    found = classification(labels, model.predict_proba(X), model.classes_)
    return {"accuracy": found.pop("accuracy"), "majority_accuracy": majority, **found}


def _image_scores(model: "ImageTicketClassifier", args: argparse.Namespace) -> dict[str, Any]:
    from secateurs.command.pictures import labelled

    if args.target is not None:
        raise InputError(
            "images have their classes from folders, so --target says nothing, got "
            f"{args.target!r}; leave it out"
        )
    part, x, labels = labelled(model, args.data)
    return {"part": part, "rows": len(x), **_class_scores(model, x, labels)}


def _tell_scores(scores: dict[str, Any], *, json_: bool) -> None:
    if json_:
        print(json.dumps({n: v if v == v else None for n, v in scores.items()}))  # NaN is no JSON
        return
    for name, value in scores.items():
        shown = value if isinstance(value, str) else f"{value:,}"
        shown = f"{value:.4f}" if isinstance(value, float) else shown
        print(f"{name.replace('_', ' '):<20} {shown}")


# --- export ----------------------------------------------------------------------------------


def _export(args: argparse.Namespace) -> None:
    from secateurs.command.export import export

    model = _load(args.model)
    made = export(model, args.out, format=args.format, precision=args.precision)
    print(
        f"{args.out}: {made.n_bytes:,} bytes, {args.format}, {args.precision}; predictions of "
        f"{made.rows} random rows differ from the model's by at most {made.difference:.2g}"
    )


# --- experiments -----------------------------------------------------------------------------


def _options(args: argparse.Namespace) -> Any:
    from secateurs.command.experiments import Options

    return Options(
        jobs=args.jobs,
        cluster=args.cluster,
        num_gpus=args.num_gpus,
        device=args.device,
        dry_run=args.dry_run,
        finished=args.finished,
        figures=args.figures,
        quiet=args.quiet,
    )


def _run(args: argparse.Namespace) -> int:
    from secateurs.command.experiments import run_spec

    given = settings.parse(args.set)
    return 0 if run_spec(args.spec, args.out, given, _options(args)) else 3


def _paper(args: argparse.Namespace) -> int:
    from secateurs.command.experiments import run_paper

    done = run_paper(args.file, args.out, args.scale, _options(args), splits=args.splits)
    return 0 if done else 3


def _report(args: argparse.Namespace) -> None:
    from secateurs.command.experiments import write_report

    write_report(args.runs, args.out)
    print(f"{args.out}: {args.out.stat().st_size:,} bytes")


# --- list ------------------------------------------------------------------------------------


def _list(args: argparse.Namespace) -> None:
    from secateurs.command.catalogue import listed

    for topic in TOPICS if args.topic is None else (args.topic,):
        if args.topic is None:
            print(f"{topic}:")
        found = listed(topic, args.folder)
        width = max(map(len, found), default=0)
        for name, line in found.items():
            print(f"{'  ' * (args.topic is None)}{name:<{width}}  {line}")
