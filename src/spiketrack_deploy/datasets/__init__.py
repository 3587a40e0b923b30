"""Annotated sequences and pictures on disk, read alike for training and for evaluation."""
