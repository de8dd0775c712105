"""Images with packages installed."""
