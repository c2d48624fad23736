"""How clients are connected to a server: many streams over one connection, and what carries it.

Who wants the streams is not known here: they are transports like any other.
"""
