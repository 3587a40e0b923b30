"""SpikeTrack (CVPR 2026, RGB): configuration, PyTorch model with the official state-dict keys, checkpoints."""
