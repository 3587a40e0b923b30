"""Counts to prices to reports: what a run of each phase costs, layer by layer, always as a band."""
