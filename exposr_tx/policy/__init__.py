"""Policies: the operator's rules, in Rego, on which visitors and clients are let in.

``sources`` finds the files; ``words``, ``variables`` and ``scan`` read as much of
them as it takes to refuse, before anything starts, what the embedded engine would
silently take for undefined; ``closures``, ``comparisons``, ``failing`` and ``negation``
mend what it gets wrong; ``engine`` compiles and evaluates, ``compiled`` a whole set of
them; ``verdict`` says what a result means. All that is done by a ``worker`` in a
``process`` of its own. On the server's side are ``workers``, and ``policies``, the
IPolicy that ingress and the transports ask; ``remote`` is another one, which asks
an Open Policy Agent. Stands beside the data path: the head of a request comes
here, and a Decision goes back. Facts: protocols/backstream.md section 6.
"""
