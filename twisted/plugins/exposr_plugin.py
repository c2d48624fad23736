"""What ``twistd`` finds: names only, so that listing plugins imports nothing of ours."""

from twisted.application.service import ServiceMaker

exposr = ServiceMaker(
    "exposr",
    "exposr_tx.tap",
    "A reverse-tunnel server: public names for services behind NAT.",
    "exposr",
)
