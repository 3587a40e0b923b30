"""A tracker whose forward pass is the integer program's arithmetic, and whose backward pass can train it.

This module decides how real master weights become what the program holds, and passes gradients straight through the
roundings. Batch norms are folded for good. Every value is a dyadic rational within 24 bits, so float32 computes it
exactly (docs/exactness.md; the same argument as the simulator's). It must not know data nor optimisers.

    weight  clip(round_half_even(w 2^e), -127, 127) 2^-e        e per output channel, as the lowering chose it
    bias    round_half_even(b 2^f) 2^-f                         f: fraction bits of the stream it joins
    offset  round_half_even(p 2^f) 2^-f                         positional embeddings, f of the stream they meet
    pixels  0..255 enter the first convolution; its bias is a map, because zero padding follows the normalisation
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.lowering.calibrate import WEIGHT_MAX
from spiketrack_deploy.trackers.spiketrack.head import Maps
from spiketrack_deploy.trackers.spiketrack.model import SpikeTrack
from spiketrack_deploy.trackers.spiketrack.norm import EPS
from spiketrack_deploy.tracking.pixels import pixel_units
from spiketrack_deploy.training.joint import branch_pass, joint_pass
from spiketrack_deploy.training.membranes import GateUnits, Steps, arrange, over_time
from spiketrack_deploy.training.pairs import Sample
from spiketrack_deploy.training.surrogate import learn, straight_through
from spiketrack_deploy.training.units import Units, lowered, units_of

FIRST = "encoder.downsample1_1.encode_conv"
IDENTITY_SCALE = 2.0**20
"""A norm of this weight and of its square as variance is exactly 1: 2^40 + 1e-5 is 2^40 in float64. A variance of
1 - 1e-5 would leave a factor of 1 + 1e-8, and dyadic membranes often lie exactly on a threshold."""
_RESAMPLING = ("mrm.0", "mrm.1")


class PixelConv(nn.Conv2d):
    """The first convolution on raw pixels; ``bias`` ``[O]`` or a map ``[O,H,W]``."""

    def forward(self, input: Tensor) -> Tensor:
        """``[N,3,r,r]`` in 0..255 -> ``[N,O,r/2,r/2]``."""
        out = F.conv2d(input, self.weight, None, self.stride, cast(tuple[int, int], self.padding))
        bias = cast(Tensor, self.bias)
        return out + (bias if bias.dim() == 3 else bias[:, None, None])


class _Passes(nn.Module):
    """Gives ``functional_call`` one module whose forward is a training pass."""

    def __init__(self, net: SpikeTrack) -> None:
        super().__init__()
        self.net = net

    def forward(self, templates: Tensor, searches: Tensor, each: int) -> Maps:
        """Templates ``[N,...]`` jointly with the searches, or ``[T,N,...]`` by the two branches."""
        one_pass = joint_pass if templates.dim() == 4 else branch_pass
        return one_pass(self.net, templates, searches, each)


class IntegerModel(nn.Module):
    """Trainable masters of a lowered tracker. ``forward`` computes what the program computes, exactly.

    At T > 1 that is the program of the units in use: another lowering may choose finer streams, and membranes then
    round elsewhere. Retrievers that resample (mrm.0, mrm.1) may need a rounding that only the program makes:
    :class:`InputError`.
    """

    def __init__(self, model: SpikeTrack, samples: Sequence[Sample]) -> None:
        super().__init__()
        resampling = [stage for stage in model.config.walk if stage in _RESAMPLING]
        if resampling:
            raise InputError(
                f"configuration {model.config.name}: integer training covers retrievers on the head's grid only, not "
                f"{', '.join(resampling)}; train it in float and let the lowering quantise it"
            )
        self.config = model.config
        self.template = [copy.deepcopy(model)]  # in a list: a shape to deploy into, no part of the state
        net = folded(model)
        learn(net)
        if model.config.templates > 1:
            over_time(net)
        self.passes = _Passes(net)
        self.set_units(units_of(lowered(copy.deepcopy(model), samples), net))

    @property
    def net(self) -> SpikeTrack:
        """The folded network that holds the masters."""
        return self.passes.net

    def masters(self) -> dict[str, Tensor]:
        """Real values of everything that the program holds as integers, differentiable: key of ``net`` -> tensor."""
        return dict(self.net.named_parameters())

    def set_units(self, units: Units) -> None:
        """Take over exponents and stream bits (kept as buffers, so that a resumed run has them)."""
        self._units = units
        device = next(self.net.parameters()).device
        for path, conv in units.convs.items():
            self.register_buffer(_key("exponent", path), conv.exponent.to(device))
            self.register_buffer(_key("bits", path), conv.bits.to(device))
        for key, bits in units.offsets.items():
            self.register_buffer(_key("offset", key), bits.to(device))
        for path, calls in units.membranes.items():
            for k, call in enumerate(calls):
                self.register_buffer(_key(f"membrane{k}", path), call.rows.to(device))
        for path, gate in units.gates.items():
            self.register_buffer(_key("gate", path), gate.numbers.to(device))

    def _accumulates(self, key: str) -> bool:
        """Whether an embedding is one of several steps, which the neuron behind it adds up."""
        return self.config.templates > 1 and ".t_pos_embeds." in key

    def refit(self, samples: Sequence[Sample]) -> None:
        """Choose exponents and units again for the masters as they are now."""
        self.set_units(units_of(lowered(self.deployed(integers=False), samples), self.net))

    def effective(self) -> dict[str, Tensor]:
        """Every parameter as the program holds it, differentiable (straight through): key of ``net`` -> tensor."""
        parameters = self.masters()
        out: dict[str, Tensor] = {}
        for path in self._units.convs:
            exponent, bits = self.get_buffer(_key("exponent", path)), self.get_buffer(_key("bits", path))
            weight, bias = parameters[f"{path}.weight"], parameters[f"{path}.bias"]
            if path == FIRST:
                # Its master acts on normalised pixels, so that one learning rate suits all layers.
                weight = rounded(weight / self._pixel_scale(weight), exponent, WEIGHT_MAX)
                bias = self._bias_map(weight, bias)
            else:
                weight = rounded(weight, exponent, WEIGHT_MAX)
            out[f"{path}.weight"], out[f"{path}.bias"] = weight, rounded(bias, bits)
        for key in self._units.offsets:
            bits = self.get_buffer(_key("offset", key))
            if self._accumulates(key):
                out[key] = torch.zeros_like(parameters[key])
                continue
            out[key] = rounded(parameters[key].transpose(0, 1), bits).transpose(0, 1)
        return out

    def _bias_map(self, weight: Tensor, bias: Tensor) -> Tensor:
        """Bias minus the mean's share of every tap inside the image, in float64: ``[O,r/2,r/2]``."""
        side, first = self.config.resolution, cast(PixelConv, self.net.get_submodule(FIRST))
        mean = torch.from_numpy(pixel_units(self.config.normalisation)[0]).to(weight.device)[None, :, None, None]
        share = F.conv2d(
            mean.expand(1, 3, side, side), weight.double(), None, first.stride, cast(tuple[int, int], first.padding)
        )
        return bias.double()[:, None, None] - share[0]

    def forward(self, templates: Tensor, searches: Tensor, each: int) -> Maps:
        """Maps of templates ``[N,3,r,r]`` (or ``[T,N,3,r,r]``) and searches ``[N K,3,r,r]``, raw pixels as float32."""
        dtype = templates.dtype
        values = {f"net.{key}": value.to(dtype) for key, value in self.effective().items()}
        self._arrange()
        try:
            return cast(Maps, functional_call(self.passes, values, (templates, searches, each)))
        finally:
            arrange(self.net, {}, {}, {})

    def _arrange(self) -> None:
        """Units in use, and the accumulated embeddings' masters, for one pass over several steps."""
        membranes = {
            path: [Steps(self.get_buffer(_key(f"membrane{k}", path)), call.scale) for k, call in enumerate(calls)]
            for path, calls in self._units.membranes.items()
        }
        gates = {p: GateUnits(self.get_buffer(_key("gate", p)), g.table) for p, g in self._units.gates.items()}
        parameters, offsets = self.masters(), dict[str, Tensor]()
        for owner in {key.rpartition(".t_pos")[0] for key in self._units.offsets if self._accumulates(key)}:
            steps = [parameters[f"{owner}.t_pos_embeds.{t}"][0] for t in range(self.config.templates)]
            offsets[f"{owner}.head_spike"] = torch.stack(steps)
        arrange(self.net, membranes, gates, offsets)

    def _pixel_scale(self, like: Tensor) -> Tensor:
        """What a raw pixel is divided by, ``[1,3,1,1]``."""
        scale = torch.from_numpy(pixel_units(self.config.normalisation)[1])
        return scale.to(like.device, like.dtype)[None, :, None, None]

    def deployed(self, integers: bool = True) -> SpikeTrack:
        """A tracker with the published keys: the weights as the program holds them, or the masters as they are.

        Norms become the identity to the last bit, in float32 and float64 (:data:`IDENTITY_SCALE`).
        """
        out = copy.deepcopy(self.template[0]).float()
        state = out.state_dict()
        masters = self.masters()
        chosen = {**masters, **(self.effective() if integers else {})}
        if integers:
            # The map is made again from weights and mean, whose share is whole in the map's unit if pixels are dyadic.
            own, bits = self.config.normalisation, self.get_buffer(_key("bits", FIRST))
            bias = masters[f"{FIRST}.bias"]
            chosen[f"{FIRST}.bias"] = rounded(bias, bits) if own is not None and own.dyadic else bias
        values = {key: value.detach().cpu() for key, value in chosen.items()}
        for path in self._units.convs:
            weight, bias = values[f"{path}.weight"].double(), values[f"{path}.bias"]
            if path == FIRST and integers:
                weight = weight * self._pixel_scale(weight)
            _write(state, path, weight, bias, norm_of(self.template[0], path))
        for key in self._units.offsets:
            state[key] = masters[key].detach().cpu() if self._accumulates(key) else values[key]
        out.load_state_dict(state)
        return out.eval()


def _key(kind: str, path: str) -> str:
    return f"{kind}_{path.replace('.', '/')}"


def rounded(values: Tensor, bits: Tensor, limit: int | None = None) -> Tensor:
    """``round_half_even(v 2^bits) 2^-bits``, bits per index of the first axis, clipped to ``limit`` units; straight
    through."""
    scale = torch.exp2(bits.to(values.dtype)).reshape(-1, *(1,) * (values.dim() - 1))
    integer = torch.round(values.detach() * scale)
    if limit is not None:
        integer = integer.clamp(-limit, limit)
    fixed = integer / scale
    return straight_through(values, fixed)


def norm_of(model: nn.Module, path: str) -> str | None:
    """Path of the norm behind a convolution (None: no norm, as behind the head's last layers)."""
    parent, _, leaf = path.rpartition(".")
    follower = {
        "encode_conv": "encode_bn",
        "conv1": "bn1",
        "conv2": "bn2",
        "fc1_conv": "fc1_bn",
        "fc2_conv": "fc2_bn",
        "0": "1",
    }
    name = f"{parent}.{follower[leaf]}" if leaf in follower and ".gate." not in path else None
    return name if name is not None and any(n == name for n, _ in model.named_modules()) else None


def folded(model: SpikeTrack) -> SpikeTrack:
    """A float32 copy whose norms are folded into its convolutions."""
    net = copy.deepcopy(model).double()
    for path, module in list(net.named_modules()):
        if not isinstance(module, (nn.Conv1d, nn.Conv2d)):
            continue
        norm = norm_of(net, path)
        weight, bias = module.weight.detach(), module.bias
        own = torch.zeros(weight.shape[0], dtype=weight.dtype) if bias is None else bias.detach()
        if norm is not None:
            n = net.get_submodule(norm)
            gamma, beta, mean, var = (
                cast(Tensor, getattr(n, k)).detach() for k in ("weight", "bias", "running_mean", "running_var")
            )
            scale = gamma / torch.sqrt(var + EPS)
            weight = weight * scale.reshape(-1, *(1,) * (weight.dim() - 1))
            own = own * scale + (beta - mean * scale)
            _replace(net, norm, nn.Identity())
        if path == FIRST:
            module.__class__ = PixelConv
        module.weight, module.bias = nn.Parameter(weight), nn.Parameter(own)
    return net.float()


def _replace(root: nn.Module, path: str, new: nn.Module) -> None:
    parent, _, leaf = path.rpartition(".")
    setattr(root.get_submodule(parent), leaf, new)


def _write(state: dict[str, Tensor], path: str, weight: Tensor, bias: Tensor, norm: str | None) -> None:
    state[f"{path}.weight"] = weight.to(state[f"{path}.weight"].dtype)
    if norm is None:
        state[f"{path}.bias"] = bias
        return
    if f"{path}.bias" in state:
        state[f"{path}.bias"] = torch.zeros_like(bias)
    ones = torch.ones_like(bias)
    state |= {
        f"{norm}.weight": IDENTITY_SCALE * ones,
        f"{norm}.bias": bias,
        f"{norm}.running_mean": 0 * ones,
        f"{norm}.running_var": IDENTITY_SCALE**2 * ones,
    }
