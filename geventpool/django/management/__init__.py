"""`manage.py geventpool`."""
