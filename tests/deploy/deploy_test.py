"""The image, compose and scripts of deploy/, as far as they can be looked at without a container
engine. From anywhere: python3 tests/deploy/deploy_test.py"""

import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "helm")]

from python_cases import run  # noqa: E402

if __name__ == "__main__":
    run("deploy_test", ["deploy_cases"])
