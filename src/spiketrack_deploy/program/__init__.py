"""The integer program: types, operation table, reference semantics, counts, bounds, files. Needs NumPy alone."""
