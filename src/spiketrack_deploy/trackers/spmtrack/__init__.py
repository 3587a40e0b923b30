"""SPMTrack (CVPR 2025, arXiv 2503.18338): configuration, PyTorch model with the published keys, checkpoints, speed."""
