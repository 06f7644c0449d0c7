"""Make a private certificate authority, and a server certificate for the loopback addresses."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class ServerCertificate:
    """A server's certificate and key as files, and the authority's certificate, which clients have to trust, as PEM."""

    certificate: Path
    key: Path
    authority_pem: str


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def self_signed(key: ec.EllipticCurvePrivateKey, name: str) -> x509.Certificate:
    """Return an authority's certificate, valid from yesterday for a month."""
    return _certificate(name, key.public_key(), issuer=name, signer=key, authority=True)


def write_server_certificate(directory: Path, *, names: Sequence[str] = ()) -> ServerCertificate:
    """Make an authority and its certificate for 127.0.0.1, ::1, localhost and `names`.

    The authority's key is not kept.
    """
    authority_key, server_key = new_key(), new_key()
    authority = self_signed(authority_key, "Longshore development authority")
    server = _certificate(
        "localhost",
        server_key.public_key(),
        issuer="Longshore development authority",
        signer=authority_key,
        authority=False,
        names=names,
    )
    directory.mkdir(parents=True, exist_ok=True)
    made = ServerCertificate(directory / "server.pem", directory / "server.key", pem(authority))
    made.certificate.write_text(pem(server))
    made.key.touch(mode=0o600)
    made.key.write_bytes(
        server_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return made


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _certificate(
    name: str,
    key: ec.EllipticCurvePublicKey,
    *,
    issuer: str,
    signer: ec.EllipticCurvePrivateKey,
    authority: bool,
    names: Sequence[str] = (),
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(_usage(authority=authority), critical=True)
    )
    if not authority:
        alternatives: list[x509.GeneralName] = [x509.DNSName(each) for each in ("localhost", *names)]
        alternatives += [x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", "::1")]
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(signer, hashes.SHA256())


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
