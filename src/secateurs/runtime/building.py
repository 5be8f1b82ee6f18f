"""Compile kernels.cpp into one shared library, once per instruction set.

Standard library only, and no import from the package: a build hook runs this file by its path.

    python -m secateurs.runtime.building [OUT]
"""

import argparse
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["compile_kernels", "compiler", "digest", "main"]

_HERE = Path(__file__).resolve().parent

# Never -ffast-math: NaN and infinity have to come through.
_FLAGS = (
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-math-errno",
    "-Wall",
    "-Wextra",
)

# Macro suffix of each variant -> flags on x86; elsewhere there is only the portable one. That one
# is linked first: of a function that the C++ library defines in all of them, such as those of
# std::thread, the linker keeps the first copy, which has to run on any processor.
_VARIANTS = {
    "portable": (),
    "avx2": ("-mavx2", "-mfma", "-mf16c"),
    "avx512": (
        *("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma", "-mavx2", "-mf16c"),
        "-mprefer-vector-width=512",
    ),
}
_X86 = ("x86_64", "amd64", "i686", "i386")


def compiler() -> list[str] | None:
    """Return the command of a C++ compiler: $CXX, else c++, g++ or clang++ on PATH, else None."""
    asked = shlex.split(os.environ.get("CXX", ""))
    if asked:
        return asked if shutil.which(asked[0]) else None
    for name in ("c++", "g++", "clang++"):
        if path := shutil.which(name):
            return [path]
    return None


def digest() -> str:
    """Return what tells these sources from others; "" where they were left out.

    >>> len(digest()) in (0, 16)
    True
    """
    sources = sorted([*_HERE.glob("*.cpp"), *_HERE.glob("*.inc")])
    made = hashlib.sha256()
    for source in sources:
        made.update(source.read_bytes())
    return made.hexdigest()[:16] if sources else ""


def compile_kernels(out: Path, *, extra_flags: tuple[str, ...] = ()) -> None:
    """Compile the kernels into the shared library `out`.

    Args:
        out: the file to write; it appears whole or not at all.
        extra_flags: of compiler and linker, such as those of a sanitiser.

    Raises:
        RuntimeError: no compiler is there, or what it said.
    """
    command = compiler()
    if command is None:
        raise RuntimeError("needs a C++17 compiler, found none; install g++ or clang++, or set CXX")
    x86 = platform.machine().lower() in _X86
    variants = _VARIANTS if x86 else {"portable": _VARIANTS["portable"]}
    out = Path(out)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        objects = []
        for name, flags in variants.items():
            target = str(Path(folder) / f"{name}.o")
            source = str(_HERE / "kernels.cpp")
            macros = (f"-DSECATEURS_VARIANT_{name.upper()}", f'-DSECATEURS_SOURCES="{digest()}"')
            call = [*command, *_FLAGS, *flags, *extra_flags, *macros, "-c", source, "-o", target]
            _run(call)
            objects.append(target)
        library = str(Path(folder) / "library")
        # The C++ library is linked dynamically: manylinux counts on it, and a static one asks for
        # the newest glibc of the machine that compiles.
        _run([*command, "-shared", *objects, *extra_flags, "-pthread", "-o", library])
        Path(library).replace(out)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)} failed:\n{done.stderr[-4000:]}")
    if done.stderr:
        sys.stderr.write(done.stderr)


def main(arguments: list[str] | None = None) -> int:
    """Compile into OUT, by default `_kernels.so` beside this file."""
    parser = argparse.ArgumentParser(description="Compile the kernels of the sparse runtime.")
    parser.add_argument("out", nargs="?", type=Path, default=_HERE / "_kernels.so")
    try:
        compile_kernels(parser.parse_args(arguments).out)
    except RuntimeError as err:
        sys.stderr.write(f"{err}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
