"""Django loads `base` of it."""
