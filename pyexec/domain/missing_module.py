"""Name the package that a program lacks, given the exception of its failed import."""

import re
import sys

from pyexec.domain.crash import Crash

MODULE_HINT = (
    "(the sandbox has no module {}; {} to the requirements: requirements_txt, --requirements FILE, "
    'or a "# /// script" block)'
)
CELL_MODULE_HINT = (
    "(the sandbox has no module {}; {} to the requirements of a new session: open one with requirements_txt, "
    "or --requirements FILE)"
)
PACKAGES = {
    "Crypto": "pycryptodome",
    "OpenSSL": "pyOpenSSL",
    "PIL": "pillow",
    "attr": "attrs",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "distutils": "setuptools",
    "docx": "python-docx",
    "dotenv": "python-dotenv",
    "fitz": "PyMuPDF",
    "git": "GitPython",
    "jwt": "PyJWT",
    "magic": "python-magic",
    "psycopg2": "psycopg2-binary",
    "pptx": "python-pptx",
    "pythonjsonlogger": "python-json-logger",
    "serial": "pyserial",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "slugify": "python-slugify",
    "usb": "pyusb",
    "yaml": "PyYAML",
    "zmq": "pyzmq",
}
"""Packages whose name is not that of their module. cv2 without `-headless` needs libraries of a desktop."""
_MISSING = re.compile(r"No module named '([A-Za-z]\w{0,99})'", re.ASCII)
"""Matches the message for a module at the top level. A submodule is missing in a package that is installed."""


def missing_module_hint(crash: Crash, *, is_cell: bool) -> str | None:
    """Return what to install for a failed import; None for other exceptions, and for modules that no package has.

    `is_cell` is true for a cell of a session, whose packages are installed when the session is opened."""
    if crash.error_type != "ModuleNotFoundError":
        return None
    found = _MISSING.fullmatch(crash.error.partition("\n")[0])
    if found is None:
        return None
    module = found[1]
    hint = CELL_MODULE_HINT if is_cell else MODULE_HINT
    if module in PACKAGES:
        return hint.format(module, f"add the package {PACKAGES[module]}")
    if module in sys.stdlib_module_names:
        return None
    # The module may also be a file that the caller forgot to send. Then a package of that name would be unrelated.
    return hint.format(module, "if it is a package, add it")
