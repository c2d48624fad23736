"""A reverse-tunnel server and client on Twisted: a public name for a service behind NAT."""

__version__ = "0.1.0"
