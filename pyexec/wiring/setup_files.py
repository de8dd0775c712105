"""The files of this machine that setups use: the package installer and the certificate authorities."""

import os
import ssl
from pathlib import Path

from pyexec.errors import SettingsError
from pyexec.sandbox.environments.setup import installed_uv


def find_installer(configured: Path | None) -> Path:
    """Return the path of the package installer, uv: PYEXEC_UV, else the one that was installed with the server.

    Raises `SettingsError` if there is none."""
    try:
        uv = configured or installed_uv()
    except FileNotFoundError as error:
        raise SettingsError(
            "the package installer uv is missing; reinstall the server or set PYEXEC_UV"
        ) from error
    if not (uv.is_file() and os.access(uv, os.X_OK)):
        raise SettingsError(
            f"PYEXEC_UV: {str(uv)!r} is not an executable file; allowed: a statically linked uv"
        )
    return uv


def count_certificates(bundle: Path) -> int:
    """Return how many certificate authorities PYEXEC_CA_BUNDLE contains. Raises `SettingsError` if it is no PEM
    file that can be read."""
    try:
        return len(ssl.create_default_context(cafile=bundle).get_ca_certs())
    except OSError as error:  # ssl.SSLError is an OSError
        reason = error.strerror or str(error)
        raise SettingsError(
            f"PYEXEC_CA_BUNDLE: cannot read certificates from {str(bundle)!r}: {reason}; allowed: a PEM file"
        ) from error
