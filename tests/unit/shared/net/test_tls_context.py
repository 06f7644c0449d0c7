import ssl

import pytest

from shared.net.connections import InvalidCertificateError, tls_context


def test_certificates_are_verified_by_default() -> None:
    assert tls_context().verify_mode is ssl.CERT_REQUIRED
    assert tls_context().check_hostname
    assert tls_context(verify_tls=False).verify_mode is ssl.CERT_NONE


@pytest.mark.parametrize("text", ["x", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----", "ä"])
def test_an_invalid_certificate_is_refused(text: str) -> None:
    with pytest.raises(InvalidCertificateError, match="PEM"):
        tls_context(ca_certificate=text)
