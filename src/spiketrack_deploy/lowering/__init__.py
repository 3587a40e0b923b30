"""Real-valued network in, integer program out: a list of passes. Knows NumPy and ``program``; no file, no tracker."""
