"""Integer program -> populations -> neurocores -> chips: does it fit, where does everything go, how fast is a step."""
