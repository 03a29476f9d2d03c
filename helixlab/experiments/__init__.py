"""Many runs: sweeps, goodput, tuning, and what can be said of them together."""
