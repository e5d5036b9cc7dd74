"""What is claimed of speed and size, measured beside the peers in one run."""
