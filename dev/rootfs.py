"""The root file system of the server's image, made inside the first stage of the Dockerfile.

    rootfs.py SOURCE TARGET [WHEELS]

installs the checkout SOURCE and its pinned requirements beside this interpreter, and gathers in TARGET what
the server needs to run and nothing else. With WHEELS, a folder of `dev/wheels.py`, nothing is fetched, and the
interpreter need not have pip. The standard library only: this runs wherever there is a Python."""

from __future__ import annotations

import compileall
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
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

HOME = Path("/opt/python-executor")
_PYTHON = HOME / "bin" / "python3"
_STDLIB = Path(sysconfig.get_path("stdlib"))
_PROGRAMS = {"python", "python3", "python-executor", "python-executor-server"}
_UNUSED_STDLIB = (
    "__pycache__", "config-*", "dist-packages", "distutils", "ensurepip", "idlelib", "lib2to3", "pydoc_data",
    "site-packages", "test", "tests", "tkinter", "turtledemo", "EXTERNALLY-MANAGED", "sitecustomize.py",
    "_test*.so", "_ctypes_test*.so", "_xxtestfuzz*.so", "xxlimited*.so", "_curses*.so", "_dbm*.so", "_gdbm*.so",
    "_tkinter*.so", "nis.*.so", "readline*.so",
)  # fmt: skip
# What compilers and type checkers read, what debuggers of browsers read, and what tests a package.
_UNUSED_PACKAGES = (
    "__pycache__", "tests", "*.c", "*.h", "*.map", "*.pxd", "*.pxi", "*.pyi", "*.pyx", "_testcapi*.so",
)  # fmt: skip
_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
_ACCOUNTS = {
    "etc/passwd": "root:x:0:0::/:/\npyexec:x:10001:10001::/data:/\n",
    "etc/group": "root:x:0:\npyexec:x:10001:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
_ELF_MAGIC = b"\x7fELF\x02\x01"  # 64 bits, little-endian: x86-64 and ARM64
_ELF_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_ELF_SEGMENT = struct.Struct("<IIQQQQQQ")


def main() -> None:
    source, target, *wheels = sys.argv[1:]
    install(Path(source), Path(wheels[0]) if wheels and wheels[0] else None)
    gather(Path(target))


def install(source: Path, wheels: Path | None) -> None:
    """A virtual environment at HOME with the server, its requirements, and the installer of setups."""
    venv.create(HOME, symlinks=True)
    pins = ["--constraint", str(source / "requirements.lock")]
    with tempfile.TemporaryDirectory() as scratch:
        if wheels is None:
            pip = [sys.executable, "-m", "pip", "--python", str(_PYTHON), "install", *pins]
            path = ""
        else:
            (wheel,) = wheels.glob("pip-*.whl")
            zipfile.ZipFile(wheel).extractall(f"{scratch}/pip")
            pip = [str(_PYTHON), "-m", "pip", "install", *pins, "--no-index", f"--find-links={wheels}"]
            path = f"{scratch}/pip"
        quiet = {
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_ROOT_USER_ACTION": "ignore",
            "PIP_NO_CACHE_DIR": "1",
        }
        environment = {**os.environ, **quiet, "PYTHONPATH": path}
        parts = [str(source / "pyexec_client"), str(source)]
        subprocess.run([*pip, "--no-compile", *parts], env=environment, check=True)
        # As in dev/virtualenv.py: the build of uv for musl needs no shared library.
        static = ["--no-deps", "--only-binary=:all:", f"--platform=musllinux_1_1_{platform.machine()}"]
        subprocess.run([*pip, *static, f"--target={scratch}/uv", "uv"], env=environment, check=True)
        share = HOME / "share" / "python-executor"
        share.mkdir(parents=True)
        shutil.move(f"{scratch}/uv/bin/uv", share / "uv")


def gather(target: Path) -> None:
    """Copies to `target`, at the same paths, what runs: the interpreter, the packages, and what they link."""
    copy_tree(_STDLIB, target, _UNUSED_STDLIB)
    copy_tree(HOME, target, _UNUSED_PACKAGES)
    for program in (target / HOME.relative_to("/") / "bin").iterdir():
        if program.name not in _PROGRAMS:
            program.unlink()
    interpreter = Path(sys.executable).resolve()
    copy(interpreter, target)
    # Linked by path alone: `venv` points to the name by which it was called.
    python = target / _PYTHON.relative_to("/")
    python.unlink()
    python.symlink_to(interpreter)
    libraries = sorted(needed([interpreter, *shared_objects(target)]))
    for library in libraries:
        copy(library, target)
    for binary in [target / interpreter.relative_to("/"), *target.rglob("*.so*")]:
        strip_elf(binary)
    compile_all(target)
    copy(_BUNDLE, target)
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
    """The file behind `path`, under the name by which it is looked for."""
    place = target / real(path).relative_to("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, place)


def real(path: Path) -> Path:
    """Where a name really lies: its folder without links (/lib is one), the name itself as it is."""
    return path.parent.resolve() / path.name


def shared_objects(target: Path) -> Iterator[Path]:
    """The compiled modules that were copied, where they came from."""
    for path in target.rglob("*.so*"):
        yield Path("/") / path.relative_to(target)


def needed(programs: Iterable[Path]) -> set[Path]:
    """The shared libraries of the system that these load, the loader itself among them."""
    found = set()
    for program in programs:
        listing = subprocess.run(["ldd", program], stdout=subprocess.PIPE, text=True, check=True).stdout
        if "not found" in listing:
            raise SystemExit(f"{program} needs what is not there:\n{listing}")
        found |= {Path(path) for path in re.findall(r"(/\S+) \(0x", listing)}
    return {library for library in found if HOME not in library.parents}


def strip_elf(path: Path) -> None:
    """Cuts off what follows the last segment: symbols for debuggers, and the table of sections.

    A loader maps segments, and reads nothing else. A file that is no such object is left alone."""
    content = path.read_bytes()
    if not content.startswith(_ELF_MAGIC):
        return
    header = list(_ELF_HEADER.unpack_from(content))
    table, size, count = header[5], header[9], header[10]
    segments = [_ELF_SEGMENT.unpack_from(content, table + n * size) for n in range(count)]
    end = max(table + count * size, *(offset + length for _, _, offset, _, _, length, _, _ in segments))
    header[6] = header[11] = header[12] = header[13] = 0  # there are no sections any more
    path.write_bytes(_ELF_HEADER.pack(*header) + content[_ELF_HEADER.size : end])


def compile_all(target: Path) -> None:
    """Bytecode that is believed without a look at its source: files may get other times on their way."""
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
        raise SystemExit("not everything could be compiled")


def licences(files: Iterable[Path]) -> set[Path]:
    """The terms of the system's packages that these files belong to."""
    owners = set()
    for path in files:
        # A package may have been registered at /lib or at /usr/lib.
        asked = subprocess.run(
            ["dpkg", "--search", f"*/{path.name}"], stdout=subprocess.PIPE, text=True, check=False
        )
        owners |= {
            line.split(":")[0] for line in asked.stdout.splitlines() if not line.startswith("diversion ")
        }
    found = {Path("/usr/share/doc") / owner / "copyright" for owner in owners}
    return {path for path in found if path.exists()}


def link_libraries(target: Path, folders: Iterable[Path]) -> None:
    """The links of the base that lead to libraries, and the loader's own list of where they lie."""
    for name in ("lib", "lib64"):
        if os.path.islink(f"/{name}"):
            (target / name).symlink_to(os.readlink(f"/{name}"))
    (target / "etc" / "ld.so.conf").write_text("".join(f"{folder}\n" for folder in sorted(folders)))
    subprocess.run(["/sbin/ldconfig", "-r", str(target)], check=True)


if __name__ == "__main__":
    main()
