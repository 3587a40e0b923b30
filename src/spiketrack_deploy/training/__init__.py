"""Makes trackers: data, crops, losses, float and quantisation-aware training, and the search for nets that fit a
chip."""
