"""The inspector: a page on the client's machine that shows what passes through its tunnels.

It listens on loopback only, and shows nothing to who has not the token of its run.
Nothing is imported here: who only looks for running ones needs no web server.
"""
