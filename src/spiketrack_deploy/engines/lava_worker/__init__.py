"""The child process of the Lava engine: NumPy and lava-nc only, Python 3.10 to 3.12, started by path."""
