"""Lava Processes of a network, in a folder of their own: Lava runs every file beside a Process."""
