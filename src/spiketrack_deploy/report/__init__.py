"""Tables, pictures and the video overlay of a bundle."""
