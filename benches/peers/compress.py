"""Quantizes ONNX files by compress_model and by ONNX Runtime's quantizers, in turn; see run-compress."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

OURS = Path("target/release/examples/compress_model")


def make(path, matrices, external):
    """A chain of products with matrices of 4096 x 2048 and 2048 x 4096, 32 MiB each."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper

    random, weights, nodes, x = np.random.default_rng(0), [], [], "x"
    for i in range(matrices):
        shape = (4096, 2048) if i % 2 == 0 else (2048, 4096)
        weights.append(onnx.numpy_helper.from_array(random.standard_normal(shape, dtype=np.float32) * 0.02, f"w{i}"))
        nodes.append(helper.make_node("MatMul", [x, f"w{i}"], [f"y{i}"]))
        x = f"y{i}"
    value = lambda name, width: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width])
    graph = helper.make_graph(nodes, "chain", [value("x", 4096)], [value(x, 4096 if matrices % 2 == 0 else 2048)], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, path, save_as_external_data=external, location=Path(path).name + ".bin")


def theirs(bits, source, target):
    """Runs in a process of its own."""
    import logging

    logging.disable(logging.CRITICAL)
    start = time.perf_counter()
    if bits == 8:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        start = time.perf_counter()
        quantize_dynamic(source, target, weight_type=QuantType.QUInt8, per_channel=True)
    else:
        import onnx
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        start = time.perf_counter()
        quantizer = MatMulNBitsQuantizer(onnx.load(source), bits=4, block_size=32, is_symmetric=False)
        quantizer.process()
        quantizer.model.save_model_to_file(target, False)
    print(time.perf_counter() - start)


def timed(command):
    """Output and seconds of the whole process."""
    start = time.perf_counter()
    process = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    seconds = time.perf_counter() - start
    if process.returncode:
        sys.exit(f"{command} failed")
    return process.stdout, seconds


def peak(command):
    """The largest anonymous memory in MiB, in a run of its own: looking takes time."""
    peak = 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        try:
            with open(f"/proc/{process.pid}/status") as status:
                peak = max([peak] + [int(line.split()[1]) for line in status if line.startswith("RssAnon")])
        except OSError:
            pass
        time.sleep(0.002)
    if process.returncode:
        sys.exit(f"{command} failed")
    return peak / 1024


def fresh(target):
    Path(target).unlink(missing_ok=True)


def copied(source, target):
    fresh(target)
    start = time.perf_counter()
    shutil.copyfile(source, target)
    with open(target, "rb") as file:
        os.fsync(file.fileno())
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--large", action="store_true", help="also the memory for a model of 2.2 GB")
    parser.add_argument("--theirs", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.theirs:
        return theirs(int(args.theirs[0]), *args.theirs[1:])
    with tempfile.TemporaryDirectory() as folder:
        source, target = f"{folder}/model.onnx", f"{folder}/small.onnx"
        make(source, 4, False)
        size = os.path.getsize(source) / 2**20
        print(f"A model of {size:.0f} MiB; ONNX Runtime's time is without starting Python, ours that of the process.\n")
        print("| bits | theirs s | ours s | ratio (best) | theirs MiB | ours MiB | copy and sync s | ours over copy |")
        print("|--:|--:|--:|--:|--:|--:|--:|--:|")
        for bits, options in [(8, []), (4, ["--group", "32"])]:
            both = [sys.executable, __file__, "--theirs", str(bits), source, target], [OURS, source, target, "--bits", str(bits), *options]
            rounds = []
            for _ in range(args.rounds):
                # Nobody's time is that of giving up an older file.
                fresh(target)
                out, _ = timed(both[0])
                fresh(target)
                _, own = timed(both[1])
                rounds.append((float(out.split()[-1]), own, copied(source, f"{folder}/copy")))
            their, own, copy = (min(column) for column in zip(*rounds))
            their_peak, own_peak = map(peak, both)
            print(
                f"| {bits} | {their:.2f} | {own:.2f} | {their / own:.1f} | {their_peak:.0f} | {own_peak:.0f} "
                f"| {copy:.2f} | {own / copy:.1f} |"
            )
        if args.large:
            os.remove(source)
            make(source, 66, True)
            size = sum(file.stat().st_size for file in Path(folder).glob("model.onnx*")) / 1e9
            print(f"\n| a model of {size:.1f} GB into | s | anonymous memory, MiB |\n|---|--:|--:|")
            for name, options in [
                ("small.onnx", ["--bits", "8"]),
                ("small.onnx", ["--bits", "4", "--group", "32"]),
                ("small.safetensors", ["--bits", "4", "--group", "32"]),
                ("small.gguf", ["--bits", "4"]),
            ]:
                command = [OURS, source, f"{folder}/{name}", *options]
                _, seconds = timed(command)
                print(f"| {Path(name).suffix[1:]}, {' '.join(options)} | {seconds:.1f} | {peak(command):.0f} |")


main()
