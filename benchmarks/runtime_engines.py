"""Engines that run one network, each behind one call: [rows, ...] float32 in, [rows, outputs] out.

A maker takes a `Case` and returns the call; `AbsentError` says why there is none. All of them see
the same network in evaluation mode with its BatchNorm folded into weights, and one batch size.
"""

import contextlib
import copy
import functools
import io
import json
import logging
import math
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import fx, nn

DEEPSPARSE = Path(__file__).with_name("runtime_deepsparse.py")


class AbsentError(Exception):
    """An engine that is not here, or does not take the network; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """What an engine is made for.

    Args:
        network: folded, in evaluation mode; pruned weights are zero.
        x: [batch, ...] float32, the rows that are timed.
        n_threads: of the engine.
        deepsparse: the interpreter of DeepSparse's own environment, or None.
    """

    network: nn.Module
    x: np.ndarray
    n_threads: int = 1
    deepsparse: Path | None = None


def _linears(network: nn.Module) -> list[tuple[nn.Linear, bool]]:
    """Return the Linear layers of a chain, each with whether a ReLU follows."""
    layers = [m for m in network.modules() if not list(m.children())]
    found: list[tuple[nn.Linear, bool]] = []
    for module in layers:
        if isinstance(module, nn.Linear):
            found.append((module, False))
        elif isinstance(module, nn.ReLU) and found:
            found[-1] = (found[-1][0], True)
        elif not isinstance(module, (nn.Identity, nn.Flatten)):
            raise AbsentError("runs chains of Linear and ReLU only")
    return found


# --- torch -----------------------------------------------------------------------------------


def torch_eager(case: Case) -> Callable:
    """Return the module itself."""
    network, (x,) = case.network, _tensors(case)
    return lambda: network(x).numpy()


def torch_compile(case: Case) -> Callable:
    """Return what inductor makes of it, with frozen weights."""
    from torch._inductor import config

    (x,) = _tensors(case)
    with config.patch(freezing=True), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = torch.compile(case.network, dynamic=False)
        network(x)
    return lambda: network(x).numpy()


def torch_csr(case: Case) -> Callable:
    """Return products with `torch.sparse_csr` matrices, features first."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "in beta state"
        layers = [
            (layer.weight.detach().to_sparse_csr(), layer.bias.detach()[:, None], relu)
            for layer, relu in _linears(case.network)
        ]
    (x,) = _tensors(case)
    x = x.flatten(1)

    def run() -> np.ndarray:
        h = x.T
        for weight, bias, relu in layers:
            h = torch.sparse.mm(weight, h).add_(bias)
            h = h.relu_() if relu else h
        return h.T.numpy()

    return run


def _tensors(case: Case) -> tuple[torch.Tensor]:
    x = torch.from_numpy(case.x)
    # the faster layout for convolutions, and what ResNet18 itself changes to
    return (x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x,)


# --- oneDNN, its weights packed before -------------------------------------------------------


class _PackedConv(nn.Module):
    def __init__(self, conv: nn.Conv2d, size: tuple[int, ...], post: str) -> None:
        super().__init__()
        options = (conv.padding, conv.stride, conv.dilation, conv.groups)
        self.bias, self.options, self.post = conv.bias, options, post
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(
            conv.weight.detach(), *options, size
        )

    def forward(self, x: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        if other is not None:
            return torch.ops.mkldnn._convolution_pointwise.binary(
                x, other, self.weight, self.bias, *self.options, "add", 1.0, "relu", [], ""
            )
        return torch.ops.mkldnn._convolution_pointwise(
            x, self.weight, self.bias, *self.options, self.post, [], ""
        )


class _PackedLinear(nn.Module):
    def __init__(self, linear: nn.Linear, n: int, post: str) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), n)
        self.bias, self.post = linear.bias, post

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, self.post, [], "")


def onednn(case: Case) -> Callable:
    """Return the network with packed weights and the ReLU fused into each product."""
    (x,) = _tensors(case)
    linears = []
    with contextlib.suppress(AbsentError):
        linears = _linears(case.network)
    if linears:
        packed = [_PackedLinear(m, len(x), "relu" if relu else "none") for m, relu in linears]

        def run() -> np.ndarray:
            h = x.flatten(1)
            for layer in packed:
                h = layer(h)
            return h.numpy()

        return run
    traced = fx.symbolic_trace(case.network)
    fx.passes.shape_prop.ShapeProp(traced).propagate(x)
    modules = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(module, (nn.Conv2d, nn.Linear)):
            continue
        shape = tuple(node.args[0].meta["tensor_meta"].shape)
        user = next(iter(node.users))
        fused = len(node.users) == 1 and isinstance(modules.get(str(user.target)), nn.ReLU)
        post = "relu" if fused else "none"
        name = str(node.target)
        parent = traced.get_submodule(name.rpartition(".")[0])
        made = (
            _PackedConv(module, shape, post)
            if isinstance(module, nn.Conv2d)
            else _PackedLinear(module, len(x), post)
        )
        setattr(parent, name.rpartition(".")[2], made)
        if fused:
            user.replace_all_uses_with(node)
            traced.graph.erase_node(user)
    traced.recompile()
    return lambda: traced(x).numpy()


# --- ONNX ------------------------------------------------------------------------------------


def onnx_bytes(network: nn.Module, x: np.ndarray) -> bytes:
    """Return the network as ONNX, by torch's own exporter, with a dynamic batch."""
    file = io.BytesIO()
    axes = {"x": {0: "n"}, "y": {0: "n"}}
    names = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": axes}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = torch.from_numpy(x[:1])
        torch.onnx.export(network, (example,), file, dynamo=False, opset_version=13, **names)
    return file.getvalue()


def _session(model: bytes | str, n_threads: int) -> Callable:
    ort = _imported("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = n_threads, 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run


def onnx_session(case: Case, *, int8: bool) -> tuple[Callable, int]:
    """Return ONNX Runtime's call on the network, and the bytes of the model.

    Args:
        case: what it is made for.
        int8: weights in int8; activations are quantised as it runs.
    """
    onnx = _imported("onnx")
    model = onnx_bytes(case.network, case.x)
    if int8:
        _imported("onnxruntime")
        from onnxruntime.quantization import QuantType, quantize_dynamic

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "int8.onnx"
            logging.disable(logging.WARNING)
            quantize_dynamic(onnx.load_from_string(model), path, weight_type=QuantType.QInt8)
            logging.disable(logging.NOTSET)
            model = path.read_bytes()
    return _session(model, case.n_threads), len(model)


def _imported(name: str):
    try:
        return __import__(name)
    except ImportError as err:
        raise AbsentError(f"{name} is not installed ({err})") from err


def ort(case: Case) -> Callable:
    """Return ONNX Runtime's session."""
    run, _ = onnx_session(case, int8=False)
    return lambda: run(None, {"x": case.x})[0]


def ort_int8(case: Case) -> Callable:
    """Return ONNX Runtime's session on int8 weights."""
    run, _ = onnx_session(case, int8=True)
    return lambda: run(None, {"x": case.x})[0]


def openvino(case: Case) -> Callable:
    """Return OpenVINO's compiled model in fp32."""
    return _openvino(case, "f32")


def openvino_bf16(case: Case) -> Callable:
    """Return OpenVINO's compiled model in bf16."""
    return _openvino(case, "bf16")


def _openvino(case: Case, precision: str) -> Callable:
    ov = _imported("openvino")
    core = ov.Core()
    model = core.read_model(io.BytesIO(onnx_bytes(case.network, case.x)))
    model.reshape(list(case.x.shape))
    options = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": case.n_threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,
    }
    compiled = core.compile_model(model, "CPU", options)
    return lambda: compiled(case.x, share_inputs=True, share_outputs=True)[0]


# --- sparse ----------------------------------------------------------------------------------


def scipy(case: Case) -> Callable:
    """Return products with SciPy's CSR matrices, features first."""
    from scipy.sparse import csr_array

    layers = [
        (csr_array(layer.weight.detach().numpy()), layer.bias.detach().numpy()[:, None], relu)
        for layer, relu in _linears(case.network)
    ]
    x = case.x.reshape(len(case.x), -1)

    def run() -> np.ndarray:
        h = np.ascontiguousarray(x.T)
        for weight, bias, relu in layers:
            h = weight @ h
            h += bias
            if relu:
                np.maximum(h, 0, out=h)
        return h.T

    return run


class DeepSparse:
    """DeepSparse in a process of its own: it takes turns, and tells its own CPU seconds."""

    def __init__(self, case: Case) -> None:
        if case.deepsparse is None or not case.deepsparse.exists():
            raise AbsentError("DeepSparse needs --deepsparse PYTHON, that of its own environment")
        self.folder = tempfile.TemporaryDirectory()
        self.model, self.x, self.y = (f"{self.folder.name}/{n}" for n in ("m.onnx", "x.npy", "y"))
        Path(self.model).write_bytes(onnx_bytes(case.network, case.x))
        np.save(self.x, case.x)
        self.process = subprocess.Popen(
            [case.deepsparse, DEEPSPARSE, self.model, self.x, str(case.n_threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        answer = self._ask("ready")
        self.library = answer["library"]

    def _ask(self, what: str) -> dict:
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise AbsentError(f"DeepSparse ended ({self.process.wait()})")

    def __call__(self) -> np.ndarray:
        self._ask(f"save {self.y}.npy")
        return np.load(f"{self.y}.npy")

    def seconds(self, n: int) -> tuple[float, float]:
        """Return CPU and wall seconds of n calls."""
        answer = self._ask(f"time {n}")
        return answer["cpu"], answer["wall"]

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait(timeout=20)
        self.folder.cleanup()


# --- ours ------------------------------------------------------------------------------------


def _ours(case: Case, precision: str) -> Callable:
    try:
        from secateurs import runtime

        compile_ = runtime.compile
    except (ImportError, AttributeError) as err:
        raise AbsentError(f"secateurs.runtime.compile is not there ({err})") from err
    engine = compile_(case.network, example=torch.from_numpy(case.x), precision=precision)
    run = functools.partial(engine, case.x, n_threads=case.n_threads)
    run.engine = engine
    return run


def _compacted(case: Case):
    """Return the program of the network without its dead neurons."""
    try:
        from secateurs.runtime.compact import compact
        from secateurs.runtime.reading import read
    except ImportError as err:
        raise AbsentError(f"there is no compaction ({err})") from err
    return compact(read(case.network, None, torch.from_numpy(case.x)))


def ort_compact(case: Case) -> Callable:
    """Return ONNX Runtime on the network without its dead neurons."""
    _imported("onnx")
    from secateurs.runtime.export import to_onnx

    run = _session(to_onnx(_compacted(case)).SerializeToString(), case.n_threads)
    return lambda: run(None, {"x": case.x})[0]


def onednn_compact(case: Case) -> Callable:
    """Return packed oneDNN on a chain of layers without its dead neurons."""
    layers: list[nn.Module] = []
    for op in _compacted(case).ops:
        if op.kind != "linear" or op.activation not in ("", "relu"):
            raise AbsentError("runs chains of Linear and ReLU only")
        layer = nn.Linear(op.weight.shape[1], op.weight.shape[0])
        layer.weight = nn.Parameter(torch.tensor(op.weight), requires_grad=False)
        bias = np.zeros(len(op.weight), np.float32) if op.bias is None else op.bias
        layer.bias = nn.Parameter(torch.tensor(bias), requires_grad=False)
        layers += [layer, *([nn.ReLU()] if op.activation else [])]
    return onednn(replace(case, network=nn.Sequential(*layers)))


MAKERS: dict[str, Callable[[Case], Callable]] = {
    "torch": torch_eager,
    "torch_compile": torch_compile,
    "onednn": onednn,
    "ort": ort,
    "ort_int8": ort_int8,
    "openvino": openvino,
    "openvino_bf16": openvino_bf16,
    "onednn_compact": onednn_compact,
    "ort_compact": ort_compact,
    "torch_csr": torch_csr,
    "scipy": scipy,
    "deepsparse": DeepSparse,
    "ours": lambda case: _ours(case, "fp32"),
    "ours_bf16": lambda case: _ours(case, "bf16"),
    "ours_int8": lambda case: _ours(case, "int8"),
}
DENSE = ("torch", "torch_compile", "onednn", "ort", "openvino")
"""Dense engines in fp32, the best of which is what counts; masks do not change their time."""

COMPACTED = ("onednn_compact", "ort_compact")
"""Dense engines of the network that our compaction leaves: what dead neurons alone are worth."""

WANTED_ERROR = {"ort_int8": 0.5, "ours_int8": 0.5, "ours_bf16": 0.1, "openvino_bf16": 0.1}
"""Largest error that precision explains, relative to the largest output; 1e-4 for the others."""


def reference(network: nn.Module, x: np.ndarray) -> np.ndarray:
    """Return the outputs in float64."""
    with torch.inference_mode():
        return copy.deepcopy(network).double()(torch.from_numpy(x).double()).numpy()


def flops(case: Case) -> int:
    """Return the operations of one row: two a kept weight and place, dead neurons left out."""
    return sum(
        2 * int(np.count_nonzero(op.weight)) * math.prod(op.shape[1:])
        for op in _compacted(case).ops
        if op.kind in ("linear", "conv2d")
    )


def error(name: str, y: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest error over the largest output.

    Raises:
        AbsentError: more than the precision explains. DeepSparse's is told, not refused: it is
            wrong by a third at small batches of 9x512, and exact at large ones.
    """
    found = float(np.abs(y - expected).max() / np.abs(expected).max())
    if name != "deepsparse" and not found <= WANTED_ERROR.get(name, 1e-4):
        raise AbsentError(f"wrong by {found:.2g} of the largest output")
    return found


def seconds(run: Callable, n: int) -> tuple[float, float]:
    """Return process CPU and wall seconds of n calls."""
    if isinstance(run, DeepSparse):
        return run.seconds(n)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(n):
        run()
    return time.process_time() - cpu, time.perf_counter() - wall
