"""Everything that knows how SpikeTrack is spelled in NIR: export, recogniser, names of its blocks."""
