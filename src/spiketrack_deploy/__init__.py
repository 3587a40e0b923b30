"""SpikeTrack (CVPR 2026, RGB) from PyTorch to an exact integer program for Loihi-class chips.

The package decides nothing at import time and imports none of its heavy dependencies: the verbs
are in :mod:`spiketrack_deploy.api`.
"""

__version__ = "0.1.0"
