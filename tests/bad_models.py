"""Small ONNX models, each with one hazard planted at nodes of known names: what lint must find."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

FLOAT, INT32, INT64, DOUBLE, BOOL = (
    TensorProto.FLOAT,
    TensorProto.INT32,
    TensorProto.INT64,
    TensorProto.DOUBLE,
    TensorProto.BOOL,
)
RANDOM = np.random.default_rng(0)


@dataclass(frozen=True)
class Planted:
    """A hazard: its rule and level, the nodes it is at, and the model that has it."""

    rule: str
    level: str
    nodes: tuple[str, ...]
    make: Callable[[], onnx.ModelProto]


def constants(**values: np.ndarray | float) -> list[onnx.TensorProto]:
    made = {
        name: np.asarray(value, np.float32) if isinstance(value, float) else value
        for name, value in values.items()
    }
    return [numpy_helper.from_array(value, name) for name, value in made.items()]


def weights(*shape: int) -> np.ndarray:
    return RANDOM.normal(0, 0.1, shape).astype(np.float32)


def model(
    given: tuple[str, int, list[int | str]],
    made: tuple[str, int, list[int | str]],
    nodes: list[onnx.NodeProto],
    initializers: list[onnx.TensorProto] | None = None,
    opset: int = 18,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "bad",
        [helper.make_tensor_value_info(*given)],
        [helper.make_tensor_value_info(*made)],
        initializers or [],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.acme", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def node(kind: str, inputs: str, outputs: str, name: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), outputs.split(), name=name, **attributes)


def floats(*nodes: onnx.NodeProto, shape: tuple[int, ...] = (1, 8), **values: np.ndarray | float):
    """A chain over hidden values ``x`` to ``y`` of one shape; scale and shift stand before it."""
    kept = list(shape)
    return model(("x", FLOAT, kept), ("y", FLOAT, kept), list(nodes), constants(**values))


def ids(*nodes: onnx.NodeProto, dtype: int = INT32, **values: np.ndarray | float):
    """Token ids ``text`` [1, 77] to ``text_embedding`` [1, 4]: embedded, then what is given."""
    start = [node("Gather", "table text", "hidden", "embed")]
    return model(
        ("text", dtype, [1, 77]),
        ("text_embedding", FLOAT, [1, 4]),
        start + list(nodes),
        constants(table=weights(49408, 4), **values),
    )


def pixels(
    *nodes: onnx.NodeProto,
    name: str = "image",
    normalise: tuple[tuple[str, float], ...] = (("Sub", 0.5), ("Mul", 4.0)),
    high: float = 1.0,
    **values: np.ndarray | float,
):
    """Host pixels of the contract with this ``high`` to ``image_embedding`` [1, 4].

    What is given turns ``p`` into ``q``; before it stand operators with a number for every channel.
    """
    start, end = [node("Identity", name, "p0", "given")], "p0"
    numbers = {}
    for place, (kind, number) in enumerate(normalise):
        numbers[f"n{place}"] = np.full((1, 3, 1, 1), number, np.float32)
        start.append(node(kind, f"p{place} n{place}", f"p{place + 1}", f"{kind.lower()}_{place}"))
        end = f"p{place + 1}"
    start.append(node("Identity", end, "p", "normalised"))
    pooled = [
        node("ReduceMean", "q axes", "m", "pool", keepdims=0),
        node("ReduceL2", "m last", "length", "norm", keepdims=1),
        node("Div", "m length", "image_embedding", "unit"),
    ]
    size = 224 if high == 1 else 1024
    return model(
        (name, FLOAT, [1, 3, size, size]),
        ("image_embedding", FLOAT, [1, 4]),
        [*start, *nodes, *pooled],
        constants(axes=np.array([2, 3]), last=np.array([1]), **numbers, **values),
    )


def conv(inputs: str, output: str, name: str) -> onnx.NodeProto:
    return node("Conv", inputs, output, name, pads=[1, 1, 1, 1])


def pooled(hidden: str = "hidden") -> list[onnx.NodeProto]:
    return [node("ReduceMean", f"{hidden} middle", "text_embedding", "pool", keepdims=0)]


MIDDLE = {"middle": np.array([1])}
W = weights(4, 3, 3, 3)
CUBIC = {"mode": "cubic", "coordinate_transformation_mode": "half_pixel"}


# The ways to multiply x, half and (one + erf): each the inputs and output of two products.
GELUS = (("x c", "d", "d half", "y"), ("x half", "d", "d c", "y"), ("c half", "d", "x d", "y"))


def gelu(
    products: tuple[str, ...] = GELUS[0], root: float = 2**0.5, one: float = 1.0, half: float = 0.5
) -> onnx.ModelProto:
    return floats(
        node("Div", "x root", "a", "gelu_div"),
        node("Erf", "a", "b", "gelu_erf"),
        node("Add", "b one", "c", "gelu_add"),
        node("Mul", *products[:2], "gelu_mul"),
        node("Mul", *products[2:], "gelu_half"),
        root=root, one=one, half=half,
    )  # fmt: skip


def quantised_padding(value: float, high: float, mode: str = "constant") -> onnx.ModelProto:
    """x as 16 bits from 0 to ``high``, padded with ``value``; both together then from 0 to 1."""
    proto = floats(
        node("QuantizeLinear", "x step zero", "q", "quantise"),
        node("DequantizeLinear", "q step zero", "d", "dequantise"),
        node("Pad", "d ends value", "p", "pad_it", mode=mode),
        node("QuantizeLinear", "p wide zero", "r", "quantise_again"),
        node("DequantizeLinear", "r wide zero", "y", "dequantise_again"),
        step=high / 65535, wide=1 / 65535, value=value,
        zero=np.array(0, np.uint16), ends=np.array([0, 0, 0, 2]),
    )  # fmt: skip
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 10
    proto.opset_import[0].version = 21
    return proto


def quantised_channels(kind: str) -> onnx.ModelProto:
    """x of -1 to 1 to y of -4 to 4, in 16 bits; weights in 8, with a scale for each of 16 channels.

    ``kind``: Conv, of [1, 16, 8, 8], Concat, of two such of unlike ranges, or Gemm or MatMul, of [64, 16].
    """
    if kind == "Concat":
        return _joined(quantised_channels("Conv"))
    shape = [1, 16, 8, 8] if kind == "Conv" else [64, 16]
    weights = (16, 16, 1, 1) if kind == "Conv" else (16, 16)
    across = 0 if kind == "Conv" else 1
    plain = kind == "MatMul"
    random = np.random.default_rng(0)
    each = random.uniform(0.5, 1, 16).astype(np.float32) * 0.5 / 127
    shifts = random.integers(-9999, 9999, 16).astype(np.int32)
    shifts[:4] = np.iinfo(np.int32).max
    return model(
        ("x", FLOAT, shape),
        ("y", FLOAT, shape),
        [
            node("QuantizeLinear", "x near middle", "q", "quantise"),
            node("DequantizeLinear", "q near middle", "d", "dequantise"),
            node("DequantizeLinear", "levels each half", "w", "weigh", axis=across),
            *([] if plain else [node("DequantizeLinear", "shifts steps none", "b", "shift", axis=0)]),
            node(kind, "d w" if plain else "d w b", "c", "multiply"),
            node("QuantizeLinear", "c far middle", "o", "quantise_last"),
            node("DequantizeLinear", "o far middle", "y", "dequantise_last"),
        ],
        constants(
            levels=random.integers(0, 256, weights, np.uint8), each=each,
            half=np.full(16, 128, np.uint8), near=2 / 65535, far=8 / 65535, middle=np.array(32768, np.uint16),
            shifts=shifts, steps=each * np.float32(2 / 65535),
            none=np.zeros(16, np.int32),
        ),
        opset=21,
    )  # fmt: skip


def _joined(one: onnx.ModelProto) -> onnx.ModelProto:
    """Its channels, and those of a third of its weights in steps of a third, with nothing added."""
    other = compose.add_prefix(one, "low_", rename_inputs=False)
    for tensor in other.graph.initializer:
        times = {"low_each": 1 / 3, "low_far": 1 / 3, "low_steps": 1 / 3, "low_shifts": 0}.get(tensor.name, 1)
        value = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array((value * times).astype(value.dtype), tensor.name))
    del other.graph.node[:2]  # x is quantised once
    for taker in other.graph.node:
        taker.input[:] = ["d" if name == "low_d" else name for name in taker.input]
    one.graph.node.extend(other.graph.node)
    one.graph.initializer.extend(other.graph.initializer)
    one.graph.node.extend(
        [
            node("Concat", "y low_y", "both", "join", axis=1),
            node("QuantizeLinear", "both far middle", "j", "quantise_both"),
            node("DequantizeLinear", "j far middle", "joined", "dequantise_both"),
        ]
    )
    one.graph.output[0].CopyFrom(helper.make_tensor_value_info("joined", FLOAT, [1, 32, 8, 8]))
    return one


def quantised_transpose(low: float) -> onnx.ModelProto:
    """x as 16 bits from -1 to 1, transposed, from ``low`` to 1, and convolved, each channel with a scale."""
    levels = np.random.default_rng(0).integers(0, 256, (8, 8, 1, 1), np.uint8)
    step = (1 - low) / 65535
    return model(
        ("x", FLOAT, [1, 8, 8, 8]),
        ("y", FLOAT, [1, 8, 8, 8]),
        [
            node("QuantizeLinear", "x wide middle", "q", "quantise"),
            node("DequantizeLinear", "q wide middle", "d", "dequantise"),
            node("Transpose", "d", "t", "turn", perm=[0, 3, 1, 2]),
            node("QuantizeLinear", "t step zero", "r", "quantise_again"),
            node("DequantizeLinear", "r step zero", "s", "dequantise_again"),
            node("DequantizeLinear", "levels each half", "w", "weigh", axis=0),
            node("Conv", "s w", "c", "convolve"),
            node("QuantizeLinear", "c far middle", "o", "quantise_last"),
            node("DequantizeLinear", "o far middle", "y", "dequantise_last"),
        ],
        constants(
            levels=levels, each=np.linspace(0.5, 1, 8, dtype=np.float32) / 127,
            half=np.full(8, 128, np.uint8),
            wide=2 / 65535, middle=np.array(32768, np.uint16),
            step=step, zero=np.array(round(-low / step), np.uint16), far=16 / 65535,
        ),
        opset=21,
    )  # fmt: skip


def quantised_product(
    rows: int, columns: int = 64, heads: int = 2, kind: type = np.uint16
) -> onnx.ModelProto:
    """``x`` [heads, 16, rows + columns] of 0 to 1, cut in two, and the product of both: from 0 to 16."""
    top = np.iinfo(kind).max

    def quantised(given: str, made: str, step: str) -> list[onnx.NodeProto]:
        return [
            node("QuantizeLinear", f"{given} {step} zero", f"{made}_q", f"{made}_quantise"),
            node("DequantizeLinear", f"{made}_q {step} zero", made, f"{made}_dequantise"),
        ]

    return model(
        ("x", FLOAT, [1, heads, 16, rows + columns]),
        ("y", FLOAT, [1, heads, rows, columns]),
        [
            *quantised("x", "d", "step"),
            node("Split", "d sizes", "a b", "split", axis=3),
            *quantised("a", "left", "step"),
            node("Transpose", "left", "t", "turn", perm=[0, 1, 3, 2]),
            *quantised("t", "turned", "step"),
            *quantised("b", "right", "step"),
            node("MatMul", "turned right", "p", "product"),
            *quantised("p", "y", "wide"),
        ],
        constants(
            step=float(1 / top), wide=float(16 / top), zero=np.array(0, kind),
            sizes=np.array([rows, columns]),
        ),
        opset=21,
    )  # fmt: skip


def quantised_windows(
    windows: int = 4, kind: type = np.uint16, parts: int = 3, slices: bool = False
) -> onnx.ModelProto:
    """A convolution of several windows at once, cut into queries, keys and values."""
    ends = range(0, 49, 48 // parts)
    cuts = [node("Split", "f", " ".join("qky"[3 - parts :]), "cut", axis=1, num_outputs=parts)]
    if slices:
        cuts = [
            node("Slice", f"f end{low} end{high} axis", part, f"cut_{part}")
            for part, low, high in zip("qky"[3 - parts :], ends, ends[1:], strict=False)
        ]
    return model(
        ("x", FLOAT, [windows, 16, 7, 7]),
        ("y", FLOAT, [windows, 48 // parts, 7, 7]),
        [
            node("Sub", "x half", "n", "shift"),
            node("QuantizeLinear", "n step zero", "xq", "quantise"),
            node("DequantizeLinear", "xq step zero", "d", "dequantise"),
            node("Conv", "d w", "c", "packed"),
            node("QuantizeLinear", "c step zero", "cq", "quantise_again"),
            node("DequantizeLinear", "cq step zero", "e", "dequantise_again"),
            node("Reshape", "e same", "f", "keep"),
            *cuts,
        ],
        constants(
            half=0.5, step=1e-4, zero=np.array(0, kind), w=weights(48, 16, 1, 1),
            same=np.array([0, 48, 7, 7]), axis=np.array([1]), **{f"end{at}": np.array([at]) for at in ends},
        ),
        opset=21,
    )  # fmt: skip


def hard_swish(
    product: str = "x gate", alpha: float = 1 / 6, beta: float = 0.5, quantised: bool = False
) -> onnx.ModelProto:
    """x HardSigmoid(x), as two nodes."""
    before = [
        node("QuantizeLinear", "given step zero", "q", "quantise"),
        node("DequantizeLinear", "q step zero", "x", "dequantise"),
    ]
    return model(
        ("given", FLOAT, [1, 8]),
        ("y", FLOAT, [1, 8]),
        [
            *(before if quantised else [node("Mul", "given two", "x", "double")]),
            node("HardSigmoid", "x", "gate", "gate", alpha=alpha, beta=beta),
            node("Mul", product, "y", "swish"),
        ],
        constants(two=2.0, step=1e-3, zero=np.array(0, np.uint16)),
        opset=21,
    )


def masked_attention(mask: float) -> onnx.ModelProto:
    return attention_masked_by(mask=np.triu(np.full((8, 8), mask, np.float32), 1))


def filled_mask(mask: float, size: int = 8) -> onnx.ModelProto:
    """A mask that is filled in and cut to its upper half when compiled, as older exporters leave it."""
    value = numpy_helper.from_array(np.array([mask], np.float32))
    return attention_masked_by(
        node("ConstantOfShape", "shape", "full", "fill", value=value),
        node("Trilu", "full one", "mask", "upper", upper=1),
        shape=np.array([size, size]), one=np.array(1),
    )  # fmt: skip


def single_mask(mask: float) -> onnx.ModelProto:
    """All tokens but the first are masked by one number in a Constant node."""
    return attention_masked_by(
        node("Constant", "", "far", "number", value_float=mask),
        node("Where", "first none far", "mask", "choose"),
        first=np.eye(1, 8, dtype=bool), none=0.0,
    )  # fmt: skip


def attention_masked_by(*nodes: onnx.NodeProto, **values: np.ndarray | float) -> onnx.ModelProto:
    add = [node("Add", "x mask", "a", "add_mask"), node("Softmax", "a", "y", "softmax")]
    return model(("x", FLOAT, [2, 8, 8]), ("y", FLOAT, [2, 8, 8]), [*nodes, *add], constants(**values))


def computed_mask() -> onnx.ModelProto:
    """A mask of -1 / 0 at the later tokens, computed of constants, as an export that folds nothing has it."""
    return attention_masked_by(
        node("Div", "ones zero", "far", "divide"),
        node("Trilu", "far first", "mask", "upper", upper=1),
        ones=np.full((8, 8), -1, np.float32), zero=0.0, first=np.array(1),
    )  # fmt: skip


def cut_where_told() -> onnx.ModelProto:
    """Static at both ends; in between, as many values of ``x`` as its largest one says."""
    return floats(
        node("ReduceMax", "x axes", "most", "most", keepdims=0),
        node("Cast", "most", "end", "to_number", to=INT64),
        node("Slice", "x start end axes", "some", "cut"),
        node("Relu", "some", "rectified", "after"),
        node("ReduceSum", "rectified axes", "total", "sum"),
        node("Add", "x total", "y", "add"),
        start=np.array([0]), axes=np.array([1]),
    )  # fmt: skip


def resize(kind: dict[str, object], name: str = "resize", scale: float = 0.5) -> onnx.ModelProto:
    return pixels(
        helper.make_node("Resize", ["p", "", "scales"], ["r"], name=name, **kind),
        conv("r w", "q", "conv"),
        scales=np.array([1, 1, scale, scale], np.float32), w=W,
    )  # fmt: skip


def nearest(place: str, rounding: str, scale: float = 0.5) -> onnx.ModelProto:
    return resize({"coordinate_transformation_mode": place, "nearest_mode": rounding}, scale=scale)


def upsampled() -> onnx.ModelProto:
    up = node("Upsample", "x scales", "y", "upsample")
    given, made = ("x", FLOAT, [1, 3, 4, 4]), ("y", FLOAT, [1, 3, 8, 8])
    return model(given, made, [up], constants(scales=np.array([1, 1, 2, 2], np.float32)), opset=9)


def eot_argmax() -> onnx.ModelProto:
    return ids(
        node("ArgMax", "text", "eot", "find_eot", axis=1, keepdims=0),
        node("Gather", "hidden eot", "picked", "pick", axis=1),
        node("ReduceMean", "picked middle", "text_embedding", "pool", keepdims=0),
        **MIDDLE,
    )


def gather_nd() -> onnx.ModelProto:
    return floats(node("GatherND", "x place", "y", "pick_nd"), place=np.array([[0]]))


def scatter_nd() -> onnx.ModelProto:
    return floats(
        node("ScatterND", "x place update", "y", "write_nd"), place=np.array([[0, 1]]), update=weights(1)
    )


def where_on_mask() -> onnx.ModelProto:
    return floats(
        node("Greater", "x zero", "m", "test"), node("Where", "m x low", "y", "choose"), zero=0.0, low=-1e4
    )


def packed_attention() -> onnx.ModelProto:
    return model(
        ("x", FLOAT, [3, 5, 1, 8]),
        ("y", FLOAT, [5, 1, 8]),
        [
            node("Gather", "x zero", "q", "pick_q", axis=0),
            node("Gather", "x one", "k", "pick_k", axis=0),
            node("Add", "q k", "y", "sum"),
        ],
        constants(zero=np.array(0), one=np.array(1)),
    )


def branches() -> onnx.ModelProto:
    return pixels(
        conv("p w3", "a", "conv3"),
        node("Conv", "p w1", "b", "conv1"),
        node("Add", "a b", "q", "join"),
        w3=W, w1=weights(4, 3, 1, 1),
    )  # fmt: skip


def batch_norm() -> onnx.ModelProto:
    stats = {"g": weights(4), "s": weights(4), "mu": weights(4), "var": np.ones(4, np.float32)}
    return pixels(
        conv("p w", "a", "conv"), node("BatchNormalization", "a g s mu var", "q", "norm"), w=W, **stats
    )


def one_skip_branch() -> onnx.ModelProto:
    """RepVGG's identity branch: a BatchNorm straight on the input, beside a convolution."""
    stats = {"g": weights(3), "s": weights(3), "mu": weights(3), "var": np.ones(3, np.float32)}
    return pixels(
        conv("p w", "a", "conv"),
        node("BatchNormalization", "p g s mu var", "b", "skip"),
        node("Add", "a b", "c", "join"),
        conv("c w4", "q", "last"),
        w=weights(3, 3, 3, 3), w4=W, **stats,
    )  # fmt: skip


def window_partition() -> onnx.ModelProto:
    return floats(
        node("Reshape", "x six", "a", "split_windows"),
        node("Transpose", "a", "b", "turn_windows", perm=[0, 1, 3, 2, 4, 5]),
        node("Reshape", "b back", "y", "merge"),
        shape=(1, 64), six=np.array([1, 2, 2, 4, 2, 2]), back=np.array([1, 64]),
    )  # fmt: skip


def projected_attention(count: int, *cuts: onnx.NodeProto, **values: np.ndarray) -> onnx.ModelProto:
    """Attention of one head over ``count`` tokens; ``cuts`` make q, k and v of the projection ``p``."""
    return model(
        ("x", FLOAT, [1, count, 8]),
        ("y", FLOAT, [1, count, 8]),
        [
            node("MatMul", "x w", "product", "project"),
            node("Add", "product b", "p", "bias"),
            *cuts,
            node("Transpose", "k", "t", "turn", perm=[0, 2, 1]),
            node("Mul", "q scale", "scaled", "scale_q"),
            node("MatMul", "scaled t", "logits", "ask"),
            node("Softmax", "logits", "weighted", "softmax"),
            node("MatMul", "weighted v", "y", "answer"),
        ],
        constants(w=weights(8, 24), b=weights(24), scale=0.35, **values),
    )


def split_attention(count: int) -> onnx.ModelProto:
    return projected_attention(count, node("Split", "p", "q k v", "cut", axis=2, num_outputs=3))


def sliced_attention(count: int) -> onnx.ModelProto:
    cuts = [
        node("Slice", f"p at_{start} at_{end} axis", name, f"cut_{name}")
        for name, start, end in (("q", 0, 8), ("k", 8, 16), ("v", 16, 24))
    ]
    places = {f"at_{place}": np.array([place]) for place in (0, 8, 16, 24)}
    return projected_attention(count, *cuts, axis=np.array([2]), **places)


def three_projections(count: int) -> onnx.ModelProto:
    products = [node("MatMul", f"p w_{name}", name, f"project_{name}") for name in "qkv"]
    return projected_attention(count, *products, **{f"w_{name}": weights(24, 8) for name in "qkv"})


def attention_over(count: int) -> onnx.ModelProto:
    return model(
        ("x", FLOAT, [3, 1, 2, count, 8]),
        ("y", FLOAT, [1, 2, count, count]),
        [
            *(node("Gather", f"x {name}", name[0], f"pick_{name[0]}", axis=0) for name in ("query", "key")),
            node("Transpose", "k", "t", "turn", perm=[0, 1, 3, 2]),
            node("MatMul", "q t", "logits", "ask"),
            node("Softmax", "logits", "y", "softmax"),
        ],
        constants(query=np.array(0), key=np.array(1)),
    )


def dynamic_batch() -> onnx.ModelProto:
    return model(("x", FLOAT, ["batch", 8]), ("y", FLOAT, ["batch", 8]), [node("Relu", "x", "y", "relu")])


def misnamed() -> onnx.ModelProto:
    return pixels(conv("p w", "q", "conv"), name="pixel_values", w=W)


def int64_ids() -> onnx.ModelProto:
    return ids(*pooled(), dtype=INT64, **MIDDLE)


def int64_inside() -> onnx.ModelProto:
    return ids(
        node("Cast", "text", "wide", "to_int64", to=INT64),
        node("Gather", "table wide", "again", "embed_again"),
        node("Add", "hidden again", "both", "both"),
        *pooled("both"),
        **MIDDLE,
    )


def doubles() -> onnx.ModelProto:
    return floats(node("Cast", "x", "a", "widen", to=DOUBLE), node("Cast", "a", "y", "narrow", to=FLOAT))


def single(kind: str, name: str, domain: str = "") -> onnx.ModelProto:
    return floats(node(kind, "x", "y", name, domain=domain))


def einsum() -> onnx.ModelProto:
    return floats(node("Einsum", "x w", "y", "product", equation="bi,ij->bj"), w=weights(8, 8))


def choice(
    then: str, otherwise: str = "Identity", behind: str = "Relu", *nodes: onnx.NodeProto
) -> onnx.ModelProto:
    """An If between two operators on ``x``, and one behind it; it chooses the first, or as ``nodes`` say."""
    branches = {"then_branch": then, "else_branch": otherwise}
    bodies = {
        name: helper.make_graph(
            [node(kind, "x", name, f"in_{name}")],
            name,
            [],
            [helper.make_tensor_value_info(name, FLOAT, None)],
        )
        for name, kind in branches.items()
    }
    condition = {} if nodes else {"condition": np.array(True)}
    return floats(
        *nodes, node("If", "condition", "chosen", "choose", **bodies), node(behind, "chosen", "y", "behind"),
        **condition,
    )  # fmt: skip


def choice_at_run_time() -> onnx.ModelProto:
    return choice(
        "Relu", "Identity", "Relu",
        node("ReduceMax", "x", "most", "most", keepdims=0),
        node("Cast", "most", "condition", "test", to=BOOL),
    )  # fmt: skip


def normalised(kind: str, epsilon: float) -> onnx.ModelProto:
    ones = np.ones(8, np.float32)
    return floats(
        node(kind, "x scale shift", "y", "normalise", epsilon=epsilon),
        shape=(1, 8, 8), scale=ones, shift=ones,
    )  # fmt: skip


def packed_as_computed() -> onnx.ModelProto:
    """Queries and keys of ``x`` [1, 8, 24] in a shape that is computed of its own, as unfolded exports do.

    ONNX's own shape inference ends at the quotient.
    """
    return floats(
        node("Shape", "x", "s", "read_shape"),
        node("Div", "s parts", "three", "divide"),
        node("Concat", "three eight", "target", "join", axis=0),
        node("Reshape", "x target", "packed", "unpack"),
        node("Gather", "packed zero", "q", "pick_q", axis=2),
        node("Gather", "packed one", "k", "pick_k", axis=2),
        node("Concat", "q k q", "y", "join_again", axis=2),
        shape=(1, 8, 24), parts=np.array([1, 1, 8]), eight=np.array([8]), zero=np.array(0), one=np.array(1),
    )  # fmt: skip


def overflows() -> onnx.ModelProto:
    """Pixels of -2 to 2 times 200, squared: more than fp16 holds, and only real pixels show it."""
    return pixels(
        node("Mul", "p large", "big", "enlarge"),
        node("Mul", "big big", "square", "squared"),
        node("Mul", "square small", "back", "back"),
        conv("back w", "q", "conv"),
        large=200.0, small=1e-4, w=W,
    )  # fmt: skip


def divides() -> onnx.ModelProto:
    """A convolution's values by three tenths of the sum of their squares: over 16384 for most photos."""
    return pixels(
        conv("p w", "a", "conv"),
        node("Mul", "a a", "squares", "square"),
        node("Mul", "squares less", "fewer", "lessen"),
        node("ReduceSum", "fewer all", "sum", "add_up"),
        node("Div", "a sum", "q", "divide"),
        w=W, less=0.3, all=np.array([1, 2, 3]),
    )  # fmt: skip


def patches(*first: onnx.NodeProto, stem: str = "MatMul") -> onnx.ModelProto:
    """Patches of 768 pixels as rows, into 4 channels by one product; ``first`` makes p of the image."""
    return model(
        ("image", FLOAT, [1, 3, 224, 224]),
        ("image_embedding", FLOAT, [1, 4]),
        [
            *first,
            node("Reshape", "p flat", "rows", "cut_patches"),
            node(stem, "rows w", "tokens", "stem"),
            node("ReduceMean", "tokens axes", "image_embedding", "pool", keepdims=1),
        ],
        constants(flat=np.array([196, 768]), axes=np.array([0]), w=weights(768, 4), half=0.5),
    )


def quantised_patches() -> onnx.ModelProto:
    """As ONNX Runtime's quantiser leaves raw patches: pixels in float, the weights in 8 bits."""
    proto = patches(
        node("Identity", "image", "p", "raw"),
        node("DequantizeLinear", "bytes step", "w", "dequantise", axis=1),
    )
    kept = [tensor for tensor in proto.graph.initializer if tensor.name != "w"]
    del proto.graph.initializer[:]
    made = RANDOM.integers(-128, 128, (768, 4)).astype(np.int8)
    proto.graph.initializer.extend(kept + constants(bytes=made, step=np.full(4, 0.01, np.float32)))
    return proto


def scaled(*steps: tuple[str, float], high: float = 1.0) -> onnx.ModelProto:
    return pixels(conv("p w", "q", "conv"), normalise=steps, high=high, w=W)


def by_channel(matrix: np.ndarray, bias: Sequence[float] = (0, 0, 0)) -> onnx.ModelProto:
    """A convolution of one pixel before the first one: the way converters write a mean and std."""
    kernel = np.asarray(matrix, np.float32)[:, :, None, None]
    groups = len(kernel) // kernel.shape[1]
    return pixels(
        node("Conv", "p k b", "r", "affine", group=groups), conv("r w", "q", "conv"),
        normalise=(), k=kernel, b=np.asarray(bias, np.float32), w=W,
    )  # fmt: skip


CORPUS: dict[str, Planted] = {
    "dynamic batch": Planted("dynamic-dimension", "error", (), dynamic_batch),
    "a cut at a computed place": Planted("dynamic-dimension", "error", ("cut",), cut_where_told),
    "int64 ids": Planted("int64-boundary", "error", (), int64_ids),
    "int64 path": Planted("int64-path", "warning", ("to_int64",), int64_inside),
    "float64": Planted("float64", "error", ("widen",), doubles),
    "einsum": Planted("unsupported-operator", "error", ("product",), einsum),
    "erf in a body": Planted("erf", "error", ("in_then_branch",), lambda: choice("Erf")),
    "asinh behind a body": Planted(
        "unsupported-operator", "error", ("behind",), lambda: choice("Relu", behind="Asinh")
    ),
    "a choice at run time": Planted("unsupported-operator", "error", ("choose",), choice_at_run_time),
    "nonzero": Planted(
        "unsupported-operator", "error", ("find",),
        lambda: model(("x", FLOAT, [8]), ("y", INT64, [1, "n"]), [node("NonZero", "x", "y", "find")]),
    ),
    "a stranger's operator": Planted(
        "unsupported-operator", "error", ("magic",), lambda: single("Magic", "magic", "com.acme")
    ),
    "bare erf": Planted("erf", "error", ("bare_erf",), lambda: single("Erf", "bare_erf")),
    "gelu of another x": Planted("erf", "error", ("gelu_erf",), lambda: gelu(("half c", "d", "d d", "y"))),
    "gelu with another root": Planted("erf", "error", ("gelu_erf",), lambda: gelu(root=2.0)),
    "gelu with another half": Planted("erf", "error", ("gelu_erf",), lambda: gelu(GELUS[2], half=0.4)),
    "padding beyond its range": Planted(
        "clipped-padding", "error", ("pad_it",), lambda: quantised_padding(1.0, high=0.5)
    ),
    "a relu lost in a transpose": Planted(
        "clipped-transpose", "error", ("turn",), lambda: quantised_transpose(0.0)
    ),
    "a product of one row": Planted(
        "narrow-product", "error", ("product",), lambda: quantised_product(1)
    ),
    "a product of ten rows": Planted(
        "narrow-product", "error", ("product",), lambda: quantised_product(10)
    ),
    "argmax pooling": Planted("search", "warning", ("find_eot",), eot_argmax),
    "gathernd": Planted("scattered-access", "warning", ("pick_nd",), gather_nd),
    "scatternd": Planted("scattered-access", "warning", ("write_nd",), scatter_nd),
    "where on a mask": Planted("where", "warning", ("choose",), where_on_mask),
    "packed qkv": Planted("packed-qkv", "info", ("pick_q", "pick_k"), packed_attention),
    "windows whose channels are split": Planted("split-windows", "error", ("packed",), quantised_windows),
    "windows whose channels are cut by slices": Planted(
        "split-windows", "error", ("packed",), lambda: quantised_windows(slices=True)
    ),
    "a hard swish of two": Planted("hard-swish-pair", "error", ("swish",), hard_swish),
    "packed qkv in one split": Planted("packed-qkv", "info", ("cut",), lambda: split_attention(64)),
    "packed qkv in three slices": Planted(
        "packed-qkv", "info", ("cut_q", "cut_k", "cut_v"), lambda: sliced_attention(64)
    ),
    "packed qkv of a computed shape": Planted(
        "packed-qkv", "info", ("pick_q", "pick_k"), packed_as_computed
    ),
    "cubic resize": Planted("resize", "error", ("resize",), lambda: resize(CUBIC)),
    "antialiased resize": Planted(
        "resize", "error", ("resize",), lambda: resize({"mode": "linear", "antialias": 1})
    ),
    "odd pixel positions": Planted(
        "resize", "warning", ("resize",),
        lambda: resize({"mode": "linear", "coordinate_transformation_mode": "half_pixel_symmetric"}),
    ),
    "nearest rounded down from the middles": Planted(
        "resize", "warning", ("resize",), lambda: nearest("half_pixel", "floor")
    ),
    "nearest rounded up from the corners": Planted(
        "resize", "warning", ("resize",), lambda: nearest("asymmetric", "round_prefer_floor")
    ),
    "nearest that meets halves": Planted(
        "resize", "warning", ("resize",), lambda: nearest("half_pixel", "round_prefer_floor")
    ),
    "upsample": Planted("resize", "warning", ("upsample",), upsampled),
    "infinite mask": Planted(
        "infinite-constant", "error", ("add_mask",), lambda: masked_attention(-np.inf)
    ),
    "infinite mask filled in when compiled": Planted(
        "infinite-constant", "error", ("add_mask",), lambda: filled_mask(-np.inf)
    ),
    "infinite mask computed of constants": Planted(
        "infinite-constant", "error", ("add_mask",), computed_mask
    ),
    "infinite number": Planted("infinite-constant", "error", ("add_mask",), lambda: single_mask(-np.inf)),
    "mask of the largest float": Planted(
        "fp16-constant", "warning", ("add_mask",), lambda: masked_attention(float(np.finfo(np.float32).min))
    ),
    "tiny epsilon": Planted(
        "fp16-epsilon", "info", ("add_eps",), lambda: floats(node("Add", "x eps", "y", "add_eps"), eps=1e-15)
    ),
    "tiny epsilon of an attribute": Planted(
        "fp16-epsilon", "info", ("normalise",), lambda: normalised("LayerNormalization", 1e-12)
    ),
    "49 tokens": Planted("token-count", "info", ("softmax",), lambda: attention_over(49)),
    "50 tokens": Planted("token-count", "info", ("softmax",), lambda: attention_over(50)),
    "197 tokens": Planted("token-count", "info", ("softmax",), lambda: attention_over(197)),
    "257 tokens": Planted("token-count", "info", ("softmax",), lambda: attention_over(257)),
    "197 tokens in one split": Planted("token-count", "info", ("softmax",), lambda: split_attention(197)),
    "six axes": Planted("many-axes", "warning", ("split_windows", "turn_windows"), window_partition),
    "parallel convolutions": Planted("unfused-branches", "warning", ("join",), branches),
    "batchnorm branch": Planted("unfused-branches", "warning", ("join",), one_skip_branch),
    "batchnorm after a convolution": Planted("unfused-batchnorm", "warning", ("norm",), batch_norm),
    "raw pixels": Planted("missing-normalisation", "warning", ("conv",), lambda: scaled()),
    "pixels times one": Planted("missing-normalisation", "warning", ("conv",), lambda: scaled(("Mul", 1.0))),
    "pixels times two": Planted("missing-normalisation", "warning", ("conv",), lambda: scaled(("Mul", 2.0))),
    "pixels of 255 times two": Planted(
        "missing-normalisation", "warning", ("conv",), lambda: scaled(("Mul", 2.0), high=255)
    ),
    "mean and std without the scale": Planted(
        "missing-normalisation", "warning", ("conv",), lambda: scaled(("Sub", 0.48), ("Div", 0.27), high=255)
    ),
    "pixels scaled twice": Planted(
        "missing-normalisation", "warning", ("conv",),
        lambda: scaled(("Div", 255), ("Div", 255), ("Sub", 0.48), high=255),
    ),
    "raw pixels behind a relu": Planted(
        "missing-normalisation", "warning", ("conv",),
        lambda: pixels(node("Relu", "p", "r", "relu"), conv("r w", "q", "conv"), normalise=(), w=W),
    ),
    "raw pixels in another order": Planted(
        "missing-normalisation", "warning", ("conv",), lambda: by_channel(np.eye(3)[::-1])
    ),
    "pixels mixed by a convolution": Planted(
        "missing-normalisation", "warning", ("affine",), lambda: by_channel(np.full((3, 3), 4.0), (-2,) * 3)
    ),
    "raw patches": Planted(
        "missing-normalisation", "warning", ("stem",), lambda: patches(node("Identity", "image", "p", "raw"))
    ),
    "raw patches into a Gemm": Planted(
        "missing-normalisation", "warning", ("stem",),
        lambda: patches(node("Identity", "image", "p", "raw"), stem="Gemm"),
    ),
    "raw patches, quantised": Planted("missing-normalisation", "warning", ("stem",), quantised_patches),
    "misnamed input": Planted("contract", "error", (), misnamed),
    "old opset": Planted(
        "opset", "warning", (),
        lambda: model(("x", FLOAT, [1, 8]), ("y", FLOAT, [1, 8]), [node("Relu", "x", "y", "relu")], opset=9),
    ),
    "fp16 overflow": Planted("fp16-overflow", "error", ("squared",), overflows),
    "divisor beyond fp16's inverses": Planted("fp16-divisor", "error", ("divide",), divides),
}  # fmt: skip


def written(planted: Planted, folder: Path) -> Path:
    path = folder / "model.onnx"
    onnx.save(planted.make(), path)
    return path
