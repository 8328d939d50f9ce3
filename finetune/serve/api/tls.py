"""The certificate of a server, checked before a model is loaded."""

from __future__ import annotations

import ssl
from pathlib import Path

from finetune.errors import InputError


def check_certificate(certificate: Path | None, key: Path | None) -> None:
    """Refuse a certificate that the server could not use; None is a server without TLS.

    Raises:
        InputError: only one of the files is given, one cannot be read, the key has a passphrase, or they do not match.
    """
    if certificate is None and key is None:
        return
    if certificate is None or key is None:
        raise InputError("TLS needs both files. Set --ssl-certfile and --ssl-keyfile")
    try:
        # An empty passphrase: without one, OpenSSL would ask for it in the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except ssl.SSLError:
        raise InputError(
            f"{certificate} and {key} are not a certificate and its private key. Give both in PEM format, the key without a "
            "passphrase"
        ) from None
    except OSError as error:
        raise InputError(
            f"The certificate {certificate} or the key {key} cannot be read ({error.strerror}). Check --ssl-certfile and "
            "--ssl-keyfile"
        ) from None
