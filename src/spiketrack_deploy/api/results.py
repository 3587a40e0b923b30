"""What the verbs return: plain JSON data with these keys, the object that the command prints with ``--json``.

This module decides the names of the results' keys. It must not compute. An *interval* is ``{"nominal", "low",
"high"}``; keys that end in ``_nj`` hold nanojoules, in ``_s`` seconds. docs/python.md is printed from here.
"""

from __future__ import annotations

from typing import Any, TypedDict


class ExportResult(TypedDict):
    """Where the bundle is, its hashes, the energy of a frame, the boxes, the verdict in sentences; ``lava``: Processes
    of the phase in ``lava/`` by kind, or the ``reason`` why there is none."""

    bundle: str
    model: str
    target: str
    profile: str
    engine: str
    frames: int
    content_hash: str
    program_hash: str
    energy: dict[str, Any]
    boxes: dict[str, Any]
    engines: dict[str, Any]
    unpriced: list[dict[str, Any]]
    verdict: list[str]
    remarks: list[str]
    lava: dict[str, Any]
    files: list[str]
    seconds: dict[str, float]


class DenseExportResult(TypedDict):
    """As :class:`ExportResult`, of a dense tracker: ``dense`` has its size and multiply-accumulates, ``parity`` how
    ONNX Runtime and int8 layers compare; ``program_hash`` is that of the network."""

    bundle: str
    model: str
    target: str
    profile: str
    frames: int
    content_hash: str
    program_hash: str
    energy: dict[str, Any]
    unpriced: list[dict[str, Any]]
    parity: dict[str, Any]
    dense: dict[str, Any]
    verdict: list[str]
    files: list[str]
    seconds: dict[str, float]


class TrackResult(TypedDict):
    """The folder with ``boxes.csv`` and ``tracked.mp4``, and how it went. ``last_box``: x, y, w, h in pixels."""

    output: str
    engine: str
    frames: int
    last_box: list[float]
    mean_confidence: float
    template_updates: int
    remark: str | None


class SimulateResult(TypedDict):
    """``runs`` of each phase, and mean counts of one run, in sum and layer by layer; ``boxes``: rows of frame, x, y, w,
    h, confidence."""

    bundle: str
    engine: str
    frames: int
    runs: dict[str, int]
    seconds_per_frame: float
    counts: dict[str, dict[str, float]]
    layers: list[dict[str, Any]]
    boxes: list[list[float]]


class EnergyResult(TypedDict):
    """The same counts under each profile: ``per_result``, ``placed`` where it has chips, every one of its ``phases``,
    ``static``, ``unpriced``, ``assumptions``; and beside published trackers as dense networks. ``result``: what is paid
    for (a frame); ``main``: the phase that runs most often for it; ``measured``: a measurement with its residuals, or
    None."""

    bundle: str
    result: str
    main: str
    profiles: list[dict[str, Any]]
    comparison: dict[str, Any]
    measured: dict[str, Any] | None


class AuditResult(TypedDict):
    """One case a number: ``dense_macs`` of a frame's main phase, spikes where they were counted, ``conventions`` (each
    formula's energy, over the paper's number, and the mean spike value that the number implies), ``chip``, ``dense``
    twins, and the ``duels`` with them: who wins, and at which spike rate both cost the same."""

    subject: str | None
    target: str
    cases: list[dict[str, Any]]


class VerifyResult(TypedDict):
    """How much was checked: files, arrays, range proofs, runs, operations, integers. What is wrong is raised."""

    bundle: str
    ok: bool
    content_hash: str
    program_hash: str
    files: int
    arrays: int
    ranges_proved: int
    runs: int
    operations: int
    integers: int
    without_torch: bool


class DenseVerifyResult(TypedDict):
    """How much of a dense tracker's bundle was checked: files, recorded frames, values of their maps, and how far the
    furthest was off: ``score``, its ``logits`` and these over the largest, ``boxes_map``, ``box_pixels``."""

    bundle: str
    ok: bool
    content_hash: str
    program_hash: str
    files: int
    frames: int
    values: int
    worst: dict[str, float]
    without_torch: bool


class _Inspected(TypedDict):
    kind: str
    name: str
    remark: str | None
    config: dict[str, Any]


class InspectResult(_Inspected, total=False):
    """Structure of a ``model`` (``parameters``, ``tensors``) or of a ``bundle`` (``program``, ``ranges``); ``nir``:
    nodes by kind and every cut. Of a ``dense model`` or ``dense bundle``: ``trained`` parameters and the
    multiply-accumulates of a frame (``macs``, ``macs_by_part``)."""

    nir: dict[str, Any]
    parameters: int
    trained: int
    tensors: int
    macs: int
    macs_by_part: dict[str, int]
    content_hash: str
    changed_files: list[str]
    program: dict[str, Any]
    ranges: dict[str, Any]


class DenseFitResult(TypedDict):
    """What a chip could hold of a dense tracker, which never ``fits`` as a whole: by kind and by layer ``verdict``
    (native, microcode, host), ``why``, and what it would take (``remedy``); multiply-accumulates, weights, and chips
    that those alone would fill."""

    subject: str
    target: str
    fits: bool
    macs: int
    macs_on_chip: int
    weights: int
    chips_for_weights: int | None
    bytes_rewritten_per_frame: int
    kinds: list[dict[str, Any]]
    layers: list[dict[str, Any]]


class TargetsResult(TypedDict):
    """Every bundled target with its kind, family and chips, and the ``aliases`` that stand for one."""

    aliases: dict[str, str]
    targets: list[dict[str, Any]]


class TargetsComparison(TypedDict):
    """One row a target: ``fits``, ``cores``, ``chips``, ``latency_s`` (``on_chip_s`` without the image's way),
    ``dynamic_nj``, ``static_nj``, ``input_nj``, ``total_nj`` of a frame, each None where it is not known, and a
    ``note`` that says why."""

    subject: str
    phase: str
    rows: list[dict[str, Any]]


class MapResult(TypedDict):
    """The whole program on a target: ``answer`` (fits, needs a host, does not fit), ``chips`` with the band over usable
    cores and split rules, ``cost`` of a mean result (total, dynamic, static, input, board in nanojoules; latency in
    seconds), every arrangement of the phases with its start, steady and update results, ``camera`` in words,
    ``interleaved`` targets, computed ``changes``, ``forms`` (neurons of several levels as they are and as hard-coded
    LIF: neurons, synapses, cores, cost, what still needs a program); and one phase in ``detail``: cores, ``breaches``
    with ``fixes``, loads, ``closed_loop`` level by level, ``run`` with counts and bill."""

    subject: str
    schema: str
    target: str
    profile: dict[str, str]
    main: str
    answer: str
    fits: bool
    holds: bool
    sentence: str
    camera: list[str]
    sharing: str
    first_layer: str
    streams: str
    cost: dict[str, Any]
    dominant: dict[str, Any]
    chips: int
    chips_band: list[int]
    cores_by_rule: dict[str, dict[str, int]]
    arrangements: list[dict[str, Any]]
    interleaved: dict[str, Any]
    changes: list[dict[str, Any]]
    forms: list[dict[str, Any]]
    detail: dict[str, Any]


class BudgetResult(TypedDict):
    """Counts of the main phase, as ``map`` splits it, against a chip or board: its ``chips``, ``cores``, ``slots`` and
    ``words`` (None: no limit is known), one row a configuration, the one asked for first."""

    target: str
    chips: int
    cores: int
    slots: int
    words: int | None
    rows: list[dict[str, Any]]


class LayoutsResult(TypedDict):
    """What a search met (``met``, briefly) within its ``bounds`` (nominal, nanojoules and seconds) and the verdicts of
    the ``front``'s ``rows``, spread evenly over it, the configuration asked about first. ``assumed_rates``: share of
    neurons that spike, by what they read."""

    target: str
    bounds: dict[str, float | None]
    trials: int
    seed: int
    assumed_rates: dict[str, float]
    rows: list[dict[str, Any]]
    front: int
    met: list[dict[str, Any]]
    output: str | None


class EvaluateResult(TypedDict):
    """``results.json`` (means with 95 % intervals, by attribute, by sequence; shares 0..1), ``speed`` apart, and the
    ``exit_code`` that the command would end with: not 0 where sequences failed."""

    schema: str
    dataset: dict[str, Any]
    protocol: dict[str, Any]
    trackers: dict[str, dict[str, Any]]
    speed: dict[str, Any]
    output: str
    pictures: list[str]
    exit_code: int


class TrainResult(TypedDict):
    """File of the trained network, the run's folder, the whole recipe, and the last row of the history."""

    model: str
    run: str
    recipe: dict[str, Any]
    last: dict[str, Any] | None


class AdaptResult(TypedDict):
    """File of the adapted network, the run's folder, the recipe; how, with how many trained numbers of all parameters,
    in which blocks and layers; ``scenes``: frames of each video, how many have a box that was kept; steps and seconds
    on threads; ``scores`` on the last parts: ``deployed`` before, ``routed``, ``merged``, ``quantised`` (written)."""

    model: str
    run: str
    recipe: dict[str, Any]
    method: str
    trained: int
    parameters: int
    blocks: list[str]
    layers: int
    scenes: list[dict[str, Any]]
    steps: int
    seconds: float
    threads: int
    scores: dict[str, dict[str, float]]


class LoopResult(TypedDict):
    """Rules with their scores by clip; the published one's mean and the chosen one's, 0..1; what a choice on one half
    of the clips gains on the other, and whether it is therefore kept; means by setting; the folder with the model."""

    output: str
    rules: list[dict[str, Any]]
    published: float
    chosen: dict[str, Any]
    across: dict[str, float]
    kept: bool
    marginal: dict[str, dict[str, float]]


class DoctorResult(TypedDict):
    """Version, platform, and one entry a check with what to do where something is missing."""

    version: str
    platform: str
    checks: list[dict[str, Any]]
    ok: bool
