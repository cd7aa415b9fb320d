"""prometheus and promtool: those of the PATH, or Debian's package, unpacked into build/ and never
installed, so that no service of it starts here."""

import functools
import os
import pathlib
import shutil
import subprocess
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "prometheus-tools"


def _run(command, seconds=120):
    """None, or why it failed."""
    try:
        done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=seconds,
                              check=False)
    except FileNotFoundError:
        return f"there is no {command[0]}"
    except subprocess.TimeoutExpired:
        return f"{command[0]} took more than {seconds} s"
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no output"])[-1]


@functools.cache
def _fetch():
    FOLDER.mkdir(parents=True, exist_ok=True)
    if not list(FOLDER.glob("prometheus_*.deb")):
        download = ["apt-get", "download", "-q", "prometheus"]
        why = _run(download)
        if why and os.geteuid() == 0:  # no list of packages yet, or an old one
            why = _run(["apt-get", "update", "-q"]) or _run(download)
        if why:
            return f"Debian's prometheus could not be fetched ({why})"
    [package] = FOLDER.glob("prometheus_*.deb")
    why = _run(["dpkg-deb", "--extract", str(package), "root"])
    return f"{package.name} could not be unpacked ({why})" if why else None


def require(name):
    """Path of `prometheus` or `promtool`; SkipTest where it cannot be had."""
    known = shutil.which(name)
    if known:
        return known
    path = FOLDER / "root" / "usr" / "bin" / name
    if not path.exists():
        why = _fetch()
        if why:
            raise unittest.SkipTest(f"no {name} on the PATH, and {why}")
    return str(path)
