"""Hardware profiles: what a chip can hold and what an event on it costs, every value with unit, tag and source."""
