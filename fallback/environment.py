"""The environment variables that Demur reads, and what each says."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

TOKEN: Final = "DEMUR_TOKEN"  # noqa: S105  # the name of the environment variable, not a token
CA: Final = "DEMUR_CA"
SERVER_NAME: Final = "DEMUR_SERVER_NAME"
CERTIFICATE: Final = "DEMUR_CERTIFICATE"
KEY: Final = "DEMUR_KEY"

VARIABLES: Final = MappingProxyType(
    {
        "DEMUR_CONFIG": "path of demur.toml; without it ./demur.toml, if it is there",
        "DEMUR_DATA": "the data folder; wins over data_folder",
        "DEMUR_REDIS_URL": "address of the server, may hold a password; wins over redis.url",
        "DEMUR_SENTINEL_PASSWORD": "password of the Sentinels in redis.sentinels; without it they ask for none",
        "DEMUR_SERVER": "path of the server that is started where no address is named; else PATH, else the wheel's",
        "DEMUR_WEBHOOK_SECRET": (
            "whsec_<base64 of 24 to 64 bytes>, signs webhooks; several, separated by spaces, while one takes another's "
            "place, the newest first; else made once in the data folder"
        ),
        "DEMUR_AUDIT_SECRET": "decides which answers are audited; else made once in the data folder",
        TOKEN: "what shows who the trainer and the commands are, where callers must show a token",
        CA: (
            "PEM file of who signed the servers' certificates, or `system` for whom this machine trusts; with it the "
            "trainer and the commands speak TLS"
        ),
        SERVER_NAME: "the name in the servers' certificates, where it is not the host of their address",
        CERTIFICATE: "PEM chain that the trainer and the commands show, where callers must show one",
        KEY: "PEM key of DEMUR_CERTIFICATE, without a pass phrase",
        "DEMUR_WEBHOOK_ALLOW_NETWORKS": (
            "networks (CIDR, separated by commas) beside fallback.webhook_allow_networks; `demur up` without "
            "credentials names this machine's own here"
        ),
    }
)
