"""The PyTorch tracker: model, checkpoints, crops, tracking loop and video input."""
