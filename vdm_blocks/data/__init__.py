"""Synthetic clips with captions and ground truth, and folders of anyone's clips."""
