"""Our client as it is with a server that lists no native dialect: it speaks exposr v2.

``python -m benchmarks.v2_client`` takes the arguments of ``exposr``. The product has no such
setting; here the tunnel's JSON is read as if the list were not there.
"""

from __future__ import annotations

from exposr_tx.client.answers import Tunnel
from exposr_tx.scripts import exposr
from exposr_tx.wire.native import SUBPROTOCOL

if __name__ == "__main__":
    listed = Tunnel({"transport": {"ws": {"protocols": [SUBPROTOCOL]}}})
    if not listed.speaks_native:
        raise SystemExit("the client no longer learns the dialect here; mend benchmarks.v2_client")
    Tunnel.speaks_native = property(lambda tunnel: False)  # type: ignore[assignment,method-assign]
    exposr()
