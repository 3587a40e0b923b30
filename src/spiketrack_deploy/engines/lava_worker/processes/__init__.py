"""Lava Processes. A leaf: Lava's discovery executes every file of this folder, so nothing here has side effects."""
