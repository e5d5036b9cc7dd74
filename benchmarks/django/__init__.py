"""What is claimed of the Django backends, beside the other ways to keep connections."""
