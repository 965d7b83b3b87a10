"""Measures dense layers with packed weights beside ONNX Runtime's, and quantizing beside PyTorch's, in turn.

Started by `benches/peers/run-quant`, which builds the Rust side, `benches/peers/main.rs`.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from peers import Child, in_turn, processor, table

GROUP = 32
COLUMNS = 4096


def numbers(count: int, seed: int) -> np.ndarray:
    """Those of the Rust side."""
    x = np.arange(count, dtype=np.uint64) + np.uint64(seed << 40)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    total = np.zeros(count, np.float32)
    for k in range(4):
        total += ((x >> np.uint64(16 * k)) & np.uint64(0xFFFF)).astype(np.float32) / np.float32(65536) - np.float32(0.5)
    return total


def session(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], size: int, threads: int):
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", size])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # The tensors are larger than a message of protobuf may be: they pass through a file.
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/layer.onnx"
        onnx.save_model(model, path, save_as_external_data=True, location="layer.bin")
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def nbits(weights: np.ndarray, bits: int, threads: int):
    """MatMulNBits at accuracy level 4: inputs are rounded to 8 bits in blocks too. Scales as ours are."""
    size = len(weights)
    groups = weights.reshape(size, size // GROUP, GROUP)
    scales = np.maximum(np.abs(groups).max(2) / np.float32(2 ** (bits - 1) - 1), np.float32(1e-37))
    codes = np.clip(np.rint(groups / scales[..., None]), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1) + 2 ** (bits - 1)
    codes = codes.astype(np.uint8)
    per_byte = 8 // bits
    packed = np.zeros((size, size // GROUP, GROUP // per_byte), np.uint8)
    for i in range(per_byte):
        packed |= codes[..., i::per_byte] << np.uint8(bits * i)
    node = helper.make_node(
        "MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", K=size, N=size, bits=bits, block_size=GROUP, accuracy_level=4
    )
    return session([node], {"w": packed, "s": scales.reshape(-1)}, size, threads)


def dynamic(weights: np.ndarray, threads: int):
    """DynamicQuantizeLinear and MatMulInteger, which ONNX Runtime makes one; a scale an output, as ours."""
    size = len(weights)
    scales = np.abs(weights).max(1) / np.float32(127)
    codes = np.rint(weights / scales[:, None]).astype(np.int8)
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "qs", "qz"]),
        helper.make_node("MatMulInteger", ["q", "w", "qz", "z"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["qs", "s"], ["scale"]),
        helper.make_node("Mul", ["floats", "scale"], ["y"]),
    ]
    constants = {"w": np.ascontiguousarray(codes.T), "s": scales, "z": np.zeros(size, np.int8)}
    return session(nodes, constants, size, threads)


@dataclass
class Row:
    """Two sides of a case, in milliseconds."""

    case: str
    threads: int
    other: float
    ours: float
    best: float
    median: float
    target: float | None
    roof: float
    errors: str = "–"

    def cells(self) -> list:
        met = "–" if self.target is None else "yes" if self.best >= self.target else "no"
        target = "–" if self.target is None else f"≥ {self.target:g}"
        ratios = [f"{self.best:.2f}", f"{self.median:.2f}", target, met, f"{self.roof:.2f}", self.errors]
        return [self.case, self.threads, f"{self.other:.3f}", f"{self.ours:.3f}", *ratios]


def timed(work: Callable[[], object]) -> Callable[[int], list[float]]:
    def steps(count: int) -> list[float]:
        seconds = []
        for _ in range(count):
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
        return seconds

    return steps


def row(case: str, threads: int, child: Child, work: Callable[[], object], rounds: int, count: int, target) -> Row:
    sides = timed(work), lambda count: child.ask(f"step {count}")
    seconds = in_turn(rounds, count, sides)
    plain = min(child.ask(f"plain {3 * count}"))
    other, ours = (1e3 * min(side) for side in seconds)
    median = np.median(seconds[0]) / np.median(seconds[1])
    return Row(case, threads, other, ours, other / ours, median, target, 1e3 * plain / ours)


def layer(child: Child, bits: int, batch: int, size: int, threads: int, rounds: int, target) -> Row:
    weights, x = numbers(size * size, 1).reshape(size, size), numbers(batch * size, 2).reshape(batch, size)
    peer = dynamic(weights, threads) if bits == 8 else nbits(weights, bits, threads)
    child.ask(f"open layer{bits} {batch} {size}")
    kind = "a scale an output" if bits == 8 else f"groups of {GROUP}"
    case = f"{bits}-bit, {kind}, {size}², {batch} vector{'s' * (batch > 1)}"
    result = row(case, threads, child, lambda: peer.run(None, {"x": x}), rounds, 100 if batch == 1 else 10, target)
    exact = weights.astype(np.float64) @ x[0].astype(np.float64)
    ours, theirs = np.array(child.ask("close")), peer.run(None, {"x": x})[0][0]
    error = [np.linalg.norm(y - exact) / np.linalg.norm(exact) for y in (theirs, ours)]
    result.errors = " / ".join(f"{100 * e:.3f} %" for e in error)
    if error[1] > 1.05 * error[0]:
        sys.exit(f"{case}: our error is {error[1]}, theirs {error[0]}")
    return result


def candle(child: Child, peer: Child, batch: int, size: int, threads: int, rounds: int) -> Row:
    for side in (peer, child):
        side.ask(f"open layer4 {batch} {size}")
    count = 100 if batch == 1 else 10
    sides = [lambda count, side=side: side.ask(f"step {count}") for side in (peer, child)]
    seconds = in_turn(rounds, count, (sides[0], sides[1]))
    plain = min(child.ask(f"plain {3 * count}"))
    for side in (peer, child):
        side.ask("close")
    other, ours = (1e3 * min(side) for side in seconds)
    case = f"4-bit, groups of {GROUP}, {size}², {batch} vector{'s' * (batch > 1)}"
    median = np.median(seconds[0]) / np.median(seconds[1])
    return Row(case, threads, other, ours, other / ours, median, 3.0 if batch == 1 else None, 1e3 * plain / ours)


def codes(child: Child, case: str, length: int, threads: int, rounds: int, target) -> Row:
    torch.set_num_threads(threads)
    x = torch.from_numpy(numbers(length, 3)).reshape(-1, COLUMNS)
    low, high = torch.aminmax(x)
    scale = (max(high, torch.tensor(0.0)) - min(low, torch.tensor(0.0))) / 255
    zero = int((-low / scale).round())
    buffer = torch.empty_like(x)
    quantized = torch.quantize_per_tensor(x, scale.item(), zero, torch.quint8)

    def per_tensor():
        low, high = torch.aminmax(x)
        scale = ((high - low) / 255).item()
        return torch.quantize_per_tensor(x, scale, int(round(-low.item() / scale)), torch.quint8)

    def per_channel():
        low, high = torch.aminmax(x, dim=1)
        scale = (high - low) / 255
        return torch.quantize_per_channel(x, scale, (-low / scale).round(), 0, torch.quint8)

    works = {
        "quantize8": per_tensor,
        "channel8": per_channel,
        "fake8": lambda: torch.fake_quantize_per_tensor_affine(x, scale.item(), zero, 0, 255),
        "dequantize8": lambda: buffer.copy_(quantized.dequantize()),
    }
    names = {
        "quantize8": "range and codes, 8-bit, a tensor",
        "channel8": "range and codes, 8-bit, rows of 4,096",
        "fake8": "fake-quantize, 8-bit, a tensor",
        "dequantize8": "decode 8-bit into a buffer",
    }
    child.ask(f"open {case} 1 {length}")
    result = row(names[case], threads, child, works[case], rounds, 3, target)
    ours = np.array(child.ask("close"))
    theirs = works[case]()
    theirs = (theirs.dequantize() if theirs.is_quantized else theirs).flatten()[:16].numpy()
    if np.abs(ours - theirs).max() > 1.01 * scale.item():
        sys.exit(f"{case}: {ours} beside {theirs}")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8, help="turns of each side")
    parser.add_argument("--threads", default="1,2", help="counts of threads")
    parser.add_argument("--size", type=int, default=4096, help="rows and columns of a layer that fits the cache")
    parser.add_argument("--large", type=int, default=16384, help="those of one that does not")
    parser.add_argument("--length", type=int, default=1 << 24, help="elements to quantize")
    parser.add_argument("--candle", action="store_true", help="builds candle and measures its Q4_0 too")
    args = parser.parse_args()
    layers, tensors, candles = [], [], []
    for threads in map(int, args.threads.split(",")):
        child = Child(threads)
        for bits, batch, target in ((4, 1, 1.2), (8, 1, 1.0), (4, 32, 1.0), (8, 32, 1.0), (2, 1, None)):
            print(f"{threads} threads, {bits} bits, {batch}", file=sys.stderr)
            layers.append(layer(child, bits, batch, args.size, threads, args.rounds, target))
        for bits in (4, 8):
            print(f"{threads} threads, {bits} bits, large", file=sys.stderr)
            layers.append(layer(child, bits, 1, args.large, threads, 2, 1.2 if bits == 4 else 1.0))
        for case, target in (("quantize8", 1.3), ("channel8", 3.0), ("fake8", 3.0), ("dequantize8", 2.0)):
            print(f"{threads} threads, {case}", file=sys.stderr)
            tensors.append(codes(child, case, args.length, threads, args.rounds, target))
        if args.candle:
            manifest = Path(__file__).with_name("candle") / "Cargo.toml"
            command = ["cargo", "run", "--quiet", "--release", "--manifest-path", str(manifest)]
            peer = Child(threads, command)
            candles += [candle(child, peer, batch, args.size, threads, args.rounds) for batch in (1, 32)]
            peer.close()
        isa = child.isa
        child.close()
    print(f"{processor()}; ONNX Runtime {onnxruntime.__version__}, PyTorch {torch.__version__}, lapidary on {isa}; {args.rounds} rounds")
    header = "case|threads|{} ms|ours ms|ratio (best)|ratio (median)|target|met|roofline"
    table(header.format("ONNX Runtime") + "|error: theirs / ours", 1, [r.cells() for r in layers])
    table(header.format("torch"), 1, [r.cells()[:-1] for r in tensors])
    if candles:
        table(header.format("candle"), 1, [r.cells()[:-1] for r in candles])


if __name__ == "__main__":
    main()
