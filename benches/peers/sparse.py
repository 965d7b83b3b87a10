"""Measures sparse matrices beside ONNX Runtime's dense product, SciPy's compressed rows and faer's, in turn.

Started by `benches/peers/run-sparse`, which builds the Rust sides, `benches/peers/main.rs` and `benches/peers/faer`.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import scipy
from onnx import helper
from peers import Child, in_turn, processor, table
from quant import numbers, session, timed

TARGETS = {"ONNX Runtime, dense": 3.0, "SciPy, CSR": 1.5, "faer": 1.2}
"""How many times as fast compressed rows are wished to be, for one vector on one thread."""


def mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def matrix(size: int) -> np.ndarray:
    """That of the Rust sides: a tenth is kept."""
    kept = mix(np.arange(size * size, dtype=np.uint64) + np.uint64(6 << 40)) % np.uint64(10) == 0
    return np.where(kept, numbers(size * size, 1), np.float32(0)).reshape(size, size)


def close(name: str, exact: np.ndarray, found: np.ndarray) -> None:
    if np.abs(exact[: len(found)] - found).max() > 1e-3:
        sys.exit(f"{name}: {found} instead of {exact[: len(found)]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6, help="turns of each side")
    parser.add_argument("--threads", default="1", help="counts of threads; faer and SciPy have one")
    parser.add_argument("--batches", default="1,8,32", help="vectors at a time")
    parser.add_argument("--size", type=int, default=4096, help="rows and columns")
    args = parser.parse_args()
    size, weights = args.size, matrix(args.size)
    csr = scipy.sparse.csr_matrix(weights)
    beside, forms = [], []
    for threads in map(int, args.threads.split(",")):
        child = Child(threads)
        target = Path(__file__).with_name("faer") / "Cargo.toml"
        faer = Child(1, ["cargo", "run", "--quiet", "--release", "--manifest-path", str(target)])
        dense = session([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": np.ascontiguousarray(weights.T)}, size, threads)
        for batch in map(int, args.batches.split(",")):
            count = 20 if batch == 1 else 5
            x = numbers(batch * size, 2).reshape(batch, size)
            columns, exact = np.ascontiguousarray(x.T), weights.astype(np.float64) @ x[0].astype(np.float64)
            vector = columns[:, 0]
            works: dict[str, Callable[[], np.ndarray]] = {
                "ONNX Runtime, dense": lambda: dense.run(None, {"x": x})[0][0],
                "SciPy, CSR": lambda: csr @ (vector if batch == 1 else columns),
            }
            peers = {name: timed(work) for name, work in works.items()} | {
                f"faer, {kind}": lambda count: faer.ask(f"step {count}") for kind in ("csr", "csc")
            }
            fastest: dict[str, float] = {}
            for name, steps in peers.items():
                print(f"{threads} threads, {batch} vectors, {name}", file=sys.stderr)
                if name.startswith("faer"):
                    faer.ask(f"open {name[6:]} {batch} {size}")
                size_of = child.ask(f"open csr {batch} {size}")[0]
                seconds = in_turn(args.rounds, count, (steps, lambda count: child.ask(f"step {count}")))
                close("csr", exact, np.array(child.ask("close")))
                if name.startswith("faer"):
                    close(name, exact, np.array(faer.ask("close")))
                elif batch == 1:
                    close(name, exact, works[name]())
                other, ours = (1e3 * min(side) for side in seconds)
                fastest[name] = other
                wished = TARGETS.get(name.split(", c")[0]) if batch == 1 and threads == 1 else None
                met = "–" if wished is None else "yes" if other / ours >= wished else "no"
                median = np.median(seconds[0]) / np.median(seconds[1])
                row = [name, batch, threads, f"{other:.3f}", f"{ours:.3f}", f"{other / ours:.2f}", f"{median:.2f}"]
                beside.append([*row, "–" if wished is None else f"≥ {wished:g}", met])
            for form in ("csr", "csr-codes", "bitmask", "bitmask-codes", "16x1", "16x1-codes", "4x4", "1x16", "pairs", "dense"):
                bytes_of = child.ask(f"open {form} {batch} {size}")[0]
                child.ask(f"step {count}")
                ours = 1e3 * min(child.ask(f"step {4 * count}"))
                plain = 1e3 * min(child.ask(f"plain {count}"))
                child.ask("close")
                ratio = fastest["ONNX Runtime, dense"] / ours
                forms.append([form, batch, threads, f"{4 * size * size / bytes_of:.2f}", f"{ours:.3f}", f"{ratio:.2f}", f"{plain / ours:.2f}"])
        isa = child.isa
        child.close()
        faer.close()
    versions = f"ONNX Runtime {onnxruntime.__version__}, SciPy {scipy.__version__}, lapidary on {isa}"
    print(f"{processor()}; {versions}; {args.rounds} rounds")
    table("compressed rows beside|vectors|threads|theirs ms|ours ms|ratio (best)|ratio (median)|target|met", 1, beside)
    table("form|vectors|threads|times smaller than dense|ms|ONNX Runtime, dense, over it|roofline", 1, forms)


if __name__ == "__main__":
    main()
