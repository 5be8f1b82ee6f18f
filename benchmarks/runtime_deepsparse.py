"""DeepSparse's side of bench_runtime.py, run by the interpreter of its own environment.

python runtime_deepsparse.py MODEL.onnx X.npy N_THREADS; then lines on standard input: "ready",
"time N" and "save FILE", each answered by one line of JSON.
"""

import json
import os
import sys
import time

os.environ.update(NM_DISABLE_ANALYTICS="1", DO_NOT_TRACK="1")

import deepsparse
import numpy as np


def main():
    """Answer until the input ends."""
    model, path, n_threads = sys.argv[1:]
    x = [np.load(path)]
    engine = deepsparse.Engine(model, batch_size=len(x[0]), num_cores=int(n_threads))
    for line in sys.stdin:
        what, _, argument = line.strip().partition(" ")
        answer = {"library": f"deepsparse {deepsparse.__version__}"}
        if what == "time":
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(int(argument)):
                engine.run(x, val_inp=False)
            answer = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
        elif what == "save":
            np.save(argument, engine.run(x)[0])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
