"""The verbs as functions: everything that the command line does, and nothing that the command line decides.

    from spiketrack_deploy import api
    fit = api.map("spiketrack-nano", target="oheo_gulch")

This package decides defaults and what a verb returns (:mod:`results`: plain JSON data). Every failure is a
:class:`~spiketrack_deploy.errors.SpiketrackError` that says what to do. Heavy libraries are imported when a verb runs,
so that importing this package costs nothing. docs/python.md has what each verb returns.
"""

from spiketrack_deploy.api.asked import require_engine
from spiketrack_deploy.api.audits import audit
from spiketrack_deploy.api.bundles import ExportRequest, doctor, energy, export, simulate, track, verify
from spiketrack_deploy.api.chips import compare_targets, map, target, targets
from spiketrack_deploy.api.inspecting import inspect
from spiketrack_deploy.api.lava import lava, netx, simulate_stock
from spiketrack_deploy.api.layouts import budget, layouts
from spiketrack_deploy.api.networks import (
    NetworkRequest,
    conformance,
    export_network,
    inspect_network,
    inspect_netx,
    is_network,
    is_netx,
    simulate_network,
)
from spiketrack_deploy.api.scores import evaluate, is_evaluation
from spiketrack_deploy.api.training import adapt, choose_loop, train
from spiketrack_deploy.inputs.progress import Tell
from spiketrack_deploy.inputs.sources import DEFAULT_MODEL

__all__ = [
    "DEFAULT_MODEL",
    "ExportRequest",
    "NetworkRequest",
    "Tell",
    "adapt",
    "audit",
    "budget",
    "choose_loop",
    "compare_targets",
    "conformance",
    "doctor",
    "energy",
    "evaluate",
    "export",
    "export_network",
    "inspect",
    "inspect_network",
    "inspect_netx",
    "is_evaluation",
    "is_network",
    "is_netx",
    "lava",
    "layouts",
    "map",
    "netx",
    "require_engine",
    "simulate",
    "simulate_network",
    "simulate_stock",
    "target",
    "targets",
    "track",
    "train",
    "verify",
]
