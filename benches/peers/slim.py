"""Compares slimming with Torch-Pruning's on the same networks: what is joined, what is left, how far outputs are off, the time.

Started by `benches/peers/run-slim`, which builds the Rust side, `benches/peers/slim.rs`. Both prune the same share of each group by the
L2 norms of the weights; PyTorch runs what both leave, in float64.
"""

import argparse
import copy
import json
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_pruning as tp
from peers import Child, Steps, in_turn, processor, table
from safetensors.torch import load_file, save_file
from slim_nets import NETS, Net, Shuffle2
from torch import Tensor, nn

LARGE = 100_000
"""As in `slim.rs`: of models with more parameters, groups are compared by their tensors and sizes only."""

Place = tuple[str, int, int]
"""A tensor, an axis and an index."""


@dataclass
class Group:
    """Channels that go each on their own, in all of these places."""

    size: int
    members: dict[tuple[str, int], int]
    channels: list[frozenset[Place]] = field(default_factory=list)

    def key(self) -> Any:
        """What makes two groups one, in any order of the channels."""
        channels = frozenset(self.channels) if len(self.channels) == self.size else None
        return self.size, frozenset(self.members.items()), channels

    def __str__(self) -> str:
        tensors = (f"{name}[{axis}]" + (f"×{n}" if n != 1 else "") for (name, axis), n in sorted(self.members.items()))
        return f"{self.size} of {', '.join(tensors)}"


@dataclass
class Side:
    """What a tool did to a network."""

    groups: list[Group] = field(default_factory=list)
    params: int = 0
    off: float = float("nan")
    error: str = ""
    widths: dict[str, tuple[int, int]] = field(default_factory=dict)

    def left(self) -> str:
        return f"{self.params:,}" if self.params else "–"

    def difference(self) -> str:
        if self.error:
            return "does not run" if self.params else "fails"
        return f"{self.off:.1e}"


def made(name: str, biased: bool = True) -> Net:
    """A network with numbers at random; no bias, mean or shift is 0, or all are."""
    net = NETS[name][1]().eval()
    dice = torch.Generator().manual_seed(len(name))

    def normal(tensor: Tensor, scale: float, mean: float = 0.0) -> None:
        tensor.copy_(torch.randn(tensor.shape, generator=dice) * scale + mean)

    with torch.no_grad():
        for key, tensor in tensors(net).items():
            if key.endswith("running_var"):
                tensor.copy_(torch.rand(tensor.shape, generator=dice) + 0.5)
            elif tensor.dim() > 1:
                normal(tensor, tensor[0].numel() ** -0.5)
            else:
                scales = key.endswith("weight")
                normal(tensor, 0.25 if biased or scales else 0.0, float(scales))
    return net


def tensors(net: nn.Module) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in net.state_dict().items() if tensor.is_floating_point()}


def count(net: nn.Module) -> int:
    return sum(tensor.numel() for tensor in tensors(net).values())


def samples(net: Net, batch: int) -> Tensor:
    return torch.randn(batch, *net.input, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def off(expected: nn.Module, found: nn.Module, x: Tensor) -> float:
    """The L2 norm of the difference over that of what was expected."""
    y = expected(x)
    return float((found(x) - y).norm() / y.norm())


def adopted(name: str, folder: Path, kind: str, told: dict[str, Any] | None) -> Net:
    """The network with our tensors, and the numbers that go with them."""
    net = NETS[name][1]().eval().double()
    given = load_file(folder / f"{kind}.safetensors")
    for key, tensor in given.items():
        path, _, attribute = key.rpartition(".")
        module = net.get_submodule(path)
        if attribute in module._buffers:
            setattr(module, attribute, tensor)
        else:
            setattr(module, attribute, nn.Parameter(tensor))
    numbers = {key: int(number) for key, number in told["numbers"].items()} if told else {}
    for path, module in net.named_modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            module.groups = numbers.get(f"{path}.groups", module.groups)
            first = module.weight.shape[0] if module.transposed else module.weight.shape[1] * module.groups
            module.in_channels = first
        elif isinstance(module, nn.LayerNorm):
            module.normalized_shape = tuple(module.weight.shape)
        elif isinstance(module, nn.GroupNorm):
            module.num_groups = numbers.get(f"{path}.groups", module.num_groups)
        elif isinstance(module, nn.LSTM):
            module.input_size, module.hidden_size = module.weight_ih_l0.shape[1], module.weight_hh_l0.shape[1]
    if "attention.heads" in numbers:
        keys = numbers.get("attention.key_heads", numbers["attention.heads"])
        net.counts = [numbers["attention.heads"], keys, keys][: len(net.counts)]
    if "first.end" in numbers:
        net.start = numbers["first.end"]
    return net


def ours(child: Child, name: str, ratio: float, folder: Path) -> tuple[Net, Side, Side, dict[str, Any]]:
    """The network, what is left of it exactly and approximately, and what else was told. The Rust side waits for `close`."""
    net = made(name).double()
    save_file({key: tensor.contiguous() for key, tensor in tensors(net).items()}, folder / "weights.safetensors")
    before, *left = map(int, child.ask(f"slim {name} {ratio} {folder}"))
    if before != count(net):
        sys.exit(f"{name}: {before} numbers instead of {count(net)}")
    told = json.loads((folder / "ours.json").read_text())
    groups = []
    for group in told["groups"]:
        if group["frozen"] is None:
            channels = [frozenset((t, axis, i) for t, axis, gone in places for i in gone) for places in group["channels"]]
            members = {(t, axis): n for t, axis, n in group["members"]}
            groups.append(Group(group["size"], members, channels))
    sides = []
    for kind, params in zip(("exact", "approximate"), left):
        slim, masked = adopted(name, folder, kind, told[kind]), adopted(name, folder, f"{kind}-masked", None)
        assert count(slim) == params, (name, kind, count(slim), params)
        widths = {group: (size, kept) for group, size, kept in told[kind]["widths"]}
        sides.append(Side(groups, params, off(masked, slim, samples(net, 4).double()), "", widths))
    return net, *sides, told


def pruner(net: Net, x: Tensor, ratio: float) -> tp.pruner.BasePruner:
    """Torch-Pruning's, told what it has to be: the output layer, and the heads of attention, which go whole."""
    heads = net.heads()
    return tp.pruner.BasePruner(
        net,
        x,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio,
        ignored_layers=[net.head],
        in_channel_groups={},
        out_channel_groups={},
        num_heads=heads,
        prune_num_heads=bool(heads),
        prune_head_dims=False,
        head_pruning_ratio=ratio if heads else 0.0,
    )


def places(net: nn.Module, group: tp.dependency.Group, graph: tp.DependencyGraph) -> set[Place]:
    """Where a group of Torch-Pruning cuts."""
    names = {module: path for path, module in net.named_modules()}
    found = set()
    for dep, indices in group:
        module, out = dep.target.module, graph.is_out_channel_pruning_fn(dep.handler)
        path = names.get(module)
        if isinstance(module, nn.Parameter):
            found |= {("position", 2, int(i)) for i in indices}
        if path is None:
            continue
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
            groups = getattr(module, "groups", 1)
            depthwise = groups > 1 and groups == module.out_channels
            turned = getattr(module, "transposed", False)
            if out or depthwise:
                found |= {(f"{path}.weight", int(turned and not depthwise), int(i)) for i in indices}
                found |= {(f"{path}.bias", 0, int(i)) for i in indices if module.bias is not None}
            else:
                width = module.in_channels // groups if groups > 1 else sys.maxsize
                found |= {(f"{path}.weight", int(not turned), int(i) % width) for i in indices}
        elif isinstance(module, nn.LSTM):
            size = module.hidden_size
            gates = [("weight_ih_l0", 0), ("weight_hh_l0", 0), ("bias_ih_l0", 0), ("bias_hh_l0", 0)]
            if out:
                found |= {(f"{path}.{t}", 0, int(i) + g * size) for t, _ in gates for g in range(4) for i in indices}
                found |= {(f"{path}.weight_hh_l0", 1, int(i)) for i in indices}
            else:
                found |= {(f"{path}.weight_ih_l0", 1, int(i)) for i in indices}
        else:
            own = [key for key, tensor in tensors(module).items() if "." not in key and tensor.dim() == 1]
            found |= {(f"{path}.{key}", 0, int(i)) for key in own for i in indices}
    return found


def their_groups(net: Net, tool: tp.pruner.BasePruner) -> list[Group]:
    graph, groups = tool.DG, []
    for group in graph.get_all_groups(ignored_layers=tool.ignored_layers, root_module_types=tool.root_module_types):
        attends, layers = tool._is_atten_group(group)
        group = tool._downstream_node_as_root_if_attention(group) if attends else group
        if group is None:  # Passed over in pruning too.
            continue
        root, indices = group[0]
        if attends:
            size = max(tool.num_heads[layer] for layer in layers)
            width = len(indices) // size
            sets = [range(width * head, width * (head + 1)) for head in range(size)]
        else:
            several = tool._get_channel_groups(group)
            size = len(indices) // several
            sets = [range(channel, len(indices), size) for channel in range(size)]
        channels = []
        if count(net) <= LARGE:
            for chosen in sets:
                one = graph.get_pruning_group(root.target.module, root.handler, list(chosen))
                channels.append(frozenset(places(net, one, graph)))
        lengths: dict[tuple[str, int], int] = {}
        for tensor, axis, _ in places(net, group, graph):
            lengths[tensor, axis] = lengths.get((tensor, axis), 0) + 1
        groups.append(Group(size, {key: n // size for key, n in lengths.items()}, channels))
    return groups


def mask(masked: Net, alive: dict[tuple[str, int], list[int]], cut: set[Place]) -> None:
    """Puts 0 into the weights of the whole network that produce what is cut; of LSTMs and depthwise convolutions too."""
    axes: dict[tuple[str, int], set[int]] = {}
    for tensor, axis, i in cut:
        axes.setdefault((tensor, axis), set()).add(i)
    own = tensors(masked)
    for (tensor, axis), gone in axes.items():
        path, _, attribute = tensor.rpartition(".")
        module = masked.get_submodule(path)
        produces = isinstance(module, nn.Linear | nn.LSTM) and axis == 0 or tensor == "position"
        if isinstance(module, nn.modules.conv._ConvNd):
            produces = axis == int(module.transposed and module.groups == 1)
        kept = alive.setdefault((tensor, axis), list(range(own[tensor].shape[axis])))
        if produces and attribute != "bias":
            own[tensor].index_fill_(axis, torch.tensor([kept[i] for i in sorted(gone)]), 0.0)
        alive[tensor, axis] = [at for i, at in enumerate(kept) if i not in gone]


def said(error: BaseException) -> str:
    """One line of an error."""
    text = str(error).strip().splitlines() or [type(error).__name__]
    return f"{type(error).__name__}: {text[0]}".replace("|", "/")


def theirs(name: str, ratio: float, biased: bool = True) -> Side:
    net, side = made(name, biased).double(), Side()
    masked, x = copy.deepcopy(net), samples(net, 4).double()
    try:
        tool = pruner(net, x[:1], ratio)
        side.groups = their_groups(net, tool)
        first = {path: tuple(module.weight.shape) for path, module in net.named_modules() if hasattr(module, "weight")}
        alive: dict[tuple[str, int], list[int]] = {}
        for group in tool.step(interactive=True):
            mask(masked, alive, places(net, group, tool.DG))
            group.prune()
        for path, module in net.named_modules():
            if isinstance(module, Net) and module.heads() and tool.num_heads:
                module.counts = [tool.num_heads[layer] for layer in module.heads()]
        if isinstance(net, Shuffle2):
            net.start = net.stem.out_channels - net.c1.in_channels
        side.params = count(net)
        for path, shape in first.items():
            now = tuple(net.get_submodule(path).weight.shape)
            side.widths[path] = (shape[0], now[0])
        side.off = off(masked, net, x)
    except Exception as error:  # Whatever it is, it is the result.
        if "-v" in sys.argv:
            traceback.print_exc()
        side.error = said(error)
    return side


def child_steps(child: Child) -> Steps:
    return lambda count: child.ask(f"step {count}")


def theirs_in_steps(name: str, ratio: float) -> Steps:
    net = made(name)
    x = samples(net, 1)

    def steps(count: int) -> list[float]:
        seconds = []
        for _ in range(count):
            fresh = copy.deepcopy(net)
            start = time.perf_counter()
            pruner(fresh, x, ratio).step()
            seconds.append(time.perf_counter() - start)
        return seconds

    return steps


def alike(name: str, mine: list[Group], other: list[Group]) -> tuple[str, list[str]]:
    """Whether the groups are the same, and how they differ."""
    keys, others = {group.key(): group for group in mine}, {group.key(): group for group in other}
    only = [group for key, group in keys.items() if key not in others], [group for key, group in others.items() if key not in keys]
    if not any(only):
        return "yes", []
    members = [sorted((g.size, sorted(g.members.items())) for g in groups) for groups in (mine, other)]
    lines = [f"{name}: only ours: {group}" for group in only[0]] + [f"{name}: only theirs: {group}" for group in only[1]]
    return "other indices" if members[0] == members[1] else "no", lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    parser.add_argument("--nets", default=",".join(NETS), help="which networks")
    parser.add_argument("-v", action="store_true", help="shows where errors come from")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    child = Child(1)
    joined, left, times, notes, traps = [], [], [], [], []
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        for name in args.nets.split(","):
            title = NETS[name][0]
            print(title, file=sys.stderr)
            net, exact, approximate, told = ours(child, name, 0.5, folder)
            other, plain = theirs(name, 0.5), theirs(name, 0.5, biased=False)
            same, lines = alike(title, exact.groups, other.groups)
            notes += lines + ([f"{title}: theirs: {other.error}"] if other.error else [])
            channels = [sum(group.size for group in groups) for groups in (exact.groups, other.groups)]
            joined.append([title, len(exact.groups), len(other.groups), *channels, same])
            sizes = [count(net), f"{exact.params:,}", f"{approximate.params:,}", other.left()]
            differences = [side.difference() for side in (exact, approximate, other, plain)]
            left.append([title, f"{sizes[0]:,}", *sizes[1:], *differences])
            held = told["exact"]["held"]
            if held:
                stay, size = (sum(group[at] for group in held) for at in (2, 1))
                notes.append(f"{title}: held: {stay} of {size} channels, in {len(held)} groups; the first: {held[0][3]}")
            mine = child_steps(child)
            if other.error:
                times.append([title, "–", f"{1e3 * min(in_turn(args.rounds, 3, (mine, mine))[0]):.2f}", "–", "–"])
            else:
                seconds = in_turn(args.rounds, 1 if count(net) > LARGE else 3, (theirs_in_steps(name, 0.5), mine))
                best = [1e3 * min(side) for side in seconds]
                median = np.median(seconds[0]) / np.median(seconds[1])
                times.append([title, f"{best[0]:.2f}", f"{best[1]:.2f}", f"{best[0] / best[1]:.2f}", f"{median:.2f}"])
            child.ask("close")
        for pruned in (0.1, 0.5, 0.7, 0.9, 0.95):
            _, _, approximate, _ = ours(child, "mlp", round(1 - pruned, 6), folder)
            child.ask("close")
            other = theirs("mlp", pruned)
            widths = [" and ".join(str(side.widths[layer][1]) for layer in ("f1", "f2")) for side in (approximate, other)]
            traps.append([f"{pruned:g} of 10 and 7", *widths])
    isa = child.isa
    child.close()
    versions = f"Torch-Pruning {tp.__version__}, PyTorch {torch.__version__}, lapidary on {isa}"
    print(f"{processor()}; {versions}; {args.rounds} rounds")
    table("network|groups, ours|theirs|channels, ours|theirs|joined alike", 1, joined)
    header = "network|numbers|ours, exact|ours, approximate|theirs|off by: ours, exact|ours, approximate|theirs|theirs, without biases"
    table(header, 1, left)
    table("pruned|left by ours|left by theirs", 1, traps)
    table("network|theirs ms|ours ms|ratio (best)|ratio (median)", 1, times)
    print()
    for note in notes:
        print(f"- {note}")


if __name__ == "__main__":
    main()
