"""Scoring trackers on folders of sequences: reading, one-pass runs, metrics, tables and pictures."""
