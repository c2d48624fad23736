"""The commands ``backstream`` and ``twistd backstream``: one visitor-facing port, one tunnel.

For users of the Go program of that name, by its flags, variables and log lines; what
carries the traffic is the rest of this package. Facts: docs/howto/migrate-backstream.md.
"""
