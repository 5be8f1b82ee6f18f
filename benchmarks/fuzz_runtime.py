"""Damaged and hostile files against the runtime's loader and its kernels, under sanitisers.

The kernels are compiled with AddressSanitizer and UndefinedBehaviorSanitizer into a copy of the
package, for each instruction set that this processor has. A worker process with the sanitisers
preloaded mutates small files (tests/reference/mutations.py), most of them with right checksums,
loads each without asking for the checksum of its data, and lets what was not refused predict
batches of several sizes. The first report or crash ends the run; the file that did it is kept.

    python benchmarks/fuzz_runtime.py [--files 100000] [--seed 0] [--isa avx512 ...]

Needs GCC and Linux. AddressSanitizer does not see into masked vector loads and stores.
"""

import argparse
import contextlib
import itertools
import json
import math
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from secateurs.errors import InputError  # noqa: E402

# After the usual flags, so that these count. Conversions of NaN to integers are not in `undefined`.
FLAGS = (
    *("-Og", "-g1", "-fno-omit-frame-pointer", "-D_GLIBCXX_ASSERTIONS"),
    "-fsanitize=address,undefined,float-cast-overflow,float-divide-by-zero",
    "-fno-sanitize-recover=all",
)
BUILDING = ROOT / "src" / "secateurs" / "runtime" / "building.py"
BATCHES = (0, 1, 3, 16, 70)
# More numbers than this in one sample's values are refused by nobody and run too long here.
MOST_NUMBERS = 2**18


def sanitised(folder):
    """Copy the package into a folder, with sanitised kernels; return what to put on PYTHONPATH."""
    building = runpy.run_path(str(BUILDING))
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "tmp*")
    shutil.copytree(ROOT / "src" / "secateurs", folder / "secateurs", ignore=ignored)
    library = folder / "secateurs" / "runtime" / "_kernels.so"
    building["compile_kernels"](library, extra_flags=FLAGS)
    return folder


def preloaded(folder, *, isa=""):
    """Return the environment in which Python can load sanitised kernels."""
    libraries = [
        subprocess.run(
            ["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    return (
        os.environ
        | {
            "LD_PRELOAD": ":".join(libraries),
            # Python and its libraries leak at exit, on purpose.
            "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:allocator_may_return_null=1"
            # A file of a few KB that asks for gigabytes ends in one of these.
            ":max_allocation_size_mb=2048:hard_rss_limit_mb=6000"
            ":detect_stack_use_after_return=1:quarantine_size_mb=64",
            "UBSAN_OPTIONS": "print_stacktrace=1:abort_on_error=1",
            "PYTHONPATH": str(folder),
            "PYTHONMALLOC": "malloc",
            "OMP_NUM_THREADS": "1",
        }
        | ({"SECATEURS_ISA": isa} if isa else {})
    )


ISAS = """
from secateurs.errors import InputError
from secateurs.runtime import native

assert native.load() is not None, "the library was not loaded"
for isa in native.ISAS:
    try:
        print(native.load(isa=isa).isa)
    except InputError:
        pass
"""


def instruction_sets(folder):
    """Return the instruction sets that this processor has."""
    call = [sys.executable, "-c", ISAS]
    env = preloaded(folder)
    env.pop("SECATEURS_ISA", None)
    return subprocess.run(call, env=env, capture_output=True, text=True, check=True).stdout.split()


def masked(rng, *shape, density):
    """Return weights of which a share is kept, such that values neither grow nor vanish."""
    n_kept = max(1, math.prod(shape[1:]) * density)
    weight = rng.standard_normal(shape, dtype=np.float32) / np.float32(math.sqrt(n_kept))
    weight[rng.random(shape) >= density] = 0
    return weight


def chain(rng, widths, density):
    """Return linear layers one after another."""
    from secateurs.runtime.program import Op, Program

    ops = [
        Op(
            kind="linear",
            inputs=(i,),
            shape=(n_out,),
            weight=masked(rng, n_out, n_in, density=density),
            bias=rng.standard_normal(n_out, dtype=np.float32),
            activation=("relu", "gelu", "tanh", "sigmoid")[i % 4],
        )
        for i, (n_in, n_out) in enumerate(itertools.pairwise(widths))
    ]
    return Program(input_shape=(widths[0],), ops=tuple(ops))


def pictures(rng, density):
    """Return a small residual network with an operation of every kind."""
    from secateurs.runtime.program import Op, Program

    def conv(source, n_in, n_out, side, **more):
        more = {"kernel": (3, 3), "padding": (1, 1)} | more
        weight = masked(rng, n_out, n_in, *more["kernel"], density=density)
        return Op(kind="conv2d", inputs=(source,), shape=(n_out, side, side), weight=weight, **more)

    pool = {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1), "shape": (17, 4, 4)}
    ops = (
        conv(0, 3, 16, 7, activation="relu"),
        conv(1, 16, 17, 7, kernel=(1, 1), padding=(0, 0)),
        conv(1, 16, 17, 7, kernel=(5, 5), padding=(2, 2), activation="gelu_tanh"),
        Op(kind="scale", inputs=(2,), shape=(17, 7, 7), weight=np.full(17, 0.5, np.float32)),
        Op(kind="add", inputs=(3, 4), shape=(17, 7, 7), activation="relu"),
        Op(kind="max_pool", inputs=(5,), **pool),
        Op(kind="avg_pool", inputs=(5,), include_padding=False, **pool),
        Op(kind="concat", inputs=(6, 7), shape=(34, 4, 4)),
        conv(8, 34, 18, 2, stride=(2, 2)),
        conv(9, 18, 18, 1, padding=(0, 0), kernel=(2, 2), activation="tanh"),
        Op(kind="flatten", inputs=(10,), shape=(18,)),
        Op(kind="activation", inputs=(11,), shape=(18,), activation="sigmoid"),
        Op(kind="mean", inputs=(11, 12), shape=(18,)),
        Op(
            kind="linear",
            inputs=(13,),
            shape=(5,),
            weight=masked(rng, 5, 18, density=0.5),
            activation="softmax",
        ),
    )
    return Program(input_shape=(3, 7, 7), ops=ops)


PREPARATION = {
    "format": 1,
    "columns": [
        {"name": "age", "kind": "numeric", "median": 37.0, "mean": 38.6, "scale": 13.7},
        {"name": "fax", "kind": "dropped"},
        {"name": "job", "kind": "categorical", "categories": ["clerk", "missing_value", "smith"]},
    ],
}
TABLE = {
    "preparation": PREPARATION,
    "classes": {"dtype": "<U4", "values": ["bad", "good"]},
}
ROWS = {
    "age": np.array([1e300, np.nan, -3]),
    "fax": np.array(["", "x", "y"]),
    "job": np.array(["smith", None, "clerk"], dtype=object),
}


def with_kinds(rng, program, isa):
    """Return kernels for each tile size and operation, drawn from all that can run it."""
    from secateurs.runtime.plan import choices
    from secateurs.runtime.tuning import TILES

    found = {}
    for n in TILES:
        possible = choices(program, n=n, isa=isa)
        found[n] = {i: str(rng.choice(kinds)) for i, kinds in enumerate(possible) if kinds}
        for i, kind in found[n].items():
            if kind == "rows" and n > 1 and rng.random() < 0.5:
                found[n][i] = "rows:16"
    return found


def originals(rng, isa):
    """Return small files of every kind of operation, kernel, form of weights and precision."""
    from secateurs.runtime.storage import Stored, dump

    programs = [
        (chain(rng, (20, 70, 33, 3), 0.1), {}),
        (chain(rng, (9, 40, 2), 0.6), {}),
        (chain(rng, (300, 17, 1), 0.02), {}),
        (chain(rng, (5, 5), 0), {}),
        (pictures(rng, 0.2), {}),
        (pictures(rng, 1), {"images": True, "classes": {"dtype": "<i8", "values": [*range(5)]}}),
        (chain(rng, (4, 19, 2), 0.5), TABLE),
        (chain(rng, (4, 1), 1), {"preparation": PREPARATION, "target": {"mean": 1, "scale": 2.5}}),
    ]
    return [
        dump(
            Stored(
                program=program,
                precision=precision,
                kinds=with_kinds(rng, program, isa) if chosen else {},
                about=about,
            )
        )
        for program, about in programs
        for precision in ("fp32", "bf16", "int8")
        for chosen in (True, False)
    ]


def is_tame(stored):
    """Return whether rounding decides about nothing that comes out."""
    if stored.precision == "int8":  # scales are found anew, others if the largest value is damaged
        return False
    ops = stored.program.ops
    arrays = [array for op in ops for array in (op.weight, op.bias) if array is not None]
    return all(bool((np.abs(array) < 8).all()) for array in arrays)


def run(model, stored, rng):
    """Let a model predict batches of several sizes; return whether there was a twin to compare."""
    from secateurs.runtime import TableEngine, fallback

    engine = getattr(model, "engine", model)
    if isinstance(model, TableEngine):
        with contextlib.suppress(InputError):
            assert len(model.predict(ROWS)) == 3
    program, tame = stored.program, is_tame(stored)
    for n in BATCHES:
        x = rng.standard_normal((n, *program.input_shape), dtype=np.float32)
        y = engine(x, n_threads=1 + n % 2)
        assert y.shape == (n, *program.output_shape), y.shape
        if tame and n == BATCHES[-1]:
            expected = fallback.run(program, x)
            scale = max(1.0, float(np.abs(expected).max()))
            assert np.abs(y - expected).max() <= 1e-3 * scale, np.abs(y - expected).max()
    return tame


def work(folder, n_files, seed):
    """Mutate, load and run files; print counts as JSON. This runs in a worker."""
    from reference.mutations import mutations
    from secateurs import runtime
    from secateurs.runtime import native, storage

    rng = np.random.default_rng(seed)
    sources = [mutations(blob, rng) for blob in originals(rng, native.isa())]
    path = folder / "current.secateurs"
    counts = Counter()
    for i in range(n_files):
        path.write_bytes(next(sources[i % len(sources)]))
        try:
            stored = storage.read(path, verify=False)
            if sum(math.prod(op.shape) for op in stored.program.ops) > MOST_NUMBERS:
                counts["too large to run here"] += 1
                continue
            model = runtime.load(path, verify=False, tune=False)
        except InputError:
            counts["refused"] += 1
            continue
        counts["run"] += 1
        counts["compared"] += run(model, stored, rng)
    print(json.dumps({"isa": native.isa(), **counts}))


def fuzz(folder, n_files, *, isa, seed):
    """Run a worker over files; return its counts.

    Raises:
        RuntimeError: it ended with a report or a crash; says of which file.
    """
    call = [sys.executable, str(Path(__file__).resolve()), "--worker", str(folder)]
    done = subprocess.run(
        [*call, "--files", str(n_files), "--seed", str(seed)],
        env=preloaded(folder, isa=isa),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        kept = ROOT / "runs" / f"crash-{isa}-{seed}.secateurs"
        kept.parent.mkdir(exist_ok=True)
        if (folder / "current.secateurs").is_file():
            shutil.copy(folder / "current.secateurs", kept)
        raise RuntimeError(
            f"{isa}, seed {seed}: exit {done.returncode} at {kept}\n{done.stderr[-6000:]}"
        )
    return json.loads(done.stdout.splitlines()[-1])


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=100_000, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--isa", nargs="+", help="instruction sets; by default all of this processor"
    )
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        return work(options.worker, options.files, options.seed)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        tree = sanitised(Path(folder, "tree"))
        print(f"compiled in {time.perf_counter() - began:.0f} s; seed {options.seed}")
        isas = options.isa or instruction_sets(tree)
        each = -(-options.files // len(isas))
        for isa in isas:
            began = time.perf_counter()
            counts = fuzz(tree, each, isa=isa, seed=options.seed)
            assert counts.pop("isa") == isa
            said = ", ".join(f"{n} {what}" for what, n in sorted(counts.items()))
            print(f"{isa}: {each} files in {time.perf_counter() - began:.0f} s, no report: {said}")
    return None


if __name__ == "__main__":
    main()
