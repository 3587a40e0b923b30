"""A network of several templates from a trained network of one.

This module decides where the weights of the added time steps come from. It must not know how they are trained further.
"""

from __future__ import annotations

import re
from dataclasses import replace

import torch

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig
from spiketrack_deploy.trackers.spiketrack.model import SpikeTrack

_RESPONDER = re.compile(r"(\.seg_responder_(?:dw|pw)\.)(\d+)(\.)")
_FIRST_DECAY = -3.0
"""Logit of the share (5 %) of a membrane that reaches the next step; the weights know no carry-over yet."""
_EMBEDDING = re.compile(r"(\.t_pos_embeds\.)(\d+)$")


def widened(model: SpikeTrack, config: TrackerConfig) -> SpikeTrack:
    """The T > 1 network of ``config`` that starts from a T = 1 ``model`` of the same layout.

    Every added step begins as a copy of the first (responders, positional embeddings); the gate starts with equal
    weights
    for all steps, its last layer at zero, so that the new network averages what its steps answer; membranes start with
    little carry-over.
    """
    if model.config.templates != 1 or replace(model.config, templates=config.templates, name=config.name) != config:
        raise InputError(
            f"a network of {config.templates} templates starts from one of the same layout with 1, not from "
            f"{model.config.name} with {model.config.templates}"
        )
    out = SpikeTrack(config)
    known = model.state_dict()
    state = {}
    for key, value in out.state_dict().items():
        source = _EMBEDDING.sub(r"\g<1>0", _RESPONDER.sub(r"\g<1>0\3", key))
        if ".gate.mlp.2." in key:
            state[key] = torch.zeros_like(value)
        elif key.endswith(".decay"):
            state[key] = torch.full_like(value, _FIRST_DECAY)
        else:
            state[key] = known.get(source, value).clone()
    out.load_state_dict(state)
    return out.eval()
