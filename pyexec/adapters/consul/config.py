"""The address of Consul and the certificates for it."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen
from yarl import URL

from pyexec.errors import SettingsError


@frozen(kw_only=True)
class ConsulConfig:
    """The address of Consul (`host:port`, `http://…` or `https://…`), and the prefix of all keys of the deployment.

    `ca_file` holds certificate authorities to trust in addition to those of the machine. `cert_file` holds the
    client certificate and its key, if Consul requires one."""

    address: str
    prefix: str = "pyexec"
    token: str | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None

    def url(self) -> URL:
        """Parse the address. Raises `SettingsError` if it is not valid."""
        try:
            named = "://" in self.address
            url = URL(self.address if named else f"http://{self.address}")
            port = url.port if named else url.explicit_port
            usable = url.scheme in ("http", "https") and url.host and port and url.path == "/"
        except ValueError:
            usable = None
        if not usable:
            allowed = "host:port, http://host:port and https://host:port"
            raise SettingsError(f"PYEXEC_CONSUL_ADDR is {self.address!r}; allowed are {allowed}")
        return url

    def key_prefix(self) -> str:
        """Return the prefix of all keys, with one slash at its end. Raises `SettingsError` if there is no prefix."""
        prefix = self.prefix.strip("/")
        if not prefix:
            raise SettingsError(
                f"PYEXEC_CONSUL_PREFIX is {self.prefix!r}; allowed: text that is not only slashes"
            )
        return f"{prefix}/"

    def tls(self) -> ssl.SSLContext | None:
        """Return the TLS context; None for plain HTTP. Raises `SettingsError` if a certificate cannot be read."""
        if self.url().scheme != "https":
            return None
        context = ssl.create_default_context()
        if self.ca_file is not None:
            with _translate_errors(
                "PYEXEC_CONSUL_CA_FILE", self.ca_file, "a PEM file with certificate authorities"
            ):
                context.load_verify_locations(self.ca_file)
        if self.cert_file is not None:
            with _translate_errors(
                "PYEXEC_CONSUL_CERT_FILE", self.cert_file, "a PEM file with a certificate and its key"
            ):
                context.load_cert_chain(self.cert_file)
        return context


@contextmanager
def _translate_errors(setting: str, path: Path, allowed: str) -> Iterator[None]:
    """Raise `SettingsError` if the file of a setting cannot be used. `allowed` is what the file must contain."""
    try:
        yield
    except OSError as error:  # includes ssl.SSLError
        reason = error.strerror or error
        raise SettingsError(
            f"{setting} is {str(path)!r}, which cannot be used: {reason}; allowed: {allowed}"
        ) from error
