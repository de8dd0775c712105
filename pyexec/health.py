"""Health check of the server's container, run as `python -m pyexec.health`: request /health from the server."""

import http.client
import os
import sys

ANSWER_SECONDS = 4.0
_LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def main() -> int:
    """Return 0 if /health answers 200 at the address in the settings. Else print the reason and return 1."""
    host = os.environ.get("PYEXEC_HOST", "127.0.0.1")
    port = int(os.environ.get("PYEXEC_PORT", "8080"))
    connection = http.client.HTTPConnection(_LOOPBACK_OF.get(host, host), port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", "/health")
        status = connection.getresponse().status
    except OSError as error:
        print(f"no response from {host}:{port}: {error}")
        return 1
    finally:
        connection.close()
    print(f"/health returned {status}")
    return 0 if status == http.HTTPStatus.OK else 1


if __name__ == "__main__":
    sys.exit(main())
