"""The folder that an export writes: files and manifest, known answers, verification, where it came from."""
