"""`make docs`: writes docs/configuration.md from the settings themselves; with `--print`, only shows it."""

from __future__ import annotations

import sys
from itertools import groupby

from command import ROOT

from pyexec.settings_help import SettingDoc, setting_docs

PAGE = ROOT / "docs" / "configuration.md"
_HEAD = """\
# Configuration

The server is configured by environment variables and nothing else. `make docs` writes this page from the settings
themselves (`pyexec/settings.py`); `python-executor-server --help` prints the same.

- A setting that is wrong, or that nobody knows, stops the start with one line that names it, its value and what is
  allowed.
- MiB are 1,048,576 bytes. Lists are separated by commas. Where the default is `none`, an empty value means `none`.
- A request over one of the `PYEXEC_MAX_…` ceilings is refused with 400; nothing is lowered silently.
- Replicas of one deployment must agree on `PYEXEC_CONSUL_ADDR`'s cluster, `PYEXEC_CONSUL_PREFIX` and `PYEXEC_BLOB_URL`;
  give them the others alike, too, but for addresses and directories.
- `PYEXEC_SERVER` and `PYEXEC_TOKEN` are for the [command line](cli.md); the server passes over them.
- `PYEXEC_API_TOKENS` and `PYEXEC_CONSUL_TOKEN` are secrets: [security.md](security.md).
"""


def page() -> str:
    """The whole page."""
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
