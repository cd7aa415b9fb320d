"""The README says what the values are, and every value is explained."""

import unittest

import chart
import readme


class ChartReadmeTest(unittest.TestCase):
    def setUp(self):
        self.values = (chart.CHART / "values.yaml").read_text()

    def test_the_table_is_that_of_the_values(self):
        text = (chart.CHART / "README.md").read_text()
        self.assertEqual(text, readme.updated(text, self.values), "run tests/helm/readme.py")

    def test_every_value_has_a_comment(self):
        self.assertEqual(readme.uncommented(self.values), [])

    def test_the_examples_are_all_named(self):
        text = (chart.CHART / "README.md").read_text()
        for path in chart.EXAMPLES:
            self.assertIn(f"examples/{path.name}", text)

    def test_every_object_kind_is_named(self):
        text = (chart.CHART / "README.md").read_text()
        for _, objs in chart.renderings():
            for o in objs:
                self.assertIn(o["kind"], text)

    def test_notes_give_the_next_commands(self):
        notes = (chart.CHART / "templates" / "NOTES.txt").read_text()
        for command in ("kubectl -n", "helm test", "gatefold generate --router"):
            self.assertIn(command, notes)
