"""NIR graph and cuts in, integer program out. Knows NumPy, ``nir_graph.graph`` and ``program``; no tracker, no
engine.
"""
