"""The tracker as a NIR graph with cuts: building, writing, safe reading, shapes, and an interpreter that knows only NIR."""
