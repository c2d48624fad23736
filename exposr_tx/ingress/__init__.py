"""Where visitors come in: by HTTP, and by TCP ports of the tunnels' own.

What carries their bytes on, and to where, is not known here: see IUpstream.
"""
