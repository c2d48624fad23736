"""Programs of users' that publish with the library, as source for ``python -c``."""

#: Publishes a page for each endpoint string of its command line. ``/`` is the tunnel's name;
#: ``/slow`` sends half of its body, and the rest when somebody asks for ``/go``; ``/origin``
#: tells what is known of the visitor.
PAGES = """
import sys

from twisted.internet.endpoints import serverFromString
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site


class Page(Resource):
    isLeaf = True

    def __init__(self, name):
        super().__init__()
        self.name = name
        self.slow = []

    def render_GET(self, request):
        if request.path == b"/slow":
            request.setHeader(b"content-length", b"10")
            request.write(b"first")
            self.slow.append(request)
            return NOT_DONE_YET
        if request.path == b"/origin":
            origin = request.transport.origin
            return f"{origin.kind} {origin.peer} {origin.host} {origin.tls}".encode()
        if request.path == b"/go":
            for slow in self.slow:
                slow.write(b"after")
                slow.finish()
        return self.name.encode()


async def main(reactor, *strings):
    for string in strings:
        page = Page(string.split(":")[1])
        endpoint = serverFromString(reactor, string)
        port = await endpoint.listen(Site(page))
        print("public", port.getHost(), flush=True)
    await Deferred()


globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
react(lambda reactor, *strings: Deferred.fromCoroutine(main(reactor, *strings)), sys.argv[1:])
"""
