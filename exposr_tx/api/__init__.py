"""The REST API and the admin port, on Klein.

Ingress parses and measures a request for the API as any other and sends it
through :class:`~exposr_tx.api.upstream.SiteUpstream`, so nothing here listens,
except on the admin port.
"""

from __future__ import annotations

from exposr_tx.api.app import Api, ApiSettings
from exposr_tx.api.health import Health, admin_site
from exposr_tx.api.limits import FailedCredentials
from exposr_tx.api.upstream import SiteUpstream

__all__ = [
    "Api",
    "ApiSettings",
    "FailedCredentials",
    "Health",
    "SiteUpstream",
    "admin_site",
]
