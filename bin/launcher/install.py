"""What must be installed: .venv with the pinned packages, and the few libraries that pip cannot bring."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path

from launcher import place, say, servers
from launcher.place import ROOT, VENV, lock_file, write_private
from launcher.say import Step, Stop

LOG = ROOT / ".setup.log"
STAMP = VENV / "kassa.json"
# .venv, the downloads on their way there, and a young database.
NEEDED_MB = 1500
RUNNING_MB = 200

MAC = sys.platform == "darwin"
# What WeasyPrint loads when it is imported, and the package that has it.
DEBIAN_LIBRARIES = {
    "libpango-1.0.so.0": "libpango-1.0-0",
    "libpangoft2-1.0.so.0": "libpangoft2-1.0-0",
    "libharfbuzz-subset.so.0": "libharfbuzz-subset0",
}
FONT_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.fonts", "~/.local/share/fonts")
# Files with Chinese, Japanese and Korean, and the small package that brings one.
CJK_FONTS = ("wqy-*", "NotoSansCJK*", "NotoSerifCJK*", "SourceHanSans*", "unifont*")
CJK_PACKAGE = "fonts-wqy-microhei"
# What Debian and Ubuntu call it; some have the one, some the other.
REDIS_PACKAGES = ("redis-server", "valkey-server")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MAC_BROWSERS = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)


def prepare(requirements: str, *, yes: bool, for_tests: bool = False) -> None:
    """Bring .venv and the system's libraries to what `requirements` (a file's name) needs.

    Does nothing in a moment when all is there. Raises Stop for what it cannot do.
    """
    fresh = not packages_are_current(requirements)
    check_disk(ROOT, NEEDED_MB if fresh else RUNNING_MB)
    with lock_file(ROOT / ".setup.lock", wait=False) as got:
        if not got:
            say.line("  Another start is installing; waiting for it ...")
    with lock_file(ROOT / ".setup.lock", wait=True):
        install_system(missing_system(for_tests=for_tests), yes=yes)
        if not packages_are_current(requirements):
            make_venv()
            install_packages(requirements)


def check_disk(folder: Path, needed_mb: int) -> None:
    """Raise Stop where fewer than `needed_mb` megabytes are free."""
    free_mb = shutil.disk_usage(folder).free // 1_000_000
    if free_mb < needed_mb:
        raise Stop(
            f"Only {free_mb} MB are free on the disk of {folder}, and Kassa needs {needed_mb} MB. "
            "Make room, or clone it onto another disk."
        )


# --- the virtual environment


def venv_command(name: str) -> str:
    return str(VENV / "bin" / name)


def packages_are_current(requirements: str) -> bool:
    """Whether .venv works, stands where it was made, and holds what the requirements file says today."""
    try:
        stamp = json.loads(STAMP.read_text())
        return bool(
            stamp["place"] == str(ROOT)
            and stamp["files"].get(requirements) == _digest(requirements)
            and stamp["python"] == _venv_version()
        )
    except (OSError, ValueError, KeyError, AttributeError):
        return False


def make_venv() -> None:
    """Make .venv, or make it anew where it is broken, moved or of a Python too old."""
    if _venv_version() and _venv_is_here():
        return
    step = Step("Python environment")
    if importlib.util.find_spec("ensurepip") is None:
        raise Stop(
            "This Python cannot make virtual environments. On Debian and Ubuntu, this line mends it:\n"
            f"  {_apt_line([_venv_package()])}"
        )
    with LOG.open("a") as log:
        made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], stdout=log, stderr=log)
    if made.returncode:
        raise Stop(f"Python could not make {VENV}; its words are at the end of {LOG}.")
    step.done(f"Python {platform.python_version()} in .venv")


def install_packages(requirements: str) -> None:
    """pip install the pinned packages, showing each; raises Stop with pip's own last words."""
    wanted = sum(1 for line in (ROOT / requirements).read_text().splitlines() if "==" in line)
    step = Step("Packages")
    seen = 0

    def show(line: str) -> None:
        nonlocal seen
        if line.startswith(("Collecting ", "Requirement already satisfied: ")):
            seen += 1
            name = line.split(": ")[-1].removeprefix("Collecting ").partition("=")[0].split()[0]
            step.note(f"{min(seen, wanted)} of {wanted}: {name}")
        elif line.startswith("Installing collected packages"):
            step.note("unpacking")

    command = [venv_command("python"), "-m", "pip", "install", "--disable-pip-version-check"]
    command += ["--no-input", "--progress-bar", "off", "-r", str(ROOT / requirements)]
    code, last = _run_logged(command, show)
    if code:
        words = [line for line in last if "ERROR" in line] or list(last)[-3:]
        raise Stop(
            "The packages could not be installed. Is this machine online? Does its proxy let pip through?\n"
            + "\n".join(f"  pip: {line[:300]}" for line in words[-3:])
            + f"\nEverything pip said is in {LOG}. Then start again: what is installed stays."
        )
    _write_stamp(requirements)
    step.done(f"{wanted} packages")


def _write_stamp(requirements: str) -> None:
    files: dict[str, str] = {}
    if _venv_is_here():
        files = json.loads(STAMP.read_text())["files"] if STAMP.exists() else {}
    # The test tools' file contains the local one, which contains requirements.txt.
    chain = ["requirements-local.txt", "requirements-dev.txt"]
    for name in chain[: chain.index(requirements) + 1]:
        files[name] = _digest(name)
    stamp = {"place": str(ROOT), "python": _venv_version(), "files": files}
    write_private(STAMP, json.dumps(stamp, indent=2) + "\n")


def _digest(requirements: str) -> str:
    return hashlib.sha256((ROOT / requirements).read_bytes()).hexdigest()


def _venv_version() -> str:
    """The version of .venv's Python with pip, or "" where it does not run or is too old."""
    code = "import sys, pip; print(sys.version_info >= (3, 11) and sys.version.split()[0] or '')"
    try:
        asked = subprocess.run(
            [venv_command("python"), "-c", code], capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return asked.stdout.strip() if asked.returncode == 0 else ""


def _venv_is_here() -> bool:
    """Whether .venv was made at this path: the scripts in its bin/ have the path written into them."""
    try:
        with (VENV / "bin" / "pip").open("rb") as script:
            return str(VENV).encode() in script.read(400)
    except OSError:
        return False


# --- the system's libraries


def missing_system(*, for_tests: bool) -> list[str]:
    """The packages of Debian (or Homebrew) that this machine lacks."""
    missing = []
    if not _venv_version() and importlib.util.find_spec("ensurepip") is None:
        missing.append(_venv_package())
    if MAC:
        if not any(
            Path(prefix, "lib/libpango-1.0.dylib").exists() for prefix in ("/opt/homebrew", "/usr/local")
        ):
            missing.append("pango")
    else:
        missing += [package for library, package in DEBIAN_LIBRARIES.items() if not _loads(library)]
        if not _has_fonts("*.[to]tf"):
            missing.append("fonts-dejavu-core")
        # Without it a few names are boxes on tickets, as the doctor says: no reason to ask for a password.
        if (missing or os.geteuid() == 0) and not _has_fonts(*CJK_FONTS):
            missing.append(CJK_PACKAGE)
    settings = os.environ if for_tests else place.environment()
    if not (settings.get("REDIS_URL") or servers.redis_here() or servers.redis_comes_with_packages()):
        missing.append("redis" if MAC else REDIS_PACKAGES[0])
    if for_tests and not find_browser():
        missing.append("chromium")
    if for_tests and not MAC and not _loads("libatomic.so.1"):
        # The browser's driver brings its own Node.js, which needs it.
        missing.append("libatomic1")
    if for_tests and not shutil.which("pdftoppm"):
        # The tests look at the tickets' PDF as pictures.
        missing.append("poppler" if MAC else "poppler-utils")
    return missing


def find_browser() -> str:
    """The path of a Chromium, or ""."""
    for name in BROWSERS:
        found = shutil.which(name)
        if found:
            return found
    return next((path for path in MAC_BROWSERS if Path(path).exists()), "")


def install_system(packages: list[str], *, yes: bool) -> None:
    """Install `packages` with apt as root, else ask first; raises Stop with the one line to type."""
    if not packages:
        return
    if MAC:
        _install_with(["brew", "install", *packages], packages, yes=yes)
        return
    if not shutil.which("apt-get"):
        raise Stop(
            "Kassa draws tickets with Pango and HarfBuzz. This machine lacks them, and has no apt-get. "
            f"Install what Debian calls {', '.join(packages)} with your package manager, then start again."
        )
    root = os.geteuid() == 0
    command = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    if not root and not shutil.which("sudo"):
        raise Stop(f"Please have this line run as root, then start again:\n  {' '.join(command)}")
    _install_with(command if root else ["sudo", *command], packages, yes=yes or root, update=True)


def _install_with(command: list[str], packages: list[str], *, yes: bool, update: bool = False) -> None:
    line = " ".join(command)
    if not yes:
        say.line(f"  Kassa needs {', '.join(packages)} on this machine. This line installs it:\n    {line}")
    if not shutil.which(command[0]) or not say.ask("  Run it now?", yes=yes):
        raise Stop(f"Please run this line, then start again (or give --yes to have it run):\n  {line}")
    step = Step("System packages")
    if update:
        # Lists that are months old name files that the mirrors no longer have.
        _run_logged(
            [*command[: command.index("apt-get")], "apt-get", "update"],
            lambda text: step.note("package lists"),
        )
        command, packages = _as_apt_has_them(command), _as_apt_has_them(packages)
    code, last = _run_logged(command, lambda text: step.note(text[:80]))
    if code:
        raise Stop(
            f"This did not work: {line}\n"
            + "\n".join(f"  {text[:300]}" for text in list(last)[-3:])
            + f"\nIs this machine online? Everything it said is in {LOG}."
        )
    step.done(", ".join(packages))


def _as_apt_has_them(words: list[str]) -> list[str]:
    """With Valkey in the place of Redis, where apt knows that one alone."""
    redis, valkey = REDIS_PACKAGES
    if redis not in words or _apt_has(redis) or not _apt_has(valkey):
        return words
    return [valkey if word == redis else word for word in words]


def _apt_has(package: str) -> bool:
    words = ["apt-cache", "policy", package]
    env = {**os.environ, "LC_ALL": "C"}
    told = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60)
    return "Candidate:" in told.stdout and "Candidate: (none)" not in told.stdout


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _has_fonts(*patterns: str) -> bool:
    folders = [path for path in (Path(folder).expanduser() for folder in FONT_FOLDERS) if path.is_dir()]
    return any(next(folder.rglob(pattern), None) for folder in folders for pattern in patterns)


def _venv_package() -> str:
    return f"python{sys.version_info.major}.{sys.version_info.minor}-venv"


def _apt_line(packages: list[str]) -> str:
    sudo = "" if os.geteuid() == 0 else "sudo "
    return f"{sudo}apt-get install {' '.join(packages)}"


def _run_logged(command: list[str], show: Callable[[str], None]) -> tuple[int, deque[str]]:
    """Run `command`, its words to the log and, line by line, to `show`. Returns its code and last lines."""
    last: deque[str] = deque(maxlen=20)
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "PYTHONUNBUFFERED": "1"}
    with LOG.open("a") as log:
        log.write(f"$ {' '.join(command)}\n")
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=env,
        )
        assert process.stdout is not None
        try:
            for raw in process.stdout:
                log.write(raw)
                if raw.strip():
                    last.append(raw.strip())
                    show(raw.strip())
            return process.wait(), last
        finally:
            # Only where a signal ended the reading: nothing must go on installing behind the person's back.
            if process.poll() is None:
                process.terminate()
