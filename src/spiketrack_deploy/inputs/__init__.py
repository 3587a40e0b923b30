"""What a user names: models, clips, targets, bundled data."""
