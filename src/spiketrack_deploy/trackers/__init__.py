"""Trackers as PyTorch models, one folder each, and the reading of untrusted checkpoints that they share."""
