"""The reading guide of the report: every field in one sentence.

This module decides words only.
"""

# ruff: noqa: E501 - one sentence a line is easier to review than sentences cut in pieces

GUIDE: tuple[tuple[str, str], ...] = (
    ("energy per frame (dynamic)", "Counts of an exact execution times the profile's prices, mean over the runs of each phase; a phase that does not run in every frame adds its share and is also shown whole. A phase that runs at the start alone adds nothing."),
    ("band", "Every price has a low and a high end with a source. Bands are added end by end, never in quadrature, because all layers share the same coefficients."),
    ("static", "Power of a powered chip that does nothing, times one frame period. It is per chip; where the profile is a chip's, the section 'On the chip' says how many chips the network needs and adds their static energy."),
    ("events", "Non-zero spike messages that the layer reads, all time steps."),
    ("synops", "Synaptic operations: events times their real fan-out over non-zero weights; borders, stride, groups and dilation respected."),
    ("unit ops", "Synops times the spike's value 1 to 4: what binary spikes would cost."),
    ("neurons spiking", "NI-LIF neuron steps with a spike above 0; the others are idle, and idle ones cost too."),
    ("relays", "Graded messages by which one population of the residual stream hands its values to the next."),
    ("dense MACs", "Multiply-accumulates of the same layer as an ordinary network, padding taps counted as the literature does."),
    ("published convention", "0.9 pJ x dense MACs x mean spike value per layer, as in arXiv 2602.23963; the exact count beside it uses the same price and the spikes that really happened."),
    ("spiking wins below", "Spikes over positions that could spike, at which the spiking network and its dense twin cost the same under one pair of prices: spikes added or taken away evenly, with their values and fan-outs as counted. Above 1 it always wins, at 0 even a silent network costs more."),
    ("the network's picture", "A box is a block, a line the messages that one block reads of another in a mean run; dashed boxes are images and states that enter from outside the phase. A click lists the layers of a block. Cores: those that hold a part of it, so that neighbours who share a core both count it."),
    ("mismatch", "Share of NI-LIF spikes (0..4) of the integer program that differ from the float64 tracker's. Teacher-forced: every layer reads the float tracker's own spikes, so the error is that layer's alone. Free-running: errors accumulate."),
    ("SQNR", "Signal-to-quantisation-noise ratio of a convolution's output on the calibration frames: 6 dB are one bit."),
    ("exponents", "A weight is an int8 number times 2 to the minus exponent, one exponent per output channel, chosen on the calibration frames."),
    ("headroom", "Bits that the worst case over all possible images leaves under a signed 24-bit register; proved by interval arithmetic, not measured."),
    ("unpriced", "Things that happen and for which the profile has no price. They are not in any total."),
    ("tag", "How a price is known: measured on silicon, derived from silicon data, simulated circuits, a fit, or assumed."),
    ("content hash", "One SHA-256 over all files that must not differ between two runs; MANIFEST.json names the files outside it and why."),
)  # fmt: skip
