"""The tracker as one graph: which layer follows which, in the template phase and in the search phase.

Decides the walk from a state dict and a configuration to nodes and cuts. Must not know HDF5, PyTorch or the
tracker's modules: the state-dict keys are the contract. Source: SpikeTrack, CVPR 2026 (arXiv
2602.23963); docs/spiketrack.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy.typing as npt

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.frontends.spiketrack.builder import CONVENTION, SCHEMA, GraphBuilder
from spiketrack_deploy.frontends.spiketrack.fold import Weights
from spiketrack_deploy.frontends.spiketrack.names import MAPS, SEARCH, TEMPLATE
from spiketrack_deploy.nir_graph.cuts import TRANSPOSE
from spiketrack_deploy.nir_graph.graph import Cut, FloatArray, Graph, canonical_json
from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig
from spiketrack_deploy.tracking.loop import CLAMP
from spiketrack_deploy.tracking.pixels import MEAN, STD

LAST_EMBED = 3
"""A network has four template embeddings, 0 to 3; later steps would use the last."""

Steps = list[str]
"""The node that carries a value, one per time step."""


def build_graph(state: Mapping[str, npt.ArrayLike], config: TrackerConfig) -> tuple[Graph, list[Cut]]:
    """The NIR graph and its cuts, in execution order, of the weights ``state`` (official keys) under ``config``.

    ``state`` maps keys to NumPy arrays (or CPU tensors); idle keys are ignored. Raises InputError naming a tensor
    that is missing, misshaped or not finite.
    """
    builder = GraphBuilder(Weights(state))
    _Phase(builder, config, TEMPLATE, config.templates).template()
    _Phase(builder, config, SEARCH, 1).search()
    metadata = {"schema": SCHEMA, "config": canonical_json(config.to_dict()), "convention": CONVENTION}
    return builder.graph(metadata), builder.cuts


class _Phase:
    """One phase while it is written down; every method takes and returns one node per step."""

    def __init__(self, builder: GraphBuilder, config: TrackerConfig, name: str, steps: int) -> None:
        self.b, self.config, self.name, self.steps = builder, config, name, steps

    def template(self) -> None:
        """From T images to the memories; nothing behind the last memory, because nothing reads it."""
        memories = [stage for stage in self.config.walk if stage.startswith("mrm.")]
        if not memories:
            return
        x = self._images()
        for stage in self.config.walk:
            if stage in memories:
                self._write_memory(stage, x)
                if stage == memories[-1]:
                    return
            else:
                x = self._stage(stage, x)

    def search(self) -> None:
        """From one image to the three logit maps."""
        x = self._images()
        for stage in self.config.walk:
            x = self._retrieval(stage, x) if stage.startswith("mrm.") else self._stage(stage, x)
        self._head(x)

    def _images(self) -> Steps:
        side = self.config.resolution
        own = self.config.normalisation
        op, mean, std = ("normalise_pixels", own.mean, own.std) if own else ("normalise", MEAN, STD)
        params = {"mean": list(mean), "std": list(std), "shape": [3, side, side]}
        names = [f"{self.name}.image@t{t}" for t in range(self.steps)]
        return [self.b.cut(f"{name}.{op}", op, [], dict(params), result=name) for name in names]

    def _stage(self, stage: str, x: Steps) -> Steps:
        path = f"encoder.{stage}"
        if stage.startswith("downsample"):
            return self._downsample(stage, path, x)
        if stage.startswith("ConvBlock"):
            return self._conv_block(path, x)
        return self._transformer_block(path, x)

    def _conv(self, path: str, x: Steps, conv: str, norm: str | None, stride: int = 1) -> Steps:
        return [self.b.conv2d(f"{self.name}.{path}@t{t}", s, conv, norm, stride) for t, s in enumerate(x)]

    def _conv_norm(self, path: str, x: Steps) -> Steps:
        """A Sequential of convolution ``.0`` and norm ``.1``."""
        return self._conv(path, x, f"{path}.0", f"{path}.1")

    def _spike(self, path: str, x: Sequence[str], embeds: Sequence[FloatArray] | None = None, call: int = 1) -> Steps:
        return self.b.ni_lif(self.name, path, x, embeds, call)

    def _sum(self, path: str, what: str, x: Sequence[str], added: Sequence[str]) -> Steps:
        return [
            self.b.junction(f"{self.name}.{path}.sum_{what}@t{t}", [first, second])
            for t, (first, second) in enumerate(zip(x, added))
        ]

    def _downsample(self, stage: str, path: str, x: Steps) -> Steps:
        if stage != "downsample1_1":
            x = self._spike(f"{path}.encode_spike", x)
        conv = f"{path}.encode_conv"
        return self._conv(conv, x, conv, f"{path}.encode_bn", self.config.stride(stage))

    def _sep_conv(self, path: str, x: Steps) -> Steps:
        for number, conv in enumerate(("pwconv1", "dwconv", "pwconv2"), start=1):
            x = self._conv_norm(f"{path}.{conv}", self._spike(f"{path}.spike{number}", x))
        return x

    def _conv_block(self, path: str, x: Steps) -> Steps:
        x = self._sum(path, "Conv", x, self._sep_conv(f"{path}.Conv", x))
        y = x
        for number in (1, 2):
            y = self._spike(f"{path}.spike{number}", y)
            y = self._conv(f"{path}.conv{number}", y, f"{path}.conv{number}", f"{path}.bn{number}")
        return self._sum(path, "conv2", x, y)

    def _transformer_block(self, path: str, x: Steps) -> Steps:
        x = self._sum(path, "conv", x, self._sep_conv(f"{path}.conv", x))
        x = self._sum(path, "attn", x, self._attention(f"{path}.attn", x))
        return self._sum(path, "mlp", x, self._mlp(f"{path}.mlp", x))

    def _mlp(self, path: str, x: Steps) -> Steps:
        for number in (1, 2):
            x = self._spike(f"{path}.fc{number}_spike", x)
            x = self._conv(f"{path}.fc{number}_conv", x, f"{path}.fc{number}_conv", f"{path}.fc{number}_bn")
        return x

    def _embeds(self, path: str, x: Steps) -> list[FloatArray]:
        """The positional embedding of every step, as [C,P,P]; position n = row * P + column."""
        keys = [
            f"{path}.t_pos_embeds.{min(t, LAST_EMBED)}" if self.name == TEMPLATE else f"{path}.s_pos_embed"
            for t in range(self.steps)
        ]
        shape = self.b.shapes[x[0]]
        embeds = [self.b.weights.array(key, 3) for key in keys]
        for key, embed in zip(keys, embeds):
            if embed.shape != (1, shape[0], shape[1] * shape[2]):
                raise InputError(f"'{key}' has shape {tuple(embed.shape)}, the features there are {shape}")
        return [embed.reshape(shape) for embed in embeds]

    def _attention(self, path: str, x: Steps) -> Steps:
        head = self._spike(f"{path}.head_spike", x, self._embeds(path, x))
        q, k, v = (self._spike(f"{path}.{part}_spike", self._conv_norm(f"{path}.{part}_conv", head)) for part in "qkv")
        out = [
            self._query(f"{path}@t{t}", q[t], self._key_value(f"{path}@t{t}", k[t], v[t])) for t in range(self.steps)
        ]
        return self._conv_norm(f"{path}.proj_conv", self._spike(f"{path}.attn_spike", out))

    def _key_value(self, path: str, keys: str, values: str) -> str:
        return self.b.cut(f"{self.name}.{path}.key_value", "key_value", [keys, values], {"heads": self.config.heads})

    def _query(self, path: str, queries: str, matrix: str, call: str = "query") -> str:
        heads = self.config.heads
        head_dim = self.b.shapes[queries][0] // heads
        params = {"heads": heads, "head_dim": head_dim, "gain": self.config.attention_gain}
        return self.b.cut(f"{self.name}.{path}.{call}", "query", [queries, matrix], params)

    def _pooled(self, path: str, x: Steps) -> Steps:
        if self.b.shapes[x[0]][1] == self.config.grid:
            return x
        return [self.b.pool(f"{self.name}.{path}.pool@t{t}", s, self.config.grid) for t, s in enumerate(x)]

    def _write_memory(self, stage: str, x: Steps) -> None:
        path = f"encoder.{stage}.retriever"
        z = self._pooled(path, x)
        head = self._spike(f"{path}.head_spike", z, self._embeds(path, z))
        k, v = (self._spike(f"{path}.{part}_spike", self._conv_norm(f"{path}.{part}_conv", head)) for part in "kv")
        for t in range(self.steps):
            matrix = self._key_value(f"{path}@t{t}", k[t], v[t])
            slot = {"memory": int(stage.split(".")[1]), "step": t}
            self.b.cut(f"{self.name}.{path}@t{t}.memory_write", "memory_write", [matrix], slot)

    def _retrieval(self, stage: str, x: Steps) -> Steps:
        path = f"encoder.{stage}"
        x = self._sum(path, "retriever", x, self._retriever(stage, f"{path}.retriever", x))
        return self._sum(path, "mlp", x, self._mlp(f"{path}.mlp", x))

    def _retriever(self, stage: str, path: str, x: Steps) -> Steps:
        steps = range(self.config.templates)
        slots = [{"memory": int(stage.split(".")[1]), "step": t} for t in steps]
        memory = [
            self.b.cut(f"{self.name}.{path}@t{t}.memory_read", "memory_read", [], slot) for t, slot in enumerate(slots)
        ]
        z = self._pooled(path, x)
        head = self._spike(f"{path}.head_spike", z, self._embeds(path, z))
        short_cut = self._conv_norm(f"{path}.q_conv", head)
        # The copies of one value differ behind the neuron, because its membrane accumulates over them.
        q = self._spike(f"{path}.q_spike", [short_cut[0] for _ in steps])
        first = [self._query(f"{path}@t{t}", q[t], memory[t]) for t in steps]
        q = self._refine(path, first, short_cut[0])
        second = [self._query(f"{path}@t{t}", q[t], memory[t], "query#2") for t in steps]
        y = self._spike(f"{path}.attn_spike", second)
        if len(steps) > 1:
            y = self._spike(f"{path}.gate_spike", [self._gate(f"{path}.gate", y)])
        out = self._conv_norm(f"{path}.proj_conv", y)
        return [self._upsampled(path, out[0], self.b.shapes[x[0]][1])]

    def _refine(self, path: str, first: Steps, short_cut: str) -> Steps:
        a = self._spike(f"{path}.q_spike", first, call=2)
        a = self._spike(f"{path}.seg_dw_spike", self._per_step(f"{path}.seg_responder_dw", a))
        a = self._per_step(f"{path}.seg_responder_pw", a)
        a = self._sum(path, "shortcut", [short_cut for _ in a], a)
        a = self._spike(f"{path}.seg_pw_spike", a)
        return self._spike(f"{path}.fuser_spike", self._conv_norm(f"{path}.fuser", a))

    def _per_step(self, path: str, x: Steps) -> Steps:
        """Step t runs through its own weights ``<path>.t``."""
        return [
            self.b.conv2d(f"{self.name}.{path}.{t}@t{t}", source, f"{path}.{t}.0", f"{path}.{t}.1")
            for t, source in enumerate(x)
        ]

    def _gate(self, path: str, y: Steps) -> str:
        at = f"{self.name}.{path}"
        turned = [self.b.cut(f"{at}@t{t}.transpose", "transpose", [s], {"perm": TRANSPOSE}) for t, s in enumerate(y)]
        hidden = [self.b.conv1d(f"{at}.mlp.0@t{t}", s, f"{path}.mlp.0") for t, s in enumerate(turned)]
        spikes = self._spike(f"{path}.mlp.1", hidden)
        logits = [self.b.conv1d(f"{at}.mlp.2@t{t}", s, f"{path}.mlp.2") for t, s in enumerate(spikes)]
        return self.b.cut(f"{at}@t0.gate", "gate", [*logits, *y], {"steps": len(y)})

    def _upsampled(self, path: str, source: str, side: int) -> str:
        factor = side // self.b.shapes[source][1]
        if factor == 1:
            return source
        params = {"factor": factor, "mode": "bilinear", "align_corners": False}
        return self.b.cut(f"{self.name}.{path}@t0.upsample", "upsample", [source], params)

    def _head(self, x: Steps) -> None:
        shared = self._spike("decoder.spike", x)
        logits = []
        for part in MAPS:
            y = shared
            for layer in range(1, 5):
                y = self._conv_norm(f"decoder.conv{layer}_{part}", y)
                y = self._spike(f"decoder.{part}{layer}_spike", y)
            logits += self._conv(f"decoder.conv5_{part}", y, f"decoder.conv5_{part}", None)
        self.b.cut(f"{self.name}.decoder@t0.decode", "decode", logits, {"clamp": CLAMP})
