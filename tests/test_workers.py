import os
import subprocess
import sys
import time
from pathlib import Path

import secateurs

WORKER = """
import os, time
from secateurs.workers import end_with
end_with(os.getppid())
end_with(os.getppid())
print(os.getpid(), flush=True)
time.sleep(60)
"""

PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"


def test_a_worker_ends_with_its_parent():
    source = str(Path(secateurs.__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, WORKER],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": source},
    ) as parent:
        worker = int(parent.stdout.readline())
        time.sleep(1)
        os.kill(worker, 0)  # as long as the parent lives, it does
        parent.kill()
        parent.stdout.read()  # the worker holds the other end: this waits for it
