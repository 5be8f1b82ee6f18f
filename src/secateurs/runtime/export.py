"""A program as an ONNX model, with the encoding of a table's columns in front of it.

ONNX has no sparse layers that runtimes make use of: pruned weights are stored as zeros.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from secateurs.errors import InputError
from secateurs.preparation import MISSING, Z_LIMIT, Preparation, feature_names, groups
from secateurs.runtime.program import Op, Program

if TYPE_CHECKING:
    import onnx

__all__ = ["to_onnx"]

_FIRST_OPSET = 13  # softmax over one axis
_MOST_BYTES = 2**31 - 2**16  # of a protobuf, less what is not weights
_DOC = "Written by secateurs. Pruned weights are zeros."


class _Graph:
    """Nodes and constants of a model, each with a name of its own.

    Args:
        taken: names that belong to inputs.
    """

    def __init__(self, taken: Sequence[str]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._taken = set(taken)

    def named(self, name: str) -> str:
        """Return a name that nothing has yet."""
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name

    def constant(self, array: NDArray[Any], name: str = "constant") -> str:
        """Return the name of an array."""
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(array, self.named(name)))
        return self.constants[-1].name

    def add(self, kind: str, *inputs: str, domain: str = "", name: str = "", **fields: Any) -> str:
        """Return the name of what a node makes.

        Args:
            kind: of the node.
            inputs: names of values and constants.
            domain: of the kind.
            name: for what it makes; "" is a new one.
            fields: attributes.
        """
        from onnx import helper

        made = name or self.named(kind.lower())
        self.nodes.append(
            helper.make_node(kind, list(inputs), [made], made, domain=domain or None, **fields)
        )
        return made


def _activation(graph: _Graph, x: str, name: str) -> str:
    """Return what an activation makes of a value."""

    def number(value: float) -> str:
        return graph.constant(np.array(value, np.float32))

    if name in ("gelu", "gelu_tanh"):  # written out: the operator came with opset 20
        inner = x
        if name == "gelu_tanh":
            cube = graph.add("Mul", graph.add("Mul", x, x), x)
            inner = graph.add("Add", x, graph.add("Mul", cube, number(0.044715)))
        factor = math.sqrt(0.5 if name == "gelu" else 2 / math.pi)
        bent = graph.add(
            "Erf" if name == "gelu" else "Tanh", graph.add("Mul", inner, number(factor))
        )
        share = graph.add("Mul", graph.add("Add", bent, number(1)), number(0.5))
        return graph.add("Mul", x, share)
    if name == "softmax":
        return graph.add("Softmax", x, axis=1)
    kinds = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh"}
    return graph.add(kinds[name], x) if name else x


def _window(op: Op) -> dict[str, Any]:
    return {
        "kernel_shape": list(op.kernel),
        "strides": list(op.stride),
        "pads": [*op.padding, *op.padding],
    }


def _layer(graph: _Graph, op: Op, *xs: str) -> str:
    """Return what a linear, conv2d or scale makes."""
    assert op.weight is not None
    name = op.name or op.kind
    shape = (-1, *(1,) * (len(op.shape) - 1)) if op.kind == "scale" else op.weight.shape
    arrays = [graph.constant(op.weight.reshape(shape), f"{name}.weight")]
    if op.bias is not None:
        bias = op.bias.reshape(shape) if op.kind == "scale" else op.bias
        arrays.append(graph.constant(bias, f"{name}.bias"))
    if op.kind == "linear":
        return graph.add("Gemm", *xs, *arrays, transB=1)
    if op.kind == "conv2d":
        return graph.add("Conv", *xs, *arrays, **_window(op))
    made = graph.add("Mul", *xs, arrays[0])
    return graph.add("Add", made, arrays[1]) if op.bias is not None else made


def _operation(graph: _Graph, op: Op, *xs: str) -> str:
    """Return what an operation makes of values, but for its activation."""
    if op.kind in ("linear", "conv2d", "scale"):
        return _layer(graph, op, *xs)
    if op.kind == "max_pool":
        return graph.add("MaxPool", *xs, **_window(op))
    if op.kind == "avg_pool":
        counted = int(op.include_padding)
        return graph.add("AveragePool", *xs, count_include_pad=counted, **_window(op))
    if op.kind == "flatten":
        return graph.add("Flatten", *xs, axis=1)
    if op.kind == "concat":
        return graph.add("Concat", *xs, axis=1)
    kinds = {"add": "Add", "mean": "Mean", "activation": "Identity"}
    return graph.add(kinds[op.kind], *xs)


def _network(graph: _Graph, program: Program, x: str) -> str:
    """Return what a program makes of a batch."""
    values = [x]
    for op in program.ops:
        if op.kind == "call":
            raise InputError(
                f"ONNX holds a whole network, and {op.name or 'a part'} is left to torch; replace "
                "that part by one that the runtime knows"
            )
        if op.kind == "activation" and op.activation:
            made = values[op.inputs[0]]
        else:
            made = _operation(graph, op, *(values[value] for value in op.inputs))
        values.append(_activation(graph, made, op.activation))
    return values[-1]


def _numeric(graph: _Graph, columns: Sequence[dict[str, Any]]) -> str:
    """Return z-scores [rows, columns], in float64 as `preparation.encode` computes them."""
    from onnx import TensorProto

    def row(key: str) -> str:
        numbers = [[column[key] for column in columns]]
        return graph.constant(np.array(numbers, np.float64), key)

    names = [column["name"] for column in columns]
    x = graph.add("Concat", *names, axis=1) if len(names) > 1 else names[0]
    x = graph.add("Cast", x, to=TensorProto.DOUBLE)
    x = graph.add("Where", graph.add("IsNaN", x), row("median"), x)
    x = graph.add("Div", graph.add("Sub", x, row("mean")), row("scale"))
    limits = [graph.constant(np.array(sign * Z_LIMIT), "limit") for sign in (-1, 1)]
    return graph.add("Cast", graph.add("Clip", x, *limits), to=TensorProto.FLOAT)


def _one_hot(graph: _Graph, column: dict[str, Any]) -> str:
    """Return [rows, categories], ones for the category of each string."""
    from onnx import TensorProto

    categories = column["categories"]
    codes = {name: code for code, name in enumerate(categories)}
    if MISSING in codes:
        codes.setdefault("", codes[MISSING])
    code = graph.add(
        "LabelEncoder",
        column["name"],
        domain="ai.onnx.ml",
        keys_strings=list(codes),
        values_int64s=list(codes.values()),
        default_int64=-1,
    )
    every = graph.constant(np.arange(len(categories))[None], "codes")
    return graph.add("Cast", graph.add("Equal", code, every), to=TensorProto.FLOAT)


def _encoded(graph: _Graph, preparation: Preparation) -> str:
    """Return the network's input, [rows, width], made from one input for each column."""
    kept = [column for column in preparation["columns"] if column["kind"] != "dropped"]
    spans = dict(zip((column["name"] for column in kept), groups(preparation), strict=True))
    numeric = [column for column in kept if column["kind"] == "numeric"]
    others = [column for column in kept if column["kind"] != "numeric"]
    parts = [_one_hot(graph, column) for column in others]
    if numeric:
        parts.insert(0, _numeric(graph, numeric))
    x = graph.add("Concat", *parts, axis=1) if len(parts) > 1 else parts[0]
    sources = [place for column in numeric + others for place in range(*spans[column["name"]])]
    if sources != sorted(sources):
        x = graph.add("Gather", x, graph.constant(np.argsort(sources), "order"), axis=1)
    return x


def _column_inputs(preparation: Preparation, numbers: str) -> list[Any]:
    """Return the inputs of a table: [rows, 1] for each column, of numbers or strings."""
    from onnx import TensorProto, helper

    names = feature_names(preparation)
    if "" in names:
        raise InputError("ONNX inputs need names, got a column named ''; rename it and fit again")
    kinds = {column["name"]: column["kind"] for column in preparation["columns"]}
    number = TensorProto.DOUBLE if numbers == "float64" else TensorProto.FLOAT
    return [
        helper.make_tensor_value_info(
            name, number if kinds[name] == "numeric" else TensorProto.STRING, ["rows", 1]
        )
        for name in names
    ]


def _is_probability(program: Program) -> bool:
    """Return whether the output is a softmax, or a mean of them."""
    last = program.ops[-1]
    members = [program.ops[value - 1] for value in last.inputs if value]
    means = last.kind == "mean" and len(members) == len(last.inputs)
    return all(op.activation == "softmax" for op in (members if means else [last]))


def _label(graph: _Graph, made: str, labels: Sequence[Any]) -> Any:
    """Return the output that is the most probable label of each row."""
    from onnx import helper

    classes = np.asarray(labels)
    if classes.dtype.kind in "iu":
        classes = classes.astype(np.int64)
    elif classes.dtype.kind not in "bf":
        classes = np.array([str(label) for label in classes], dtype=object)
    source = graph.constant(classes, "classes")
    place = graph.add("ArgMax", made, axis=1, keepdims=0)
    name = graph.add("Gather", source, place, name=graph.named("label"))
    return helper.make_tensor_value_info(name, graph.constants[-1].data_type, ["rows"])


def _check(program: Program, opset: int, labels: Sequence[Any] | None, numbers: str) -> None:
    from onnx import defs

    newest = defs.onnx_opset_version()
    if not _FIRST_OPSET <= opset <= newest:
        raise InputError(f"opset must be in {_FIRST_OPSET}..{newest}, got {opset}")
    if numbers not in ("float32", "float64"):
        raise InputError(f"numbers must be 'float32' or 'float64', got {numbers!r}")
    if labels is not None and program.output_shape != (len(labels),):
        raise InputError(
            f"labels must be one for each output, got {len(labels)} for outputs of shape "
            f"{program.output_shape}"
        )
    n_bytes = sum(op.weight.nbytes for op in program.ops if op.weight is not None)
    if n_bytes > _MOST_BYTES:
        raise InputError(
            f"an ONNX file holds less than 2 GB, and the weights take {n_bytes:,} bytes, zeros "
            "included; use the format of the runtime"
        )


def to_onnx(
    program: Program,
    *,
    opset: int = 17,
    preparation: Preparation | None = None,
    labels: Sequence[Any] | None = None,
    numbers: Literal["float32", "float64"] = "float32",
) -> "onnx.ModelProto":
    """Return an ONNX model that computes what a program does, for any number of rows.

    Without a preparation its input is "x", float [rows, ...]. With one it has an input [rows, 1]
    for each column that is kept, by its name: numbers with NaN for missing, strings as
    `preparation.canonical` writes them with "" for missing. Infinite numbers are clipped.

    The output is "probabilities", "logits" or, without labels, "output"; "label" comes second.

    Args:
        program: the network, of table columns encoded as the preparation says if there is one.
        opset: version of the operators, from 13.
        preparation: how columns are encoded.
        labels: name of each output: whole numbers, numbers, booleans or strings.
        numbers: type of a table's numeric inputs; float64 for times and others of many digits.

    Raises:
        InputError: a part left to torch, labels or a preparation that do not fit, more than ONNX
            can hold, or onnx is not installed.

    >>> weight = np.ones((2, 3), np.float32)
    >>> op = Op(kind="linear", inputs=(0,), shape=(2,), weight=weight)
    >>> model = to_onnx(Program(input_shape=(3,), ops=(op,)), labels=["no", "yes"])
    >>> [node.op_type for node in model.graph.node], [made.name for made in model.graph.output]
    (['Gemm', 'Identity', 'ArgMax', 'Gather'], ['logits', 'label'])
    """
    try:
        from onnx import TensorProto, checker, helper
    except ImportError as err:
        raise InputError("ONNX export needs onnx; pip install secateurs[onnx]") from err
    _check(program, opset, labels, numbers)
    if preparation is None:
        shape: list[str | int | None] = ["rows", *program.input_shape]
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    else:
        inputs = _column_inputs(preparation, numbers)
    graph = _Graph([value.name for value in inputs])
    x = "x"
    if preparation is not None:
        width = groups(preparation)[-1][1]
        if program.input_shape != (width,):
            raise InputError(
                f"a preparation of width {width} needs a network of as many inputs, got "
                f"{program.input_shape}; pass the model's own"
            )
        x = _encoded(graph, preparation)
    name = "output"
    if labels is not None:
        name = "probabilities" if _is_probability(program) else "logits"
    made = graph.add("Identity", _network(graph, program, x), name=graph.named(name))
    shape = ["rows", *program.output_shape]
    outputs = [helper.make_tensor_value_info(made, TensorProto.FLOAT, shape)]
    if labels is not None:
        outputs.append(_label(graph, made, labels))
    imports = [helper.make_opsetid("", opset)]
    if any(node.domain for node in graph.nodes):
        imports.append(helper.make_opsetid("ai.onnx.ml", 2))
    model = helper.make_model(
        helper.make_graph(graph.nodes, "secateurs", inputs, outputs, graph.constants),
        opset_imports=imports,
        ir_version=helper.find_min_ir_version_for(imports),
        producer_name="secateurs",
        doc_string=_DOC,
    )
    checker.check_model(model, full_check=True)
    return model
