"""Crops, boxes, video and the loop. A network behind it is anything that answers `set_templates` and `search`."""
