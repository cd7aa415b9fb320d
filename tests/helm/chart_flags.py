"""Every flag that the chart sets is a flag of the binary that gets it."""

import json
import os
import pathlib
import re
import subprocess
import unittest

import chart
import tools

BIN = pathlib.Path(os.environ.get("GATEFOLD_BIN", tools.ROOT / "build" / "release" / "bin"))
SERVICES = ["router-service", "attention-service", "expert-service"]


def flags_of(program, *verb):
    """Names with dashes, as --help lists them."""
    path = BIN / program
    if not path.exists():
        raise unittest.SkipTest(f"{path} is not built")
    done = subprocess.run([path, *verb, "--help"], capture_output=True, text=True, check=False)
    names = re.findall(r"^ .*?--(?:\[no-\])?([a-z][a-z_-]+)", done.stdout, re.M)
    return {name.replace("_", "-") for name in names}


# Flags that the chart is ready for and the binaries do not have yet.
PENDING = {program: set() for program in (*SERVICES, "gatefold")}


class ChartFlagsTest(unittest.TestCase):
    def setUp(self):
        self.known = {program: flags_of(program) for program in SERVICES}
        self.known["gatefold"] = flags_of("gatefold", "generate")

    def used(self):
        """{program: {flag}} over all renderings; variables count as the flags they stand for."""
        used = {}
        for _, objs in chart.renderings():
            for _, _, spec in chart.pods(objs):
                for container in spec["containers"]:
                    flags = used.setdefault(container["command"][0], set())
                    flags |= {a.partition("=")[0].lstrip("-") for a in container["args"]
                              if a.startswith("--")}
                    flags |= {e["name"][len("GATEFOLD_"):].lower().replace("_", "-")
                              for e in container.get("env", []) if e["name"].startswith("GATEFOLD_")}
        return used

    def test_flags_exist(self):
        used = self.used()
        self.assertEqual(set(used), {*SERVICES, "gatefold"})
        for program, flags in used.items():
            self.assertGreater(len(flags), 3)
            with self.subTest(program=program):
                self.assertEqual(flags - self.known[program] - PENDING[program], set())

    def test_variables_of_the_config_are_flags_of_all_services(self):
        for _, objs in chart.renderings():
            for o in chart.of_kind(objs, "ConfigMap"):
                for key in o["data"]:
                    if key.startswith("GATEFOLD_"):
                        flag = key[len("GATEFOLD_"):].lower().replace("_", "-")
                        for program in SERVICES:
                            self.assertIn(flag, self.known[program], program)

    def test_pending_flags_are_not_there_yet(self):
        for program, flags in PENDING.items():
            there = flags & self.known[program]
            if there:
                self.skipTest(f"take off the list of pending flags: {program} {sorted(there)}")

    def test_values_are_taken_as_written(self):
        """A binary that is asked for help after the chart's flags parses them first."""
        calls = set()
        for _, objs in chart.renderings():
            for _, _, spec in chart.pods(objs):
                [container] = spec["containers"]
                [program] = container["command"]
                if program in SERVICES:
                    calls.add((program, *(a for a in container["args"]
                                          if a.partition("=")[0].lstrip("-") not in PENDING[program])))
        self.assertGreater(len(calls), len(SERVICES))
        for program, *args in calls:
            done = subprocess.run([BIN / program, *args, "--help"], capture_output=True, text=True,
                                  check=False)
            with self.subTest(program=program, args=args):
                self.assertNotIn("ERROR", done.stderr)
                self.assertIn("--listen", done.stdout)

    def test_numbers_at_the_ends_of_the_schema_are_none_that_binaries_refuse(self):
        """Without a model they end, once they have looked at their flags."""
        schema = json.loads((chart.CHART / "values.schema.json").read_text())
        parts = {name: schema["properties"][name] for name in ("router", "planner", "attention")}
        parts["expert"] = schema["definitions"]["expert"]
        for end in ("minimum", "maximum"):
            sets = [f"{part}.{name}={one[end]}" for part, of in parts.items()
                    for name, one in of["properties"].items()
                    if one.get("type") == "integer" and name != "terminationGracePeriodSeconds"]
            sets.append(f"model.nSlices={schema['properties']['model']['properties']['nSlices'][end]}")
            objs = chart.objects((), tuple(sets))
            [config] = [o["data"] for o in chart.of_kind(objs, "ConfigMap")]
            for o in chart.workloads(objs):
                [container] = o["spec"]["template"]["spec"]["containers"]
                done = subprocess.run(
                    [BIN / container["command"][0], *container["args"], "--health-port=-1"],
                    env={**os.environ, **config, "GATEFOLD_MODEL": "/nowhere"}, capture_output=True,
                    text=True, check=False)
                with self.subTest(end=end, name=o["metadata"]["name"]):
                    self.assertIn("NOT_FOUND", done.stderr)
