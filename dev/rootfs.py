"""Build the root file system of the server's image; runs in the first stage of the Dockerfile.

    rootfs.py SOURCE TARGET [PACKAGES]

Install the checkout SOURCE and its pinned requirements for this interpreter, then copy the files that the server needs
at run time to TARGET. PACKAGES is a folder made by dev/image_packages.py: with it, nothing is downloaded, and the
interpreter needs no pip. This script uses only the standard library, because the base image has nothing else."""

from __future__ import annotations

import compileall
import importlib.util
import os
import platform
import py_compile
import re
import shutil
import struct
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Iterable, Iterator
from pathlib import Path

HOME = Path("/opt/python-executor")
_PYTHON = HOME / "bin" / "python3"
_SITE_PACKAGES = HOME / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
_EXTRAS = "otel"
_STDLIB = Path(sysconfig.get_path("stdlib"))
_PROGRAMS = {"python", "python3", "python-executor", "python-executor-server"}
_UNUSED_STDLIB = (
    "__pycache__", "config-*", "dist-packages", "distutils", "ensurepip", "idlelib", "lib2to3", "pydoc_data",
    "site-packages", "test", "tests", "tkinter", "turtledemo", "EXTERNALLY-MANAGED", "sitecustomize.py",
    "_test*.so", "_ctypes_test*.so", "_xxtestfuzz*.so", "xxlimited*.so", "_curses*.so", "_dbm*.so", "_gdbm*.so",
    "_tkinter*.so", "nis.*.so", "readline*.so",
    # Replacements in Python for modules in C that are always there; modules that need a terminal or a window.
    "_pydecimal.py", "_pyio.py", "curses", "turtle.py",
    # Modules that Python 3.12 or 3.13 removed; modules for tests, pickle analysis and mailboxes.
    "aifc.py", "asynchat.py", "asyncore.py", "cgi.py", "cgitb.py", "chunk.py", "crypt.py", "imghdr.py", "imp.py",
    "mailcap.py", "msilib", "nntplib.py", "pipes.py", "smtpd.py", "sndhdr.py", "sunau.py", "telnetlib.py", "uu.py",
    "xdrlib.py", "doctest.py", "imaplib.py", "mailbox.py", "pickletools.py",
)  # fmt: skip
# Sources and headers of C extensions, type stubs, source maps, and tests.
_UNUSED_PACKAGES = (
    "__pycache__", "tests", "*.c", "*.h", "*.map", "*.pxd", "*.pxi", "*.pyi", "*.pyx", "_testcapi*.so",
    # Five megabytes compressed, for a part of the MCP SDK that the server does not use: pyexec/mcp/sdk.py.
    "cryptography", "cryptography-*", "cffi", "cffi-*", "_cffi_backend*.so", "pycparser", "pycparser-*",
    # The build backend of this project, and the lock of uv.
    "setuptools", "setuptools-*", "pkg_resources", "_distutils_hack", "distutils-precedence.pth",
    ".lock",
    # A web server of its own, which the MCP SDK offers and this server does not use.
    "uvicorn", "uvicorn-*",
)  # fmt: skip
# Half a megabyte compressed, together.
_UNUSED_PARTS = (
    "aiohttp_apispec/static",  # Swagger UI: the server has its own
    "charset_normalizer/*.so",  # the same modules are there in Python
    "google/[!_p]*",  # definitions of Google's services; protobuf and its library _upb stay
    "opentelemetry/semconv/_incubating/*/[!_o]*.py",  # names for traces: the SDK imports only its own, otel_*
    "opentelemetry/semconv/_incubating/*/o[!t]*.py",
)
_OWN_PACKAGES = {"pyexec", "pyexec_cli", "pyexec_client"}
_CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
_ACCOUNTS = {
    "etc/passwd": "root:x:0:0::/:/\npyexec:x:10001:10001::/data:/\n",
    "etc/group": "root:x:0:\npyexec:x:10001:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
_ELF_MAGIC = b"\x7fELF\x02\x01"  # 64 bits, little-endian: x86-64 and ARM64
_ELF_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_ELF_SEGMENT = struct.Struct("<IIQQQQQQ")


def main() -> None:
    source, target, *packages = sys.argv[1:]
    install(Path(source), Path(packages[0]) if packages and packages[0] else None)
    copy_runtime(Path(target))
    shutil.rmtree(HOME)  # so that Docker need not store it


def install(source: Path, packages: Path | None) -> None:
    """Create a virtual environment at HOME with the server, its requirements, and a static uv for setups."""
    venv.create(HOME, symlinks=True)
    share = HOME / "share" / "python-executor"
    share.mkdir(parents=True)
    pins = ["--constraint", str(source / "requirements.lock")]
    own = [str(source / "pyexec_client"), f"{source}[{_EXTRAS}]"]
    with tempfile.TemporaryDirectory() as scratch:
        if packages is None:
            # As in dev/virtualenv.py: the musl build of uv needs no shared libraries.
            static = ["--no-deps", "--only-binary=:all:", f"--platform=musllinux_1_1_{platform.machine()}"]
            pip = [sys.executable, "-m", "pip", "install", *pins, *static, f"--target={scratch}/uv", "uv"]
            subprocess.run(pip, check=True)
            shutil.move(f"{scratch}/uv/bin/uv", share / "uv")
            parts = [*pins, *own]
        else:
            shutil.copy2(packages / "uv", share / "uv")
            shutil.unpack_archive(packages / "packages.tar", _SITE_PACKAGES)
            parts = ["--no-deps", "--no-index", "--no-build-isolation", *own]
        uv = [str(share / "uv"), "pip", "install", f"--python={_PYTHON}", "--no-cache", "--link-mode=copy"]
        subprocess.run([*uv, *parts], check=True)


def copy_runtime(target: Path) -> None:
    """Copy the interpreter, the packages and the libraries that they load to the same paths under `target`."""
    copy_tree(_STDLIB, target, _UNUSED_STDLIB)
    copy_tree(HOME, target, _UNUSED_PACKAGES)
    for program in (target / HOME.relative_to("/") / "bin").iterdir():
        if program.name not in _PROGRAMS:
            program.unlink()
    for pattern in _UNUSED_PARTS:
        for part in target.rglob(pattern):
            shutil.rmtree(part) if part.is_dir() else part.unlink()
    for bundle in target.rglob("certifi/cacert.pem"):  # one list of authorities for everything
        bundle.unlink()
        bundle.symlink_to(_CA_BUNDLE)
    interpreter = Path(sys.executable).resolve()
    copy(interpreter, target)
    # `venv` links to the name it was called by, such as /usr/bin/python3; only its target is in the image.
    python = target / _PYTHON.relative_to("/")
    python.unlink()
    python.symlink_to(interpreter)
    libraries = sorted(linked_libraries([interpreter, *shared_objects(target)]))
    for library in libraries:
        copy(library, target)
    for binary in [target / interpreter.relative_to("/"), *target.rglob("*.so*")]:
        strip_elf(binary)
    compile_all(target)
    drop_sources(target)
    copy(_CA_BUNDLE, target)
    for licence in licences([interpreter, *libraries]):
        copy(licence, target)
    for name, text in _ACCOUNTS.items():
        (target / name).write_text(text)
    link_libraries(target, {real(library).parent for library in libraries})
    (target / "tmp").mkdir()
    (target / "tmp").chmod(0o1777)


def copy_tree(folder: Path, target: Path, unused: Iterable[str]) -> None:
    shutil.copytree(
        folder, target / real(folder).relative_to("/"), symlinks=True, ignore=shutil.ignore_patterns(*unused)
    )


def copy(path: Path, target: Path) -> None:
    """Copy a file to the same path under `target`; of a symbolic link, copy the file that it points to."""
    place = target / real(path).relative_to("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, place)


def real(path: Path) -> Path:
    """Resolve symbolic links in the folder of a path (/lib is one), but not in its last component."""
    return path.parent.resolve() / path.name


def shared_objects(target: Path) -> Iterator[Path]:
    """Yield the original paths of the shared objects that were copied."""
    for path in target.rglob("*.so*"):
        yield Path("/") / path.relative_to(target)


def linked_libraries(programs: Iterable[Path]) -> set[Path]:
    """Return the system's shared libraries that the programs load, including the dynamic loader."""
    found = set()
    for program in programs:
        listing = subprocess.run(["ldd", program], stdout=subprocess.PIPE, text=True, check=True).stdout
        if "not found" in listing:
            raise SystemExit(f"{program} needs libraries that are missing:\n{listing}")
        found |= {Path(path) for path in re.findall(r"(/\S+) \(0x", listing)}
    return {library for library in found if HOME not in library.parents}


def strip_elf(path: Path) -> None:
    """Remove debug symbols and the section table of an ELF file: everything after its last segment.

    The dynamic loader reads only the segments. Other kinds of files are left unchanged."""
    content = path.read_bytes()
    if not content.startswith(_ELF_MAGIC):
        return
    header = list(_ELF_HEADER.unpack_from(content))
    table, size, count = header[5], header[9], header[10]
    segments = [_ELF_SEGMENT.unpack_from(content, table + n * size) for n in range(count)]
    end = max(table + count * size, *(offset + length for _, _, offset, _, _, length, _, _ in segments))
    header[6] = header[11] = header[12] = header[13] = 0  # no section table
    path.write_bytes(_ELF_HEADER.pack(*header) + content[_ELF_HEADER.size : end])


def compile_all(target: Path) -> None:
    """Compile all modules to bytecode that Python does not check against source timestamps, which may change."""
    compiled = compileall.compile_dir(
        target,
        maxlevels=20,
        quiet=1,
        stripdir=str(target),
        prependdir="/",
        workers=0,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    if not compiled:
        raise SystemExit("some modules could not be compiled")


def drop_sources(target: Path) -> None:
    """Keep only the bytecode of modules outside this project. Python needs the source only for the text of lines in
    tracebacks."""
    for source in target.rglob("*.py"):
        compiled = Path(importlib.util.cache_from_source(str(source)))
        if compiled.exists() and not _OWN_PACKAGES & set(source.parts):
            compiled.rename(source.with_suffix(".pyc"))  # where Python looks for a module without source
            source.unlink()


def licences(files: Iterable[Path]) -> set[Path]:
    """Return the copyright files of the system packages that own these files."""
    # dpkg may know a file by its path in /lib or in /usr/lib.
    search = ["dpkg", "--search", *(f"*/{path.name}" for path in files)]
    found = subprocess.run(search, stdout=subprocess.PIPE, text=True, check=False).stdout
    owners = {line.split(":")[0] for line in found.splitlines() if not line.startswith("diversion ")}
    copyrights = {Path("/usr/share/doc") / owner / "copyright" for owner in owners}
    return {path for path in copyrights if path.exists()}


def link_libraries(target: Path, folders: Iterable[Path]) -> None:
    """Recreate the base's links /lib and /lib64, and write the dynamic loader's configuration and cache."""
    for name in ("lib", "lib64"):
        if os.path.islink(f"/{name}"):
            (target / name).symlink_to(os.readlink(f"/{name}"))
    (target / "etc" / "ld.so.conf").write_text("".join(f"{folder}\n" for folder in sorted(folders)))
    subprocess.run(["/sbin/ldconfig", "-r", str(target)], check=True)


if __name__ == "__main__":
    main()
