"""The networks of `slim.py` in PyTorch; `benches/peers/slim.rs` has their topologies."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, relu, relu6, scaled_dot_product_attention

Make = Callable[[], nn.Module]


def conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, padding: int = 0, groups: int = 1, bias: bool = True):
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=bias)


def bare(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, padding: int = 0, groups: int = 1) -> nn.Conv2d:
    return conv(inputs, outputs, kernel, stride, padding, groups, bias=False)


def shuffled(x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    return x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)


class Net(nn.Module):
    """All layers by name; the last is `head`. `counts` of heads and `start` of a second half are what slimming changes besides tensors."""

    input: tuple[int, ...]

    def __init__(self, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)

    def pooled(self, x: Tensor) -> Tensor:
        return self.head(x.mean((2, 3)))

    def heads(self) -> dict[nn.Module, int]:
        """How many heads the outputs of a layer are of."""
        return {}


class Mlp(Net):
    input = (16,)

    def __init__(self) -> None:
        super().__init__(f1=nn.Linear(16, 10), f2=nn.Linear(10, 7), head=nn.Linear(7, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(relu(self.f2(relu(self.f1(x)))))


class LeNet(Net):
    input = (1, 28, 28)

    def __init__(self) -> None:
        super().__init__(c1=conv(1, 6, 5, padding=2), c2=conv(6, 16, 5))
        self.f1, self.f2, self.head = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(relu(self.c1(x)))
        x = self.pool(relu(self.c2(x))).flatten(1)
        return self.head(relu(self.f2(relu(self.f1(x)))))


class Residual(Net):
    def __init__(self, width: int) -> None:
        super().__init__(conv1=bare(width, width, 3, 1, 1), bn1=nn.BatchNorm2d(width))
        self.conv2, self.bn2 = bare(width, width, 3, 1, 1), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return relu(x + self.bn2(self.conv2(relu(self.bn1(self.conv1(x))))))


class ResCnn(Net):
    input = (1, 8, 8)

    def __init__(self) -> None:
        super().__init__(conv0=bare(1, 16, 3, 1, 1), bn0=nn.BatchNorm2d(16), b1=Residual(16))
        self.down, self.bnd, self.b2, self.head = bare(16, 32, 3, 2, 1), nn.BatchNorm2d(32), Residual(32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b1(relu(self.bn0(self.conv0(x))))
        return self.pooled(self.b2(relu(self.bnd(self.down(x)))))


class Inverted(Net):
    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__(expand=bare(inputs, width), bn1=nn.BatchNorm2d(width))
        self.depthwise, self.bn2 = bare(width, width, 3, 1, 1, width), nn.BatchNorm2d(width)
        self.project, self.bn3 = bare(width, outputs), nn.BatchNorm2d(outputs)
        self.adds = inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = relu6(self.bn2(self.depthwise(relu6(self.bn1(self.expand(x))))))
        y = self.bn3(self.project(y))
        return x + y if self.adds else y


class Mobile(Net):
    input = (3, 16, 16)

    def __init__(self) -> None:
        super().__init__(stem=bare(3, 16, 3, 2, 1), stem_bn=nn.BatchNorm2d(16), m1=Inverted(16, 48, 16))
        self.m2, self.head = Inverted(16, 48, 24), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.pooled(self.m2(self.m1(relu6(self.stem_bn(self.stem(x))))))


class Grown(Net):
    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__(bn=nn.BatchNorm2d(inputs), conv=bare(inputs, growth, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(relu(self.bn(x)))], 1)


class DenseNet(Net):
    input = (3, 8, 8)

    def __init__(self) -> None:
        super().__init__(stem=conv(3, 12, 3, 1, 1), d1=Grown(12, 7), d2=Grown(19, 7), bn=nn.BatchNorm2d(26))
        self.transition, self.head = conv(26, 10), nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.d2(self.d1(self.stem(x)))
        return self.pooled(relu(self.transition(relu(self.bn(x)))))


class Nested(Net):
    input = (3, 8, 8)

    def __init__(self) -> None:
        super().__init__(a=conv(3, 5), b=conv(3, 4), c=conv(3, 7), mix=conv(32, 8), head=nn.Linear(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = self.a(x), self.b(x), self.c(x)
        ab = torch.cat([a, b], 1)
        both = torch.cat([torch.cat([ab, c], 1), torch.cat([c, ab], 1)], 1)
        return self.pooled(self.mix(relu(both)))


class Shuffle(Net):
    input = (3, 8, 8)

    def __init__(self) -> None:
        super().__init__(stem=conv(3, 12), g1=conv(12, 12, groups=2), bn1=nn.BatchNorm2d(12))
        self.depthwise, self.bn2 = bare(12, 12, 3, 1, 1, 12), nn.BatchNorm2d(12)
        self.g2, self.bn3, self.head = conv(12, 8, groups=2), nn.BatchNorm2d(8), nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.bn2(self.depthwise(shuffled(relu(self.bn1(self.g1(x))))))
        return self.pooled(relu(torch.cat([x, self.bn3(self.g2(y))], 1)))


class Shuffle2(Net):
    input = (3, 8, 8)
    start = 8

    def __init__(self) -> None:
        super().__init__(stem=conv(3, 16, 3, 1, 1), stem_bn=nn.BatchNorm2d(16), c1=bare(8, 8), bn1=nn.BatchNorm2d(8))
        self.depthwise, self.bn2 = bare(8, 8, 3, 1, 1, 8), nn.BatchNorm2d(8)
        self.c2, self.bn3 = bare(8, 8), nn.BatchNorm2d(8)
        self.last, self.last_bn, self.head = bare(16, 12), nn.BatchNorm2d(12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = relu(self.stem_bn(self.stem(x)))
        a, b = x[:, : self.start], x[:, self.start :]
        b = self.bn2(self.depthwise(relu(self.bn1(self.c1(b)))))
        b = relu(self.bn3(self.c2(b)))
        return self.pooled(relu(self.last_bn(self.last(shuffled(torch.cat([a, b], 1))))))


class Grouped(Net):
    input = (3, 8, 8)

    def __init__(self) -> None:
        super().__init__(stem=bare(3, 16), stem_bn=nn.BatchNorm2d(16), wide=bare(16, 24, 3, 1, 1, 4))
        self.bn, self.head = nn.BatchNorm2d(24), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.pooled(relu(self.bn(self.wide(relu(self.stem_bn(self.stem(x)))))))


class UNet(Net):
    input = (3, 8, 8)

    def __init__(self) -> None:
        super().__init__(stem=bare(3, 10, 3, 1, 1), stem_bn=nn.BatchNorm2d(10), down=bare(10, 14, 3, 2, 1))
        self.down_bn, self.up, self.head = nn.BatchNorm2d(14), nn.ConvTranspose2d(14, 6, 2, 2), conv(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = relu(self.stem_bn(self.stem(x)))
        y = self.up(relu(self.down_bn(self.down(x))))
        return self.head(relu(torch.cat([x, y], 1)))


class Squeeze(Net):
    input = (3, 8, 8)

    def __init__(self) -> None:
        super().__init__(stem=bare(3, 16, 3, 1, 1), stem_bn=nn.BatchNorm2d(16), less=conv(16, 4), more=conv(4, 16))
        self.last, self.last_bn, self.head = bare(16, 12), nn.BatchNorm2d(12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = relu(self.stem_bn(self.stem(x)))
        gate = self.more(relu(self.less(x.mean((2, 3), keepdim=True)))).sigmoid()
        return self.pooled(relu(self.last_bn(self.last(x * gate))))


class GroupNormed(Net):
    input = (3, 8, 8)

    def __init__(self) -> None:
        super().__init__(stem=conv(3, 16, 3, 1, 1), norm=nn.GroupNorm(4, 16), last=conv(16, 6), head=nn.Linear(6, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.pooled(self.last(relu(self.norm(self.stem(x)))))


class Transformer(Net):
    """A block of pre-norm attention and GELU."""

    input = (6, 16)

    def __init__(self, heads: int, key_heads: int) -> None:
        super().__init__(embed=nn.Linear(16, 32), ln1=nn.LayerNorm(32), ln2=nn.LayerNorm(32), ln3=nn.LayerNorm(32))
        self.q, self.k, self.v = (nn.Linear(32, 32 // heads * n) for n in (heads, key_heads, key_heads))
        self.o, self.up, self.down, self.head = nn.Linear(32, 32), nn.Linear(32, 64), nn.Linear(64, 32), nn.Linear(32, 5)
        self.counts = [heads, key_heads, key_heads]

    def heads(self) -> dict[nn.Module, int]:
        return dict(zip([self.q, self.k, self.v], self.counts))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        y = self.ln1(x)
        q, k, v = (f(y).unflatten(-1, (n, -1)).transpose(1, 2) for f, n in zip((self.q, self.k, self.v), self.counts))
        if self.counts[0] != self.counts[1]:
            served = self.counts[0] // self.counts[1]
            k, v = (t[:, :, None].expand(-1, -1, served, -1, -1).flatten(1, 2) for t in (k, v))
        x = x + self.o(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return self.head(self.ln3(x + self.down(gelu(self.up(self.ln2(x))))))


class Vision(Net):
    """Patches, positions, attention whose queries, keys and values one layer makes, and the mean."""

    input = (3, 8, 8)

    def __init__(self) -> None:
        super().__init__(patch=conv(3, 32, 4, 4), ln1=nn.LayerNorm(32), qkv=nn.Linear(32, 96), o=nn.Linear(32, 32))
        self.ln2, self.up, self.down, self.ln3 = nn.LayerNorm(32), nn.Linear(32, 64), nn.Linear(64, 32), nn.LayerNorm(32)
        self.head, self.position, self.counts = nn.Linear(32, 5), nn.Parameter(torch.zeros(1, 4, 32)), [4]

    def heads(self) -> dict[nn.Module, int]:
        return {self.qkv: self.counts[0]}

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2) + self.position
        q, k, v = self.qkv(self.ln1(x)).unflatten(-1, (3, self.counts[0], -1)).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.o(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        x = x + self.down(gelu(self.up(self.ln2(x))))
        return self.head(self.ln3(x).mean(1))


class Mixer(Net):
    """Dense layers over the steps, then over the channels."""

    input = (6, 16)

    def __init__(self) -> None:
        super().__init__(embed=nn.Linear(16, 20), step1=nn.Linear(6, 10), step2=nn.Linear(10, 6), up=nn.Linear(20, 40))
        self.down, self.head = nn.Linear(40, 20), nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.step2(gelu(self.step1(x.transpose(1, 2)))).transpose(1, 2)
        return self.head(x + self.down(gelu(self.up(x))))


class Pixel(Net):
    input = (3, 8, 8)

    def __init__(self) -> None:
        super().__init__(stem=conv(3, 24, 3, 1, 1), mix=conv(6, 8), head=conv(8, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(relu(self.mix(relu(nn.functional.pixel_shuffle(self.stem(x), 2)))))


class Multiplier(Net):
    input = (3, 8, 8)

    def __init__(self) -> None:
        super().__init__(stem=conv(3, 8), depthwise=conv(8, 16, 3, 1, 1, 8), last=conv(16, 6), head=nn.Linear(6, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.pooled(self.last(relu(self.depthwise(relu(self.stem(x))))))


class WithInput(Net):
    input = (4, 8, 8)

    def __init__(self) -> None:
        super().__init__(a=conv(4, 4), b=conv(4, 6), c=conv(10, 8), head=nn.Linear(8, 5))

    def forward(self, x: Tensor) -> Tensor:
        y = relu(x + self.a(x))
        return self.pooled(self.c(torch.cat([y, relu(self.b(x))], 1)))


class Lstm(Net):
    input = (6, 8)

    def __init__(self) -> None:
        super().__init__(embed=nn.Linear(8, 12), lstm=nn.LSTM(12, 20, batch_first=True), head=nn.Linear(20, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(self.embed(x))[0])


class Bottleneck(Net):
    def __init__(self, inputs: int, width: int, stride: int, first: bool) -> None:
        super().__init__(c1=bare(inputs, width), b1=nn.BatchNorm2d(width), c2=bare(width, width, 3, stride, 1))
        self.b2, self.c3, self.b3 = nn.BatchNorm2d(width), bare(width, 4 * width), nn.BatchNorm2d(4 * width)
        self.first = first
        if first:
            self.down, self.down_bn = bare(inputs, 4 * width, 1, stride), nn.BatchNorm2d(4 * width)

    def forward(self, x: Tensor) -> Tensor:
        y = relu(self.b2(self.c2(relu(self.b1(self.c1(x))))))
        return relu((self.down_bn(self.down(x)) if self.first else x) + self.b3(self.c3(y)))


class ResNet50(Net):
    input = (3, 32, 32)

    def __init__(self) -> None:
        super().__init__(stem=bare(3, 64, 7, 2, 3), stem_bn=nn.BatchNorm2d(64), pool=nn.MaxPool2d(3, 2, 1))
        inputs = 64
        for stage, blocks in enumerate((3, 4, 6, 3)):
            layers = []
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(Bottleneck(inputs, 64 << stage, stride, block == 0))
                inputs = 256 << stage
            setattr(self, f"s{stage}", nn.Sequential(*layers))
        self.head = nn.Linear(inputs, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(relu(self.stem_bn(self.stem(x))))
        return self.pooled(self.s3(self.s2(self.s1(self.s0(x)))))


NETS: dict[str, tuple[str, Make]] = {
    "mlp": ("dense, of 10 and 7", Mlp),
    "lenet": ("LeNet-5", LeNet),
    "rescnn": ("residual CNN", ResCnn),
    "mobile": ("MobileNet-like", Mobile),
    "densenet": ("DenseNet-like", DenseNet),
    "nested": ("nested concatenation", Nested),
    "shuffle": ("ShuffleNet-like, groups", Shuffle),
    "shuffle2": ("ShuffleNet-like, split", Shuffle2),
    "grouped": ("grouped convolution", Grouped),
    "unet": ("U-Net-like, transposed", UNet),
    "squeeze": ("squeeze and excitation", Squeeze),
    "groupnorm": ("group norm", GroupNormed),
    "transformer": ("transformer block", lambda: Transformer(4, 4)),
    "gqa": ("grouped-query attention", lambda: Transformer(8, 2)),
    "vision": ("vision transformer, one matrix of q, k, v", Vision),
    "mixer": ("MLP-Mixer", Mixer),
    "pixel": ("pixel shuffle", Pixel),
    "multiplier": ("depthwise, two a channel", Multiplier),
    "input": ("sum and concatenation with the input", WithInput),
    "lstm": ("LSTM", Lstm),
    "resnet50": ("ResNet-50", ResNet50),
}
"""The name of each network, and how to make it."""
