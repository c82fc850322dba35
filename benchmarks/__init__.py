"""bws beside what a user would pick instead: `python -m benchmarks`, and docs/performance.md for what it found."""
