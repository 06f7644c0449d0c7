"""TLS contexts with the options of a registry."""

import ssl
from functools import lru_cache

from shared.errors import InvalidValueError


class InvalidCertificateError(InvalidValueError):
    """Raised for a `ca_certificate` that is not a PEM certificate. The text is a sentence."""


@lru_cache(maxsize=256)
def tls_context(*, verify_tls: bool = True, ca_certificate: str | None = None) -> ssl.SSLContext:
    """Return a context that trusts the system's authorities (or those of `SSL_CERT_FILE`) and `ca_certificate`, a PEM.

    Contexts are shared, because reading the system's authorities from disk takes as long as some pushes.

    Raises:
        InvalidCertificateError: `ca_certificate` holds no certificate.
    """
    context = ssl.create_default_context()
    if ca_certificate:
        try:
            context.load_verify_locations(cadata=ca_certificate)
        except (ssl.SSLError, ValueError, TypeError):
            raise InvalidCertificateError(
                "ca_certificate is not a complete PEM certificate: it must begin with -----BEGIN CERTIFICATE-----."
            ) from None
    if not verify_tls:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
