"""Build hook: compile the runtime's kernels where a C++ compiler is, without needing one.

Wheels get the library in their package and a platform tag, editable installs have it beside the
sources. SECATEURS_NO_KERNELS=1 leaves it out; with SECATEURS_REQUIRE_KERNELS=1 failure is an error.
"""

import os
import runpy
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

RUNTIME = Path("src", "secateurs", "runtime")
LIBRARY = "_kernels.so"
SOURCES = ("*.cpp", "*.inc", "*.h", "building.py")


def is_current(library: Path) -> bool:
    """Return whether a library beside its sources is newer than all of them."""
    newest = max(f.stat().st_mtime for p in SOURCES for f in library.parent.glob(p))
    return library.is_file() and library.stat().st_mtime > newest


class KernelsHook(BuildHookInterface[Any]):
    """The hook, as hatchling calls it."""

    def compile(self, out: Path) -> bool:
        """Compile to a file; return whether that worked, having said in one line why not."""
        required = os.environ.get("SECATEURS_REQUIRE_KERNELS") == "1"
        if os.environ.get("SECATEURS_NO_KERNELS") == "1":
            if required:
                raise RuntimeError(
                    "SECATEURS_NO_KERNELS and SECATEURS_REQUIRE_KERNELS exclude each other"
                )
            return False
        try:
            # By its path: the package is not installed yet, and neither is NumPy.
            building = runpy.run_path(str(Path(self.root, RUNTIME, "building.py")))
            building["compile_kernels"](out)
        except Exception as error:
            if required:
                raise
            # of what a compiler says, the first complaint
            lines = str(error).splitlines() or [repr(error)]
            reason = next((line for line in lines if "error:" in line), lines[0])[:300]
            self.app.display_warning(
                f"secateurs: no compiled kernels, the runtime falls back on Python: {reason}"
            )
            return False
        return True

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the library to what is built: a "standard" or "editable" wheel; none to an sdist."""
        if self.target_name == "sdist":
            # Links into the tree above, as in packaging/runtime, become the files themselves.
            included = build_data["force_include"]
            build_data["force_include"] = {str(Path(f).resolve()): to for f, to in included.items()}
            return
        folder = Path(self.root, RUNTIME)
        if version == "editable" and is_current(folder / LIBRARY):
            return
        # Beside its place, so that moving it there is atomic for processes that use the old one.
        self.scratch = tempfile.TemporaryDirectory(dir=folder if version == "editable" else None)
        library = Path(self.scratch.name, LIBRARY)
        if not self.compile(library):
            if version == "editable":
                # Made from other sources than those beside it.
                (folder / LIBRARY).unlink(missing_ok=True)
            return
        if version == "editable":
            library.replace(folder / LIBRARY)
            return
        build_data["force_include"][str(library)] = str(Path(*RUNTIME.parts[1:], LIBRARY))
        build_data["pure_python"] = False
        # Loaded by ctypes: any Python on this platform.
        platform = self.build_config.builder.get_best_matching_tag().split("-", 2)[2]
        build_data["tag"] = f"py3-none-{platform}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact: str) -> None:
        """Remove what was compiled for a wheel."""
        if hasattr(self, "scratch"):
            self.scratch.cleanup()
