"""Certificates for tests, made by the program openssl when they are needed."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

from needs import need_program

SIGNS = ("-addext", "keyUsage=critical,keyCertSign")
BOTH = (
    "basicConstraints=CA:FALSE\nauthorityKeyIdentifier=keyid\nkeyUsage=critical,digitalSignature\n"
)
SERVER = BOTH + "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth\n"
CLIENT = BOTH + "extendedKeyUsage=clientAuth\n"


class Authority:
    """A certificate authority in a folder, with what it signs: NAME.pem and NAME-key.pem."""

    def __init__(self, folder: Path, name: str) -> None:
        need_program("openssl")
        self.folder, self.name = folder, name
        self.certificate = str(folder / f"{name}.pem")
        self.key = folder / f"{name}-key.pem"
        self._request(f"/CN={name}", self.key, self.certificate, "-x509", "-days", "2", *SIGNS)

    def with_docker(self) -> Authority:
        """This, with `server` and `client`, and `docker`: a folder as DOCKER_CERT_PATH."""
        self.server = self.sign("server", "/CN=dockeraudit", SERVER)
        self.client = self.sign("client", "/C=XX/O=Example, Inc/CN=ci", CLIENT)
        self.docker = self.folder / "docker"
        self.docker.mkdir()
        for source, name in (
            (self.certificate, "ca.pem"),
            (self.client[0], "cert.pem"),
            (self.client[1], "key.pem"),
        ):
            shutil.copy(source, self.docker / name)
        return self

    def server_context(self, *, mutual: bool = True) -> ssl.SSLContext:
        """TLS of a server, which asks for a client's certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.server)
        if mutual:
            context.load_verify_locations(self.certificate)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _openssl(self, *arguments: object) -> None:
        subprocess.run(
            ["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=30
        )

    def _request(self, subject: str, key: object, out: object, *more: str) -> None:
        """Make a key, and a request for a certificate or one that signs itself."""
        kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        self._openssl("req", *kind, "-subj", subject, "-keyout", key, "-out", out, *more)

    def sign(self, name: str, subject: str, extensions: str) -> tuple[str, str]:
        """Sign a certificate; returns the paths of it and of its key."""
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}-key.pem"
        wanted, file = self.folder / "csr", self.folder / "ext"
        file.write_text(extensions)
        self._request(subject, key, wanted)
        signer = ("-CA", self.certificate, "-CAkey", self.key, "-CAcreateserial", "-days", "2")
        self._openssl("x509", "-req", "-in", wanted, *signer, "-extfile", file, "-out", certificate)
        return str(certificate), str(key)
