"""Load tests on locust: the same load for each pool in turn, and what the server says of it."""
