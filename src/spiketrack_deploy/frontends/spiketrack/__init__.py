"""Everything that knows how SpikeTrack is spelled in NIR: writing it, recognising it, the names of its blocks."""
