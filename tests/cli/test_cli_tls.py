"""Test servers with TLS."""

import ssl
from pathlib import Path

import pytest

from tests.support.canned import Request, canned
from tests.support.consul import make_certificates


def answer(request: Request) -> None:
    request.say("application/json", b'{"executions": [], "next_cursor": null}')


@pytest.mark.parametrize("by_flag", [True, False])
def test_a_server_needs_a_trusted_certificate(lone_program, tmp_path: Path, by_flag: bool):
    made = tmp_path / "certificates"
    make_certificates(made)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(made / "dc1-server-consul-0.pem", made / "dc1-server-consul-0-key.pem")
    with canned(answer, tls) as url:
        flags, environment = (["--server", url], {}) if by_flag else ([], {"PYEXEC_SERVER": url})
        trusted = lone_program.run(
            *flags, "list", "--json", SSL_CERT_FILE=str(made / "consul-agent-ca.pem"), **environment
        )
        assert (trusted.returncode, trusted.stdout) == (0, b"")
        unknown = lone_program.run(*flags, "list", SSL_CERT_FILE="/dev/null", **environment)
        assert unknown.returncode == 125
        assert b"certificate" in unknown.stderr
