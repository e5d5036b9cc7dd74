"""Private database servers and system packages, for tests, examples and benchmarks."""
