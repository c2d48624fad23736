"""What ``twistd exposr`` may be told.

:class:`Options` knows every option of the existing exposrd, whether its feature
is there or not, so that a command line that would be misunderstood is refused
by name, with a remedy. Sources: protocols/exposr.md H.1 and the contract.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any, ClassVar
from urllib.parse import urlsplit

from twisted.python import usage

from exposr_tx import __version__, policy_options
from exposr_tx.option_values import (
    boolean,
    choice,
    comma_list,
    count,
    endpoint,
    network,
    period,
    port,
    port_range,
    positive,
    seconds,
    url,
)
from exposr_tx.options import EnvironOptions

__all__ = ["Options"]

_HOST = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*|\[[0-9a-f:.]+\]")
LOG_LEVELS = ("all", "trace", "debug", "info", "warn", "error", "fatal", "off")

#: Options whose feature this version lacks: they accept their default and refuse the rest.
_NOT_YET = {
    "ingress-sni-port": "SNI ingress",
    "ingress-sni-host": "SNI ingress",
    "ingress-sni-cert": "SNI ingress",
    "ingress-sni-key": "SNI ingress",
    "transport-ssh-port": "SSH transport",
    "transport-ssh-host": "SSH transport",
    "transport-ssh-key": "SSH transport",
    "transport-ssh-allow-insecure-target": "SSH transport",
    "admin-api-enable": "admin API",
    "admin-api-port": "admin API",
    "admin-api-key": "admin API",
    "admin-api-allow-access-without-key": "admin API",
    "cluster-key": "cluster",
    "cluster-redis-url": "cluster",
    "redis-url": "Redis storage",
}

#: The existing server's UDP clustering is not taken over.
_UDP = frozenset({"cluster-udp-discovery", "cluster-udp-port"})

#: Hidden options of the existing server that change nothing here.
_WITHOUT_EFFECT = frozenset(
    {
        "cluster-udp-discovery-multicast-group",
        "cluster-udp-discovery-kubernetes-service",
        "cluster-udp-discovery-kubernetes-namespace",
        "cluster-udp-discovery-kubernetes-service-env",
        "cluster-udp-discovery-kubernetes-namespace-env",
        "cluster-udp-discovery-kubernetes-cluster-domain",
        "storage-pgsql-connection-pool-size",
    }
)


def proxy(text: str) -> str:
    """A network, or ``unix`` for whoever connects to a UNIX socket."""
    return text if text == "unix" else str(network(text))


def host_name(text: str) -> str:
    """A host without scheme and port, in lower case."""
    host = text.strip().lower().removesuffix(".")
    if not _HOST.fullmatch(host):
        raise ValueError("must be a host like app.example.com, without scheme and port")
    return host


def admin_interface(text: str) -> str:
    """An IP address to listen on."""
    network(text)
    if "/" in text:
        raise ValueError("must be an IP address like 127.0.0.1, or 0.0.0.0 for all")
    return text


class Options(EnvironOptions):
    """The server's options; protocols and defaults are those of exposrd where it has them."""

    synopsis = "[options]"
    longdesc = (
        "Every option is also an environment variable: EXPOSR_ and its name in capitals, "
        "with _ for -. The command line wins. Lists are separated by commas."
    )

    optFlags: ClassVar[list[list[Any]]] = [
        ["allow-registration", None, "Let anybody create an account through the API."],
        ["admin-enable", None, "Answer /ping and /health on the admin port."],
        ["admin-api-enable", None, "Serve the admin API (not in this version)."],
        ["admin-api-allow-access-without-key", None, "Admin API without a key (not yet)."],
        ["limit-loopback", None, "Count failed credentials from loopback addresses as well."],
        ["transport-ssh-allow-insecure-target", None, "Do not verify TLS targets (not yet)."],
        ["show-hidden", None, "Show rarely used options in --help."],
        *policy_options.FLAGS,
    ]

    optParameters: ClassVar[list[list[Any]]] = [
        ["api-port", "p", 8080, "Port of the API, transport and ingress.", port],
        [
            "api-url",
            None,
            None,
            "URL under which clients reach the API; it then answers on that host only.",
            url("http", "https"),
        ],
        [
            "listen",
            None,
            (),
            "Server endpoint to use instead of the port; may be repeated.",
            comma_list(endpoint),
        ],
        ["ready-file", None, None, "Write the addresses as JSON to this file once listening."],
        ["storage-url", None, "memory://", "memory:// or sqlite:///path."],
        [
            "tunnel-expire",
            None,
            0.0,
            "Remove tunnels that were not connected for so many seconds; 0 is never.",
            seconds,
        ],
        [
            "trusted-proxy",
            None,
            (),
            "Address or network whose X-Forwarded-* and Forwarded fields count, or unix for "
            "UNIX sockets; may be repeated.",
            comma_list(proxy),
        ],
        # Ingress
        [
            "ingress",
            None,
            ("http",),
            "Kinds of public traffic to take: http,tcp.",
            comma_list(choice("http", "tcp", known=("sni",))),
        ],
        [
            "ingress-http-url",
            None,
            None,
            "Base URL of the tunnels' public names; http://localhost:PORT by default.",
            url("http", "https"),
        ],
        [
            "backstream",
            None,
            None,
            "Host of HTTP ingress that is backstream's: any backstream client serves it.",
            host_name,
        ],
        ["ingress-http-port", None, 8080, "Another port for HTTP ingress.", port],
        ["ingress-tcp-ports", None, None, "Ports for TCP ingress, like 20000-20100.", port_range],
        ["ingress-timeout", None, 300.0, "Seconds a target may take to answer; 0: any.", seconds],
        ["ingress-head-timeout", None, 10.0, "Seconds for a whole request head.", period],
        ["ingress-idle-timeout", None, 75.0, "Seconds between two requests.", period],
        ["ingress-write-timeout", None, 300.0, "Seconds a visitor may read nothing.", period],
        ["ingress-park-timeout", None, 0.0, "Only 0 in this version.", seconds],
        [
            "ingress-http-agent-idle-timeout",
            None,
            60.0,
            "Seconds an idle stream to a target is kept for the next request.",
            seconds,
        ],
        ["ingress-sni-port", None, 4430, "Port of SNI ingress (not in this version).", port],
        ["ingress-sni-host", None, None, "Host of SNI ingress (not in this version)."],
        ["ingress-sni-cert", None, None, "Certificate of SNI ingress (not in this version)."],
        ["ingress-sni-key", None, None, "Key of SNI ingress (not in this version)."],
        # Limits
        ["limit-request-line", None, 8192, "Bytes of a request line.", positive],
        ["limit-request-head", None, 32768, "Bytes of a request head.", positive],
        ["limit-request-fields", None, 200, "Header fields of a request or response.", positive],
        ["limit-request-body", None, 0, "Bytes of a request body; 0: any.", count],
        ["limit-response-head", None, 65536, "Bytes of a target's response head.", positive],
        ["limit-streams", None, 4096, "Concurrent streams of a tunnel.", positive],
        ["limit-failures", None, 60, "Failed credentials a minute and address; 0: any.", count],
        *policy_options.parameters(None),
        # Transport
        [
            "transport",
            None,
            ("ws",),
            "How clients connect: ws.",
            comma_list(choice("ws", known=("ssh",))),
        ],
        ["transport-max-connections", None, 2, "Connections of one tunnel.", positive],
        [
            "transport-conflict",
            None,
            "refuse",
            "What becomes of one too many where all are alive: refuse, replace (an old one "
            "goes) or share.",
            choice("share", "replace", "refuse"),
        ],
        ["transport-ssh-port", None, 2200, "Port of the SSH transport (not yet).", port],
        ["transport-ssh-host", None, None, "Host of the SSH transport (not yet)."],
        ["transport-ssh-key", None, None, "Host key of the SSH transport (not yet)."],
        # Stopping
        ["grace-period", None, 30.0, "Seconds running requests get after SIGTERM.", seconds],
        ["drain-delay", None, 0.0, "Seconds from an unhealthy /health to closed doors.", seconds],
        # Admin
        ["admin-port", None, 8081, "Port of /ping and /health.", port],
        ["admin-interface", None, "127.0.0.1", "Address of the admin port.", admin_interface],
        ["admin-api-port", None, 8081, "Port of the admin API (not in this version).", port],
        ["admin-api-key", None, None, "Key of the admin API (not in this version)."],
        # Logs
        ["log-level", None, "info", f"{', '.join(LOG_LEVELS)}.", choice(*LOG_LEVELS)],
        ["access-log", None, True, "Write a line per request: true or false.", boolean],
        ["log-format", None, "json", "json or text.", choice("json", "text")],
        # Several nodes
        [
            "cluster",
            None,
            "auto",
            "auto or single-node.",
            choice("auto", "single-node", known=("udp", "redis")),
        ],
        ["cluster-key", None, None, "Secret shared by the nodes (not in this version)."],
        ["cluster-redis-url", None, None, "Redis of the nodes (not in this version)."],
        ["redis-url", None, None, "Redis (not in this version)."],
        [
            "cluster-udp-discovery",
            None,
            "auto",
            "Not supported.",
            choice("auto", "multicast", "kubernetes"),
        ],
        ["cluster-udp-port", None, 1025, "Not supported.", port],
        ["cluster-udp-discovery-multicast-group", None, "239.0.0.1", "No effect."],
        ["cluster-udp-discovery-kubernetes-service", None, None, "No effect."],
        ["cluster-udp-discovery-kubernetes-namespace", None, None, "No effect."],
        ["cluster-udp-discovery-kubernetes-service-env", None, "SERVICE_NAME", "No effect."],
        ["cluster-udp-discovery-kubernetes-namespace-env", None, "POD_NAMESPACE", "No effect."],
        ["cluster-udp-discovery-kubernetes-cluster-domain", None, "cluster.local", "No effect."],
        ["storage-pgsql-connection-pool-size", None, 10, "No effect.", count],
    ]

    aliases = {
        "http-ingress-domain": "ingress-http-url",
        "ingress-http-domain": "ingress-http-url",
    }
    lists = frozenset({"listen", "trusted-proxy", "ingress", "transport"}) | policy_options.LISTS
    secret = frozenset({"admin-api-key", "cluster-key", "cluster-redis-url", "redis-url"})
    hidden = (
        frozenset(_NOT_YET)
        | _UDP
        | _WITHOUT_EFFECT
        | {"ingress-http-port", "ingress-http-agent-idle-timeout", "ingress-park-timeout"}
    )

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """As the base class; under twistd an error is one line on stderr and status 1."""
        try:
            super().parseOptions(options)
        except usage.UsageError as problem:
            if self.parent is None:
                raise
            raise SystemExit(f"twistd exposr: {problem}") from None

    def parseArgs(self, *arguments: str) -> None:
        if arguments:
            raise usage.UsageError(f"{arguments[0]!r}: the server takes options only")

    def opt_version(self) -> None:
        """Show this program's version and exit."""
        sys.stdout.write(f"exposr_tx {__version__}\n")
        raise SystemExit(0)

    def postOptions(self) -> None:
        self._refuse_what_is_not_there()
        for name in sorted(_WITHOUT_EFFECT & self.given.keys()):
            self.warnings.append(f"{self.given[name]} has no effect in this server")
        policy_options.check(self)
        self._check_ingress()
        self._settle_ports()
        for name in ("ingress", "transport"):
            if not self[name]:
                raise self.error(name, "must name one kind at least")
        for name in ("api-url", "ingress-http-url"):
            parts = urlsplit(self[name] or "")
            if parts.query or parts.fragment or parts.path.strip("/"):
                raise self.error(name, "must have no path, like http://host.example:8080")

    def _refuse_what_is_not_there(self) -> None:
        for name, feature in _NOT_YET.items():
            if self[name] != self.defaults[name]:
                if name == "cluster-key" and self[name] == "secret-signing-key":
                    raise self.error(
                        name, "that is exposrd's built-in key, known to everybody; choose another"
                    )
                raise self.error(name, f"this version has no {feature}; leave the option out")
        for name in sorted(_UDP):
            if self[name] != self.defaults[name]:
                raise self.error(name, "there is no UDP clustering; leave the option out")
        if self["cluster"] == "udp":
            raise self.error("cluster", "there is no UDP clustering; use single-node")
        if self["cluster"] == "redis":
            raise self.error("cluster", "this version runs on one machine; use single-node")
        if "sni" in self["ingress"]:
            raise self.error("ingress", "this version has no SNI ingress; use http,tcp")
        if "ssh" in self["transport"]:
            raise self.error("transport", "this version has no SSH transport; use ws")
        if self["ingress-park-timeout"]:
            raise self.error(
                "ingress-park-timeout", "this version does not park requests; only 0 is possible"
            )

    def _check_ingress(self) -> None:
        wanted, ports = "tcp" in self["ingress"], self["ingress-tcp-ports"]
        if wanted and ports is None:
            raise self.error("ingress", "tcp needs ports: --ingress-tcp-ports 20000-20100")
        if ports is not None and not wanted:
            raise self.error("ingress-tcp-ports", "needs --ingress http,tcp")
        if self["backstream"] and "http" not in self["ingress"]:
            raise self.error("backstream", "needs --ingress http")
        if self["backstream"] and self["backstream"] == urlsplit(self["api-url"] or "").hostname:
            raise self.error("backstream", "is the host of --api-url; give it one of its own")

    def _settle_ports(self) -> None:
        """One port moves all; two listeners only when both are given and differ."""
        ports = [name for name in ("api-port", "ingress-http-port") if name in self.given]
        if self["listen"]:
            for name in ports:
                self.warnings.append(f"{self.given[name]} has no effect beside --listen")
        elif len(ports) == 1:
            self["api-port"] = self["ingress-http-port"] = self[ports[0]]
