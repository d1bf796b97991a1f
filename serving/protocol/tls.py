"""TLS of the front ends: certificates from the settings, told in each server's own terms."""

import ssl
from pathlib import Path
from typing import Any

import grpc

from ridgeline.errors import InvalidInput
from serving.settings import ServeSettings


def ssl_context(settings: ServeSettings, *, protocol: str) -> ssl.SSLContext | None:
    """For our own sockets; `protocol` is its name in ALPN. None where there is to be no TLS.

    Raises InvalidInput where the files are not what they should be.
    """
    if settings.tls_certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([protocol])
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key)
        if settings.tls_client_ca is not None:
            context.load_verify_locations(settings.tls_client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise _unusable(settings, error) from error
    return context


def grpcio_credentials(settings: ServeSettings) -> Any:
    """For grpcio's server; None where there is to be no TLS. Raises InvalidInput as above."""
    if ssl_context(settings, protocol="h2") is None:  # it also checks the files
        return None
    return grpc.ssl_server_credentials(
        [(_read(settings.tls_key), _read(settings.tls_certificate))],
        root_certificates=_read(settings.tls_client_ca) if settings.tls_client_ca else None,
        require_client_auth=settings.tls_client_ca is not None,
    )


def _read(path: Path | None) -> bytes:
    return path.read_bytes() if path else b""


def _unusable(settings: ServeSettings, error: Exception) -> InvalidInput:
    files = (settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
    names = ", ".join(str(file) for file in files if file)
    return InvalidInput(f"expected certificates and their key as PEM in {names}: {error}")
