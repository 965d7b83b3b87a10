"""Random valid ONNX models, compressed in random ways: what comes out is valid and runs; see run."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

TOOL = os.environ.get("LAPIDARY_TOOL", "target/release/examples/compress_model")
# What it says of what it does not have.
RUNTIME = ["the original model: ", "the model: ", "the model, for the ranges", "type of an input"]
FLOATS = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.float16): TensorProto.FLOAT16, np.dtype(np.float64): TensorProto.DOUBLE}


class Graph:
    """A chain of layers, with branches, whose weights are kept in all the ways that exporters have."""

    def __init__(self, random, opset):
        self.random, self.opset = random, opset
        self.nodes, self.initializers, self.inputs, self.count = [], [], [], 0
        self.dtype = np.dtype(random.choice([np.float32] * 6 + [np.float16, np.float64]))

    def name(self, kind):
        self.count += 1
        # Names with slashes, spaces and letters of all sorts.
        return self.random.choice([f"{kind}_{self.count}", f"/модель/{kind}.{self.count}/w eight", f"{kind}::{self.count}"])

    def add(self, operator, inputs, outputs=1, **attributes):
        names = [self.name("v") for _ in range(outputs)]
        called = self.random.choice(["", self.name("node")])
        self.nodes.append(helper.make_node(operator, inputs, names, name=called, **attributes))
        return names[0]

    def constant(self, values):
        name, values = self.name("w"), np.ascontiguousarray(values)
        if self.random.random() < 0.3 and values.dtype != np.float16:
            kind = helper.np_dtype_to_tensor_dtype(values.dtype)
            tensor = helper.make_tensor(name, kind, values.shape, values.ravel().tolist())
        else:
            tensor = numpy_helper.from_array(values, name)
        way = self.random.random()
        if way < 0.2:
            return self.add("Constant", [], value=tensor)
        self.initializers.append(tensor)
        return self.add("Identity", [name]) if way < 0.35 else name

    def weight(self, *shape):
        scale = 1 / np.sqrt(max(1, np.prod(shape[1:])))
        values = self.random.standard_normal(shape) * scale
        if self.random.random() < 0.3:
            values[self.random.integers(shape[0])] = 0
        return self.constant(values.astype(self.dtype))

    def image(self, x, channels):
        out = int(self.random.choice([4, 8, 12, 31]))
        kind = self.random.integers(5)
        if kind == 0:
            attributes = {"kernel_shape": [3, 3], "pads": [1] * 4}
            x = self.add("Conv", [x, self.weight(out, channels, 3, 3), self.weight(out)], **attributes)
        elif kind == 1:
            x = self.add("Conv", [x, self.weight(channels, 1, 3, 3)], group=channels, pads=[1] * 4)
            out = channels
        elif kind == 2:
            x = self.add("ConvTranspose", [x, self.weight(channels, out, 3, 3)], pads=[1] * 4)
        elif kind == 3:
            y = self.add("Conv", [x, self.weight(channels, channels, 1, 1)])
            x, out = self.add("Add", [x, y]), channels
        else:
            one = [self.constant(np.abs(self.random.standard_normal(channels)).astype(self.dtype) + 0.5) for _ in range(4)]
            x, out = self.add("BatchNormalization", [x, *one]), channels
        return self.add(str(self.random.choice(["Relu", "Sigmoid", "Tanh"])), [x]), out

    def dense(self, x, width, rank):
        out = int(self.random.choice([16, 33, 64]))
        kind = self.random.integers(6)
        if kind == 0 and rank == 2:
            x = self.add("Gemm", [x, self.weight(out, width), self.weight(out)], transB=1)
        elif kind == 1 and rank == 2:
            x = self.add("Gemm", [x, self.weight(width, out), self.weight(out)][: 3 if self.opset < 11 else 2], alpha=0.5)
        elif kind == 2:
            left = self.add("MatMul", [x, self.weight(width, out)])
            x = self.add("Mul", [left, self.add("Sigmoid", [self.add("MatMul", [x, self.weight(width, out)])])])
        elif kind == 3:
            weight = self.weight(width, width)
            x, out = self.add("MatMul", [self.add("Tanh", [self.add("MatMul", [x, weight])]), weight]), width
        elif kind == 4:
            x, out = self.branch(x, width, out), out
        else:
            x = self.add("Add", [self.add("MatMul", [x, self.weight(width, out)]), self.weight(out)])
        return self.add("Tanh", [x]), out

    def branch(self, x, width, out):
        """The weights of one side are within it, those of the other around it."""
        condition = self.constant(np.array(True)) if self.opset < 13 else None
        if condition is None:
            self.initializers.append(numpy_helper.from_array(np.array(bool(self.random.integers(2))), name := self.name("c")))
            condition = name
        shared, sides = self.weight(width, out), []
        for own in (True, False):
            y = self.name("side")
            tensors = [numpy_helper.from_array((self.random.standard_normal((width, out)) / width).astype(self.dtype), f"w{y}")]
            node = helper.make_node("MatMul", [x, f"w{y}" if own else shared], [y])
            value = helper.make_tensor_value_info(y, FLOATS[self.dtype], None)
            sides.append(helper.make_graph([node], "side", [], [value], tensors if own else []))
        return self.add("If", [condition], then_branch=sides[0], else_branch=sides[1])

    def recurrent(self, x, width):
        hidden, gates = int(self.random.choice([16, 24])), self.random.choice(["LSTM", "GRU", "RNN"])
        number = {"LSTM": 4, "GRU": 3, "RNN": 1}[str(gates)]
        both = int(self.random.integers(1, 3))
        tensors = [self.weight(both, number * hidden, width), self.weight(both, number * hidden, hidden)]
        direction = ["forward", "bidirectional"][both - 1]
        y = self.add(str(gates), [x, *tensors], hidden_size=hidden, direction=direction)
        if both == 1:
            axes = [1]
            squeezed = self.add("Squeeze", [y], axes=axes) if self.opset < 13 else self.add("Squeeze", [y, self.constant(np.array(axes))])
            return squeezed, hidden
        y = self.add("Transpose", [y], perm=[0, 2, 1, 3])
        return self.add("Reshape", [y, self.constant(np.array([0, 0, both * hidden]))]), both * hidden

    def model(self):
        """The model, and a function that gives it inputs."""
        kind, layers, feeds = self.random.integers(4), int(self.random.integers(1, 5)), {}
        element = FLOATS[self.dtype]
        if kind == 0:
            channels = int(self.random.choice([1, 3, 8]))
            self.inputs.append(helper.make_tensor_value_info("x", element, ["n", channels, 8, 8]))
            feeds["x"] = self.random.random((2, channels, 8, 8)).astype(self.dtype)
            x = "x"
            for _ in range(layers):
                x, channels = self.image(x, channels)
            x = self.add("GlobalAveragePool", [x])
            x, width, rank = self.add("Flatten", [x], axis=1), channels, 2
        elif kind == 1:
            words, width = 40, int(self.random.choice([16, 32]))
            self.inputs.append(helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", "t"]))
            feeds["ids"] = self.random.integers(0, words, (3, 5))
            x, rank = self.add("Gather", [self.weight(words, width), "ids"]), 3
        else:
            width, rank = int(self.random.choice([16, 50])), int(kind)
            self.inputs.append(helper.make_tensor_value_info("x", element, [5, "n", width][3 - rank :]))
            feeds["x"] = self.random.random((5, 2, width)[3 - rank :]).astype(self.dtype)
            x = "x"
            if rank == 3 and self.dtype == np.float32:
                x, width = self.recurrent(x, width)
        for _ in range(layers):
            x, width = self.dense(x, width, rank)
        outputs = [helper.make_tensor_value_info(x, element, [None] * rank)]
        graph = helper.make_graph(self.nodes, "g", self.inputs, outputs, self.initializers)
        sets = [helper.make_opsetid(self.random.choice(["", "ai.onnx"]), self.opset)]
        return helper.make_model(graph, opset_imports=sets, ir_version=helper.find_min_ir_version_for(sets, True)), feeds


def session(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), options)


def recipe(random):
    """Options, and the least cosine of the output."""
    kind = random.random()
    if kind < 0.1:
        return ["--sparsity", str(random.choice([0.1, 0.5, 0.9])), "--sparse-initializers"], -1.0
    if kind < 0.2:
        return ["--max-error", "0.05", "--min-elements", "1"], 0.7
    if kind < 0.3:
        return ["--bits", "8", "--activations", "dynamic", "--min-elements", "1"], 0.97
    if kind < 0.4:
        return ["--bits", "8", "--activations", "static"], 0.9
    if kind < 0.6:
        return ["--slim", str(random.choice([0.2, 0.5])), *(["--repair"] if random.random() < 0.5 else [])], -1.0
    bits = int(random.choice([8, 8, 4, 2]))
    options = ["--bits", str(bits), "--min-elements", str(random.choice([1, 300]))]
    if random.random() < 0.5:
        options += ["--group", str(random.choice([16, 32]))]
    if random.random() < 0.4:
        options += ["--symmetric"]
    options += ["--scheme", str(random.choice(["auto", "auto", "dequantize", "matmul-nbits"]))]
    return options, {8: 0.99, 4: 0.7, 2: -1.0}[bits]


def main():
    count, compressed, refused, tool = int(sys.argv[1]) if len(sys.argv) > 1 else 40, 0, 0, Path(TOOL).resolve()
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "in.onnx", Path(folder) / "out.onnx"
        for seed in range(count):
            random = np.random.default_rng(seed)
            model, feeds = Graph(random, int(random.choice([9, 11, 13, 15, 17, 21, 23]))).model()
            if random.random() < 0.3:
                name = f"in{seed}.bin"
                onnx.save(model, before, save_as_external_data=True, location=name, size_threshold=int(random.choice([256, 1024])))
            else:
                onnx.save(model, before)
            onnx.checker.check_model(before, full_check=True)
            try:
                want = session(before).run(None, feeds)[0]
            except Exception:
                continue  # not every operator has kernels of every type, nor every optimization finds other files
            for _ in range(3):
                options, least = recipe(random)
                said = subprocess.run([tool, before, after, *options], capture_output=True, text=True)
                if "--slim" in options or "static" in options:
                    # The runtime that runs the model first does not have all of ONNX.
                    runtime = any(part in said.stderr for part in RUNTIME)
                    if said.returncode == 1 and runtime:
                        refused += 1
                        continue
                assert said.returncode == 0, (seed, options, said.stderr)
                # What is not ONNX's own has no schema there, and no operator's schema has sparse weights.
                graph = onnx.load(after).graph
                microsoft = any(node.domain == "com.microsoft" for node in graph.node)
                onnx.checker.check_model(after, full_check=not microsoft and not graph.sparse_initializer)
                try:
                    found = session(after).run(None, feeds)[0]
                except Exception as error:
                    raise AssertionError(f"seed {seed}, {' '.join(options)}") from error
                assert found.shape == want.shape and found.dtype == want.dtype and np.isfinite(found).all(), (seed, options)
                x, y = np.float64(want).ravel(), np.float64(found).ravel()
                cosine = x @ y / max(np.linalg.norm(x) * np.linalg.norm(y), 1e-30)
                assert np.allclose(x, y) or cosine >= least, (seed, options, cosine)
                compressed += 1
    assert compressed > 2 * count and refused < count
    print(f"\n{compressed} compressed models of {count} random ones are valid and run; {refused} times the Rust runtime did not have a model")


main()
