"""Engines that run a program: reference (int64 NumPy), sim (fast, exact), lava (real Lava Processes)."""
