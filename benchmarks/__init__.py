"""How fast the tunnel is, as ratios to nginx as a reverse proxy in the same run.

No test: nothing here passes or fails. ``python -m benchmarks --help``.
"""
