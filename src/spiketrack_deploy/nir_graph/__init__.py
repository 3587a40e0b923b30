"""The tracker as a NIR graph with cuts: build, write, read safely, infer shapes, interpret knowing only NIR."""
