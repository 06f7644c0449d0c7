"""Whom to believe to be the registry: TLS as a registry's options say."""

import ssl
from functools import lru_cache


class InvalidCertificateError(ValueError):
    """A `ca_certificate` that is no PEM certificate; the text is a sentence."""


@lru_cache(maxsize=256)
def tls_context(*, verify_tls: bool = True, ca_certificate: str | None = None) -> ssl.SSLContext:
    """A context that trusts the system's authorities (or those that `SSL_CERT_FILE` names) and `ca_certificate`, a PEM.

    Made once and shared: the system's authorities are read from the disk, which takes as long as some pushes do.

    Raises:
        InvalidCertificateError: `ca_certificate` holds no certificate.
    """
    context = ssl.create_default_context()
    if ca_certificate:
        try:
            context.load_verify_locations(cadata=ca_certificate)
        except (ssl.SSLError, ValueError, TypeError):
            raise InvalidCertificateError(
                "ca_certificate is no PEM certificate: it begins with -----BEGIN CERTIFICATE----- and is not cut short."
            ) from None
    if not verify_tls:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
