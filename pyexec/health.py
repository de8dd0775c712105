"""`python -m pyexec.health`: whether the server of this container answers; its health check."""

import http.client
import os
import sys

ANSWER_SECONDS = 4.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def main() -> int:
    """0 when `/health` answers 200 at the address that the settings name; else 1, having said why."""
    host = os.environ.get("PYEXEC_HOST", "127.0.0.1")
    port = int(os.environ.get("PYEXEC_PORT", "8080"))
    connection = http.client.HTTPConnection(_EVERYWHERE.get(host, host), port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", "/health")
        status = connection.getresponse().status
    except OSError as error:
        print(f"no answer at {host}:{port}: {error}")
        return 1
    finally:
        connection.close()
    print(f"/health answers {status}")
    return 0 if status == http.HTTPStatus.OK else 1


if __name__ == "__main__":
    sys.exit(main())
