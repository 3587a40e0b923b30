"""NIR itself: safe reading, writing, the primitives, cuts, order, shapes, an interpreter that knows nothing else."""
