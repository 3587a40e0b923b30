"""SPMTrack's linear layers in int8: weights per output channel, activations per input channel, both calibrated.

    y_o = s_o s_x sum_c q(W_oc m_c / s_o) q(x_c / (m_c s_x)) + b_o        q: round to 8 bits, sums in int32

This module decides the scales: ``m_c`` evens out the ranges of activations and weights of a channel (SmoothQuant, Xiao
et al., ICML 2023, with exponent 1/2), ``s_o`` is a row's largest weight over 127, ``s_x`` and a zero point cover what
the calibration saw. Attention, norms, softmax, GELU and sums over experts stay in float32. It must not know a clip.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from spiketrack_deploy.errors import EngineError
from spiketrack_deploy.trackers.spmtrack.fast import Product, float_product

LEVELS, MOST = 255, 127


@dataclass(slots=True)
class Ranges:
    """Smallest and largest value ``[in]`` that every product read; :meth:`observe` is how it is made."""

    low: dict[str, Tensor] = field(default_factory=dict)
    high: dict[str, Tensor] = field(default_factory=dict)

    def observe(self, name: str, weight: Tensor, bias: Tensor | None) -> Product:
        """A float product that widens the ranges of ``name``."""
        run = float_product(name, weight, bias)

        def product(x: Tensor) -> Tensor:
            low, high = x.amin(0), x.amax(0)
            self.low[name] = torch.minimum(self.low.get(name, low), low)
            self.high[name] = torch.maximum(self.high.get(name, high), high)
            return run(x)

        return product

    def product(self, name: str, weight: Tensor, bias: Tensor | None) -> Product:
        """The int8 product of ``name``; EngineError where nothing was observed or the processor has none."""
        if name not in self.low:
            raise EngineError(f"layer {name} was not seen in the calibration; calibrate on at least one frame")
        low, high = self.low[name].clamp(max=0), self.high[name].clamp(min=0)
        return Int8Product(weight, bias, low, high)


class Int8Product:
    """One layer; ``weights`` int8 ``[out,in]`` and ``scales`` ``[out]`` can be read."""

    def __init__(self, weight: Tensor, bias: Tensor | None, low: Tensor, high: Tensor) -> None:
        largest, heaviest = torch.maximum(-low, high), weight.abs().amax(0)
        even = torch.where((largest > 0) & (heaviest > 0), (largest / heaviest).sqrt(), torch.ones_like(largest))
        smoothed = weight * even
        bottom, top = float((low / even).amin()), float((high / even).amax())
        self._scale = max(top - bottom, 1e-12) / LEVELS
        self._zero = round(-bottom / self._scale)
        self._factor, self._half = 1 / (even * self._scale), torch.tensor(self._zero + 0.5)  # half, then truncated
        self.scales = smoothed.abs().amax(1).clamp(min=1e-12) / MOST
        self.weights = torch.round(smoothed / self.scales[:, None]).to(torch.int8)
        self._bias = bias
        self._zeros = torch.zeros(len(weight), dtype=torch.int64)
        ops: Any = torch.ops.onednn
        self._run, self._packed = ops.qlinear_pointwise, ops.qlinear_prepack(self.weights, None)

    def __call__(self, x: Tensor) -> Tensor:
        """``[N,in]`` float32 -> ``[N,out]`` float32."""
        levels = torch.addcmul(self._half, x, self._factor).clamp_(0, LEVELS).to(torch.uint8)
        found: Tensor = self._run(
            levels, self._scale, self._zero, self._packed, self.scales, self._zeros, self._bias, 1.0, 0, torch.float32,
            "none", [], "",
        )  # fmt: skip
        return found
