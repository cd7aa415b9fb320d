"""helm lint, strict schemas for every object, and the schema of the values."""

import json
import unittest

import chart
import crds
import tools


class ChartSchemaTest(unittest.TestCase):
    def test_lint_has_no_complaints(self):
        for path in [None, *chart.EXAMPLES]:
            with self.subTest(values=path and path.name):
                values = ["--values", str(path)] if path else []
                out = chart.run_helm("lint", "--strict", str(chart.CHART), *values)
                self.assertIn("0 chart(s) failed", out)

    def test_every_object_is_what_kubernetes_takes(self):
        tools.require_packages()
        import kubernetes_validate
        for what, objs in chart.renderings():
            for o in objs:
                with self.subTest(rendering=what, kind=o["kind"], name=o["metadata"]["name"]):
                    if o["apiVersion"] in crds.SCHEMAS:
                        crds.validate(o)
                    else:
                        kubernetes_validate.validate(o, chart.KUBE_VERSION, strict=True)

    def test_no_two_objects_have_one_name(self):
        for what, objs in chart.renderings():
            names = [(o["kind"], o["metadata"]["name"]) for o in objs]
            with self.subTest(rendering=what):
                self.assertEqual(len(names), len(set(names)))
            for kind, name in names:
                with self.subTest(rendering=what, kind=kind, name=name):
                    self.assertLessEqual(len(name), 63)

    def test_an_older_supported_kubernetes_takes_it(self):
        tools.require_packages()
        import kubernetes_validate
        for o in chart.objects():
            with self.subTest(kind=o["kind"], name=o["metadata"]["name"]):
                kubernetes_validate.validate(o, "1.30.0", strict=True)


class ValuesSchemaTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.schema = json.loads((chart.CHART / "values.schema.json").read_text())

    def test_is_draft_07_and_good(self):
        tools.require_packages()
        import jsonschema
        self.assertIn("draft-07", self.schema["$schema"])
        jsonschema.Draft7Validator.check_schema(self.schema)

    def resolve(self, schema):
        ref = schema.get("$ref", "")
        return self.schema["definitions"][ref.rpartition("/")[2]] if ref else schema

    def check_strict(self, schema, at):
        schema = self.resolve(schema)
        if "properties" in schema:
            self.assertIs(schema.get("additionalProperties"), False, at)
            for name, sub in schema["properties"].items():
                self.check_strict(sub, f"{at}.{name}")

    def test_takes_no_unknown_name_anywhere_but_in_global(self):
        self.check_strict(self.schema, "values")
        self.assertNotIn("properties", self.schema["properties"]["global"])

    def compare(self, values, schema, at):
        schema = self.resolve(schema)
        if not isinstance(values, dict) or "properties" not in schema:
            return
        self.assertEqual(set(values), set(schema["properties"]) - self.OPTIONAL.get(at, set()), at)
        for name, value in values.items():
            self.compare(value, schema["properties"][name], f"{at}.{name}")

    # In the schema, for groups to set; nothing by default.
    OPTIONAL = {f"values.{c}.image": {"repository", "tag", "digest", "pullPolicy"}
                for c in ("router", "planner", "attention", "expert")}
    OPTIONAL |= {"values": {"enabled"}}
    OPTIONAL |= {"values.tls.certManager.routerIssuerRef": {"name", "kind", "group"}}
    OPTIONAL |= {"values.model.download.resources": {"limits", "requests"}}

    def test_has_exactly_the_names_of_the_values(self):
        tools.require_packages()
        import yaml
        self.compare(yaml.safe_load((chart.CHART / "values.yaml").read_text()), self.schema, "values")
