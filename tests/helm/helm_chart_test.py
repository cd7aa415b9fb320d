"""All checks of the chart that need no cluster. From anywhere: python3 tests/helm/helm_chart_test.py"""

import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path[:0] = [str(HERE), str(HERE.parent)]

from python_cases import run  # noqa: E402

if __name__ == "__main__":
    run("helm_chart_test", ["chart_schema", "chart_objects", "chart_values", "chart_network",
                            "chart_refusals", "chart_flags", "chart_download", "chart_readme"])
