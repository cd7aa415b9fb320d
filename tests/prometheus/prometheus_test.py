"""Metrics, dashboards and alerts. From anywhere: python3 tests/prometheus/prometheus_test.py"""

import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path[:0] = [str(HERE), str(HERE.parent)]

from python_cases import run  # noqa: E402

if __name__ == "__main__":
    run("prometheus_test", ["rules_cases", "live_cases"])
