"""PEM files of an authority that exists for one test run."""

from __future__ import annotations

from pathlib import Path

import trustme

HOST = "localhost"


def authority() -> trustme.CA:
    """Return who signs."""
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


def write(signer: trustme.CA, folder: Path) -> Path:
    """Make server.pem, server.key, client.pem, client.key, all for HOST, and ca.pem in `folder`, and return it."""
    for name in ("server", "client"):
        leaf = signer.issue_cert(HOST, key_type=trustme.KeyType.ECDSA)
        leaf.private_key_pem.write_to_path(folder / f"{name}.key")
        leaf.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
    signer.cert_pem.write_to_path(folder / "ca.pem")
    return folder
