"""Video files in and out, resizing and contact sheets."""
