"""A file of some framework becomes a real-valued network for the lowering, one folder a framework."""
