"""What each pool's sizing costs, beside a pool that knows the future."""
