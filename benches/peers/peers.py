"""Measures steps of lapidary beside those of PyTorch's fused CPU kernels: the two take turns, while the other one waits.

Started by `benches/peers/run`, which builds the Rust side, `benches/peers/main.rs`.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

# How long the others' threads go on spinning after their work (PyTorch's 4 ms, ONNX Runtime's 40 ms) must be over when the next side
# begins. They are not told to sleep at once (OMP_WAIT_POLICY=PASSIVE): that makes PyTorch's steps of small tensors ten times slower
# on two threads.
PAUSE = 0.1

Make = Callable[[list[torch.Tensor]], torch.optim.Optimizer]
CASES: dict[str, tuple[str, Make]] = {
    "momentum": ("momentum", lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, fused=True)),
    "adagrad": ("Adagrad", lambda p: torch.optim.Adagrad(p, lr=1e-2, fused=True)),
    "adam": ("Adam", lambda p: torch.optim.Adam(p, lr=1e-3, fused=True)),
    "adamw": ("AdamW", lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=1e-2, fused=True)),
    "adam8": ("Adam, 8-bit state", lambda p: torch.optim.Adam(p, lr=1e-3, fused=True)),
}
"""The name of each case, and PyTorch's side of it."""

Steps = Callable[[int], list[float]]
"""Does so many steps and tells the seconds of each."""


class Child:
    """A Rust side, on so many threads: this crate's, unless another command is given."""

    def __init__(self, threads: int, command: list[str] | None = None) -> None:
        self.process = subprocess.Popen(
            command or ["cargo", "bench", "--quiet", "--bench", "peers", "--", "--serve"],
            cwd=Path(__file__).parents[2],
            env=os.environ | {"RAYON_NUM_THREADS": str(threads)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.isa = self.answer()

    def answer(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"the Rust side ended with status {self.process.wait()}")
        return line.strip()

    def ask(self, line: str) -> list[float]:
        assert self.process.stdin
        print(line, file=self.process.stdin, flush=True)
        return [float(word) for word in self.answer().split()]

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        if self.process.wait():
            sys.exit(f"the Rust side ended with status {self.process.returncode}")


@dataclass
class Row:
    """Two sides of a case, in nanoseconds a parameter."""

    case: str
    tensors: str
    threads: int
    bytes: float
    other: float
    ours: float
    best: float
    median: float
    target: float | None

    def met(self, below: bool = False) -> str:
        if self.target is None:
            return "–"
        return "yes" if (self.best <= self.target if below else self.best >= self.target) else "no"


def in_turn(rounds: int, count: int, sides: tuple[Steps, Steps]) -> list[list[float]]:
    """The seconds of all steps of both sides; the first steps do not count."""
    seconds: list[list[float]] = [[], []]
    for turn in range(1 + rounds):
        for side, steps in zip(seconds, sides):
            taken = steps(count)
            side += taken if turn else []
            time.sleep(PAUSE)
    return seconds


def torch_steps(optimizer: torch.optim.Optimizer) -> Steps:
    def steps(count: int) -> list[float]:
        seconds = []
        for _ in range(count):
            start = time.perf_counter()
            optimizer.step()
            seconds.append(time.perf_counter() - start)
        return seconds

    return steps


def row(case: str, tensors: int, length: int, threads: int, size: float, seconds: list[list[float]]) -> Row:
    nanos = [1e9 / (tensors * length) * min(side) for side in seconds]
    ratios = [f(seconds[0]) / f(seconds[1]) for f in (min, statistics.median)]
    return Row(case, f"{tensors:,} × {length:,}", threads, size, *nanos, *ratios, target=None)


def step_beside_torch(child: Child, case: str, tensors: int, length: int, threads: int, rounds: int) -> Row:
    name, make = CASES[case]
    torch.set_num_threads(threads)
    gradient = (torch.arange(length) % 17).float() * 0.01 - 0.08
    params = [torch.full((length,), 0.5, requires_grad=True) for _ in range(tensors)]
    for param in params:
        param.grad = gradient.clone()
    size, _ = child.ask(f"open {case} {tensors} {length}")
    sides = torch_steps(make(params)), lambda count: child.ask(f"step {count}")
    seconds = in_turn(rounds, 20 if tensors > 1 else 3, sides)
    ours = torch.tensor(child.ask("close"))
    theirs = params[0].detach()[: len(ours)]
    # Both have done the same, as far as 8 bits allow.
    allowed = (0.25 if case == "adam8" else 1e-3) * (theirs - 0.5).abs() + 1e-5
    if ((ours - theirs).abs() > allowed).any():
        sys.exit(f"{name}: {ours.tolist()} beside {theirs.tolist()}")
    result = row(name, tensors, length, threads, size, seconds)
    large_target = (1.3 if threads == 2 else 1.0) if case == "adam8" else 1.0
    result.target = large_target if tensors == 1 else {1: 10.0, 2: 20.0}.get(threads)
    return result


def composed_beside_loop(child: Child, length: int, threads: int, rounds: int) -> Row:
    _, size = child.ask(f"open composed 1 {length}")
    seconds = in_turn(rounds, 3, (lambda count: child.ask(f"step {count}"), lambda count: child.ask(f"plain {count}")))
    child.ask("close")
    result = row("composed", 1, length, threads, size, seconds)
    result.other, result.ours, result.target = result.ours, result.other, 1.15
    return result


def table(header: str, left: int, rows: list[list[Any]]) -> None:
    columns = header.split("|")
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * left}{'--:|' * (len(columns) - left)}")
    for cells in rows:
        print(f"| {' | '.join(str(cell) for cell in cells)} |")


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        fields = dict(line.replace("\t", "").split(": ", 1) for line in lines if ": " in line)
        return f"{fields['model name']} (family {fields['cpu family']}, model {fields['model']})"
    except (OSError, KeyError):
        return platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12, help="turns of each side")
    parser.add_argument("--size", type=int, default=25_000_000, help="elements of the one large tensor")
    parser.add_argument("--small", default="1000x1000", metavar="COUNTxLENGTH", help="the many small tensors")
    parser.add_argument("--threads", default="1,2", help="counts of threads")
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes the rows there too")
    args = parser.parse_args()
    count, length = map(int, args.small.split("x"))

    steps: list[Row] = []
    composed: list[Row] = []
    isa = ""
    for threads in map(int, args.threads.split(",")):
        child = Child(threads)
        isa = child.isa
        for tensors, size in ((1, args.size), (count, length)):
            for case in CASES:
                print(f"{threads} threads, {tensors} x {size}, {case}", file=sys.stderr)
                steps.append(step_beside_torch(child, case, tensors, size, threads, args.rounds))
        print(f"{threads} threads, composed", file=sys.stderr)
        composed.append(composed_beside_loop(child, args.size, threads, args.rounds))
        child.close()

    print(f"{processor()}; PyTorch {torch.__version__}, lapidary on {isa}; {args.rounds} rounds")
    table(
        "case|tensors|threads|torch ns a parameter|ours ns a parameter|ratio (best)|ratio (median)|target|met",
        2,
        [
            [r.case, r.tensors, r.threads, f"{r.other:.3f}", f"{r.ours:.3f}", f"{r.best:.2f}", f"{r.median:.2f}"]
            + [f"≥ {r.target:g}" if r.target else "–", r.met()]
            for r in steps
        ],
    )
    table(
        "case|threads|bytes a parameter|loop ns a parameter|ours ns a parameter|ratio (best)|ratio (median)|target|met",
        1,
        [
            [r.case, r.threads, f"{r.bytes:.3f}", f"{r.other:.3f}", f"{r.ours:.3f}", f"{r.best:.2f}", f"{r.median:.2f}"]
            + [f"≤ {r.target:g}", r.met(below=True)]
            for r in composed
        ],
    )
    eight = {r.bytes for r in steps if r.case == CASES["adam8"][0] and r.tensors.startswith("1 ×")}
    print(f"\n8-bit Adam keeps {max(eight):.4f} bytes of state a parameter; PyTorch's 8.")
    if args.json:
        args.json.write_text(json.dumps([asdict(r) for r in steps + composed], indent=1) + "\n")


if __name__ == "__main__":
    main()
