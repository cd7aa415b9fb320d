"""Runs unittest cases and leaves their results where tests/run.sh counts them, as the C++ tests do.

    from python_cases import run
    if __name__ == "__main__":
        run("helm_chart_test", ["chart_objects", "chart_refusals"])

A case that cannot run here calls self.skipTest("why"), and the reason is printed.
"""

import os
import sys
import unittest
from xml.sax.saxutils import quoteattr


class _Result(unittest.TextTestResult):
    def __init__(self, *args):
        super().__init__(*args)
        self.outcomes = []  # (class, name, result, why)

    def _note(self, test, result, why=""):
        test = getattr(test, "test_case", test)  # of a subtest
        group, _, name = test.id().rpartition(".")
        self.outcomes.append((group.rpartition(".")[2] or group, name, result, why))

    def addSuccess(self, test):
        super().addSuccess(test)
        self._note(test, "completed")

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._note(test, "failed")

    def addError(self, test, err):
        super().addError(test, err)
        self._note(test, "failed")

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._note(test, "failed")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self._note(test, "skipped", reason)


def _write_report(program, outcomes):
    folder = os.environ.get("GTEST_OUTPUT", "")
    if not folder.startswith("xml:"):
        return
    seen = {}
    for group, name, result, why in outcomes:  # a case with several failing subtests failed once
        if seen.get((group, name), ("", ""))[0] != "failed":
            seen[group, name] = result, why
    results = [result for result, _ in seen.values()]
    counts = {r: results.count(r) for r in ("failed", "skipped")}
    lines = ['<?xml version="1.0" encoding="UTF-8"?>',
             f'<testsuites name="{program}">',
             f'  <testsuite name="{program}" tests="{len(seen)}" failures="{counts["failed"]}"'
             f' disabled="0" skipped="{counts["skipped"]}" errors="0">']
    for (group, name), (result, why) in seen.items():
        message = f" message={quoteattr(why, {chr(34): '&quot;'})}" if why else ""
        lines.append(f'    <testcase name={quoteattr(name)} result="{result}"'
                     f' classname={quoteattr(group)}{message} />')
    lines += ["  </testsuite>", "</testsuites>", ""]
    with open(os.path.join(folder[4:], program + ".xml"), "w", encoding="utf-8") as report:
        report.write("\n".join(lines))


def run(program, modules):
    """Runs the cases of the modules, which lie beside the program; exits with 0 or 1."""
    suite = unittest.defaultTestLoader.loadTestsFromNames(modules)
    result = unittest.TextTestRunner(sys.stdout, verbosity=2, resultclass=_Result).run(suite)
    _write_report(program, result.outcomes)
    reasons = sorted({reason for _, reason in result.skipped})
    for reason in reasons:
        print("skipped:", reason)
    sys.exit(0 if result.wasSuccessful() else 1)
