"""Write docs/configuration.md from the settings (`make docs`); with `--print`, print the page instead."""

from __future__ import annotations

import sys
from itertools import groupby

from subprocesses import ROOT

from pyexec.settings_parser import SettingDoc, setting_docs

PAGE = ROOT / "docs" / "configuration.md"
_HEAD = """\
# Configuration

Set environment variables to configure the server. There are no other sources. For example:

```console
PYEXEC_PORT=9000 PYEXEC_MAX_CONCURRENT=8 python-executor-server
```

`python-executor-server --help` prints the same list. `make docs` generates this page from the settings in the code.

- If a setting is wrong or unknown, the server does not start. It prints one line with the setting, its value and the
  allowed values.
- MiB are 1,048,576 bytes. Separate the items of a list with commas. If the default is `none`, an empty value means
  `none`.
- The server rejects a request over a ceiling in *Limits of a run* with 400. It never lowers a value silently.
- All replicas of a deployment must use the same Consul cluster (`PYEXEC_CONSUL_ADDR`), the same `PYEXEC_CONSUL_PREFIX`
  and the same `PYEXEC_BLOB_URL`. Use the same values for all other settings too, except addresses and directories.
- The server ignores `PYEXEC_SERVER` and `PYEXEC_TOKEN`, which are settings of the [command line](cli.md).
- Variables with the prefix `OTEL_` configure the export of [traces](operations.md#traces), which is off unless
  `OTEL_EXPORTER_OTLP_ENDPOINT` is set.
- `PYEXEC_API_TOKENS`, `PYEXEC_CONSUL_TOKEN`, `PYEXEC_WEBHOOK_SECRETS` and the file in `PYEXEC_TENANTS_FILE`
  ([tenants](tenants.md)) are secrets ([security](security.md)).
"""


def page() -> str:
    """Return the whole page."""
    parts = [_HEAD]
    for section, settings in groupby(setting_docs(), key=lambda setting: setting.section):
        rows = "".join(map(_row, settings))
        parts.append(
            f"\n## {section}\n\n| variable | meaning | default | allowed |\n|---|---|---|---|\n{rows}"
        )
    return "".join(parts)


def _row(setting: SettingDoc) -> str:
    meaning = setting.doc.replace("|", "\\|")
    return f"| `{setting.variable}` | {meaning} | `{setting.default}` | {setting.allowed} |\n"


def main() -> int:
    if sys.argv[1:] == ["--print"]:
        sys.stdout.write(page())
    else:
        PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
