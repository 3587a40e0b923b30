"""NIR itself: safe reading, writing, the primitives, cuts, order, shapes, and an interpreter that knows nothing else."""
