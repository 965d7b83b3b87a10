"""Checks the JSON of two runs of deep_compression: the fields, the bounds, and that only times differ."""

import json
import sys

first, second = (json.load(open(path)) for path in sys.argv[1:3])
assert set(first) == {"dataset", "seeds", "stages"}, set(first)
names = [stage["name"] for stage in first["stages"]]
assert names == ["baseline", "pruned", "quantized", "slimmed"], names
for a, b in zip(first["stages"], second["stages"]):
    assert a.pop("seconds") < 60 and b.pop("seconds") < 60
    assert a == b, (a, b)
    assert len(a["test_error_percent_by_seed"]) == first["seeds"]
baseline, pruned, quantized, slimmed = first["stages"]
assert baseline["params"] == baseline["params_total"] == 50610
assert baseline["test_error_percent"] < 5
assert pruned["params"] * 12 <= baseline["params"], pruned
assert quantized["bytes"] * 40 <= baseline["bytes"], quantized
assert slimmed["params"] * 5 <= baseline["params"], slimmed
print("report: fields, bounds and repetition as expected")
