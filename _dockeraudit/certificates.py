"""TLS's files: certificates, keys, authorities, with errors that name the option and the file."""

from __future__ import annotations

import ssl

from _dockeraudit.errors import ConfigurationError


def load_authority(context: ssl.SSLContext, option: str, path: str) -> None:
    """Trust the authorities in a file; raises ConfigurationError."""
    require_pem(option, path, "CERTIFICATE")
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise tls_error(option, path, error.reason) from None


def load_certificate(
    context: ssl.SSLContext,
    certificate: str,
    key: str | None,
    options: tuple[str, str] = ("--tls-cert", "--tls-key"),
) -> None:
    """Load certificate and key; raises ConfigurationError that names the file which is wrong.

    `options`: that give the two files.
    """
    option, key_option = options
    require_pem(option, certificate, "CERTIFICATE")
    if not key and "PRIVATE KEY-----" not in pem_text(option, certificate):
        raise ConfigurationError(
            f"{option}: {certificate} holds no private key; give its key with {key_option} FILE"
        )
    if key:
        require_pem(key_option, key, "PRIVATE KEY")
    key_option, key_file = (key_option, key) if key else (option, certificate)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(certificate)
    except ssl.SSLError as error:
        raise tls_error(option, certificate, error.reason) from None
    try:
        no_question = lambda: ""  # an encrypted key must not make OpenSSL ask a terminal
        context.load_cert_chain(certificate, key, password=no_question)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            why = f"it is not the key of the certificate {certificate}"
        elif "ENCRYPTED" in pem_text(key_option, key_file):
            why = "the key is encrypted; store it without a passphrase, readable by us alone"
        else:
            why = error.reason or "OpenSSL cannot read the key"
        raise tls_error(key_option, key_file, why) from None


def require_pem(option: str, path: str, label: str) -> None:
    """Raise ConfigurationError unless the file can be read and holds such a PEM block."""
    if f"{label}-----" not in pem_text(option, path):
        raise tls_error(option, path, f"it holds no {label.lower()} in PEM form")


def pem_text(option: str, path: str) -> str:
    """A file's text; raises ConfigurationError that names the option and the file."""
    try:
        with open(path, encoding="latin-1") as file:
            return file.read()
    except OSError as error:
        raise tls_error(option, path, error.strerror) from None


def tls_error(option: str, path: str, why: str | None) -> ConfigurationError:
    """The error about one of TLS's files."""
    return ConfigurationError(f"{option}: cannot load {path}: {why}")
