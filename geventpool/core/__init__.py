"""The resource pool: acquire, release, open, retire. Knows nothing of databases."""
