"""NIR networks of any framework: flattened, discretised under a stated convention, judged in float64, compiled."""
