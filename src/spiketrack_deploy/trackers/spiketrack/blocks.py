"""The blocks that both branches share: downsampling, conv block, transformer block and their parts.

This module decides the arithmetic between the neurons of one block (docs/spiketrack.md, "Blocks"). It must not know
the order of blocks nor the tracker. Attribute names are the published state-dict keys. Tensors are ``[T,B,C,H,W]``;
convolutions and norms fold T and B together, because none of them mixes time.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig
from spiketrack_deploy.trackers.spiketrack.neuron import BUILT_STEPS, NILIF
from spiketrack_deploy.trackers.spiketrack.norm import norm1d, norm2d

EMBED_STD = 0.02


def folded(module: nn.Module, x: Tensor) -> Tensor:
    """Apply a module that knows one batch axis to ``[T,B,...]``."""
    y: Tensor = module(x.flatten(0, 1))
    return y.unflatten(0, x.shape[:2])


def conv_norm(
    c_in: int, c_out: int, kernel: int = 1, *, groups: int = 1, bias: bool = False, frozen: bool
) -> nn.Sequential:
    """Same-size convolution (key ``.0``) and 2-D norm (key ``.1``)."""
    conv = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, groups=groups, bias=bias)
    return nn.Sequential(conv, norm2d(c_out, frozen))


def new_embedding(channels: int, cells: int) -> nn.Parameter:
    """Positional embedding ``[1, C, P*P]``; position n = row * P + column."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(1, channels, cells), std=EMBED_STD))


def template_embeddings(channels: int, cells: int) -> nn.ParameterList:
    """One embedding per built step (four, although at most three steps run)."""
    return nn.ParameterList([new_embedding(channels, cells) for _ in range(BUILT_STEPS)])


def key_value(k: Tensor, v: Tensor, heads: int) -> Tensor:
    """``k^T v`` per step and head, unscaled: ``[T,B,C,N]``, ``[T,B,rC,N]`` -> ``[T,B,heads,d,rd]`` in sixteenths."""
    return k.unflatten(2, (heads, -1)) @ v.unflatten(2, (heads, -1)).transpose(-1, -2)


def query(q: Tensor, memory: Tensor, gain: float | None) -> Tensor:
    """``q (k^T v)`` times the attention factor: q ``[T,B,C,N]``, memory ``[T,B,heads,d,rd]`` -> ``[T,B,rC,N]``."""
    heads, d = memory.shape[2], memory.shape[3]
    out = (memory.transpose(-1, -2) @ q.unflatten(2, (heads, d))).flatten(2, 3)
    # The published order of the two factors: another one differs in the last bit.
    return out * d**-0.5 * 2 if gain is None else out * gain


class Downsample(nn.Module):
    """``downsample*``: NI-LIF (not in the first, which reads the image), strided convolution with bias, frozen norm."""

    def __init__(self, c_in: int, c_out: int, *, kernel: int = 3, stride: int = 2, first: bool = False) -> None:
        super().__init__()
        self.encode_conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2)
        self.encode_bn = norm2d(c_out, frozen=True)
        self.encode_spike = None if first else NILIF()

    def forward(self, x: Tensor, template: bool) -> Tensor:
        """``[T,B,C_in,H,W]`` -> ``[T,B,C_out,H/stride,W/stride]``; the branch makes no difference."""
        if self.encode_spike is not None:
            x = self.encode_spike(x)
        return folded(self.encode_bn, folded(self.encode_conv, x))


class SepConv(nn.Module):
    """Pointwise, depthwise, pointwise convolution, each behind a neuron; no bias; frozen norms."""

    def __init__(self, width: int, expansion: int, kernel: int) -> None:
        super().__init__()
        hidden = expansion * width
        self.spike1 = NILIF()
        self.pwconv1 = conv_norm(width, hidden, frozen=True)
        self.spike2 = NILIF()
        self.dwconv = conv_norm(hidden, hidden, kernel, groups=hidden, frozen=True)
        self.spike3 = NILIF()
        self.pwconv2 = conv_norm(hidden, width, frozen=True)

    def forward(self, x: Tensor) -> Tensor:
        """``[T,B,C,H,W]`` -> same shape; the caller adds it to the residual stream."""
        x = folded(self.pwconv1, self.spike1(x))
        x = folded(self.dwconv, self.spike2(x))
        return folded(self.pwconv2, self.spike3(x))


class ConvBlock(nn.Module):
    """``ConvBlock*.0``: a 7x7 SepConv and a dense 3x3 bottleneck, both residual."""

    def __init__(self, width: int, config: TrackerConfig) -> None:
        super().__init__()
        hidden = config.conv_expansion * width
        self.Conv = SepConv(width, config.sep_expansion, 7)
        self.spike1 = NILIF()
        self.conv1 = nn.Conv2d(width, hidden, 3, padding=1, bias=False)
        self.bn1 = norm2d(hidden, frozen=True)
        self.spike2 = NILIF()
        self.conv2 = nn.Conv2d(hidden, width, 3, padding=1, bias=False)
        self.bn2 = norm2d(width, frozen=True)

    def forward(self, x: Tensor, template: bool) -> Tensor:
        """``[T,B,C,H,W]`` -> same shape; the branch makes no difference."""
        x = x + self.Conv(x)
        y = folded(self.bn1, folded(self.conv1, self.spike1(x)))
        return x + folded(self.bn2, folded(self.conv2, self.spike2(y)))


class MLP(nn.Module):
    """``mlp``: two 1-D pointwise convolutions with bias over flattened space, each behind a neuron."""

    def __init__(self, width: int, expansion: int, *, frozen: bool) -> None:
        super().__init__()
        hidden = expansion * width
        self.fc1_conv = nn.Conv1d(width, hidden, 1)
        self.fc1_spike = NILIF()
        self.fc2_conv = nn.Conv1d(hidden, width, 1)
        self.fc2_spike = NILIF()
        self.fc1_bn = norm1d(hidden, frozen)
        self.fc2_bn = norm1d(width, frozen)

    def forward(self, x: Tensor) -> Tensor:
        """``[T,B,C,H,W]`` -> same shape; the caller adds it to the residual stream."""
        space = x.shape[3:]
        y = folded(self.fc1_bn, folded(self.fc1_conv, self.fc1_spike(x.flatten(3))))
        y = folded(self.fc2_bn, folded(self.fc2_conv, self.fc2_spike(y)))
        return y.unflatten(3, space)


class Attention(nn.Module):
    """``attn``: softmax-free linear attention; its positional embedding depends on the branch and the step."""

    def __init__(self, width: int, config: TrackerConfig) -> None:
        super().__init__()
        cells, values = config.grid**2, config.value_ratio * width
        self.heads, self.gain = config.heads, config.attention_gain
        self.s_pos_embed = new_embedding(width, cells)
        self.head_spike = NILIF()
        self.q_spike = NILIF()
        self.k_spike = NILIF()
        self.v_spike = NILIF()
        self.attn_spike = NILIF()
        self.q_conv = conv_norm(width, width, frozen=True)
        self.k_conv = conv_norm(width, width, frozen=True)
        self.v_conv = conv_norm(width, values, frozen=True)
        self.proj_conv = conv_norm(values, width, frozen=True)
        self.t_pos_embeds = template_embeddings(width, cells)

    def forward(self, x: Tensor, template: bool) -> Tensor:
        """``[T,B,C,P,P]`` -> same shape; the caller adds it to the residual stream."""
        space = x.shape[3:]
        y = self.head_spike(with_embedding(x, self.s_pos_embed, self.t_pos_embeds, template))
        q = self.q_spike(folded(self.q_conv, y).flatten(3))
        k = self.k_spike(folded(self.k_conv, y).flatten(3))
        v = self.v_spike(folded(self.v_conv, y).flatten(3))
        out = query(q, key_value(k, v, self.heads), self.gain).unflatten(3, space)
        return folded(self.proj_conv, self.attn_spike(out))


def with_embedding(x: Tensor, search: Tensor, templates: nn.ParameterList, template: bool) -> Tensor:
    """``x [T,B,C,P,P]`` plus the search embedding, or plus embedding t at template step t."""
    space = x.shape[3:]
    if not template:
        return x + search.unflatten(2, space)
    steps = torch.stack([templates[t] for t in range(x.shape[0])])
    return x + steps.unflatten(3, space)


class TransformerBlock(nn.Module):
    """``block3.j`` and ``block4.j``: 3x3 SepConv, attention and MLP, all residual."""

    def __init__(self, width: int, config: TrackerConfig) -> None:
        super().__init__()
        self.conv = SepConv(width, config.sep_expansion, 3)
        self.attn = Attention(width, config)
        self.mlp = MLP(width, config.mlp_expansion, frozen=True)

    def forward(self, x: Tensor, template: bool) -> Tensor:
        """``[T,B,C,P,P]`` -> same shape."""
        x = x + self.conv(x)
        x = x + self.attn(x, template)
        return x + self.mlp(x)
