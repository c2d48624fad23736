"""What a client need not load."""

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.lean import without_tls

#: Loads what the client's script does, and says which of these it has loaded.
LOADED = """
import sys
from exposr_tx.lean import Hidden
hidden = Hidden()
hidden.hide()
import exposr_tx.client.script, twisted.internet.reactor
hidden.restore()
print(*sorted({"OpenSSL", "cryptography", "ssl", "autobahn.wamp.protocol"} & sys.modules.keys()))
import exposr_tx.client.tls, autobahn.twisted.wamp, ssl
print(autobahn.twisted.wamp.ApplicationSession.__name__)
"""


class LeanTests(SynchronousTestCase):
    """Clients without TLS."""

    def test_words(self) -> None:
        """A plain server, and no word of TLS."""
        for line, plain in (
            ("-s http://localhost:8080 tunnel connect blog http://localhost:3000", True),
            ("-s http://localhost:8080 tunnel connect blog 3000", True),
            ("-s HTTP://localhost:8080/ tunnel list", True),
            ("-s https://tun.example tunnel connect blog http://localhost:3000", False),
            ("-s http://localhost:8080 tunnel connect blog HTTPS://localhost:3000", False),
            ("-s http://localhost:8080 tunnel connect blog tls:localhost:3000", False),
            ("-s http://localhost:8080 tunnel connect blog --target-ca ca.pem", False),
            ("tunnel list", False),
        ):
            self.assertEqual(without_tls(line.split()), plain, line)

    def test_what_is_loaded(self) -> None:
        """A client loads neither TLS nor WAMP then, and has both as soon as it asks for them."""
        ran = subprocess.run(
            [sys.executable, "-c", LOADED], capture_output=True, text=True, timeout=60, check=False
        )
        self.assertEqual((ran.stdout, ran.stderr), ("\nApplicationSession\n", ""))
