"""The table of values in the chart's README is made from values.yaml and its comments.

    python3 tests/helm/readme.py          writes it
    python3 tests/helm/readme.py --check  says whether it is up to date

The comment of a value stands in the lines above it. What several workloads have (router.resources,
planner.resources) is explained where it comes first.
"""

import pathlib
import re
import sys

CHART = pathlib.Path(__file__).resolve().parents[2] / "helm" / "gatefold"
BEGIN = "<!-- values: made by tests/helm/readme.py -->"
END = "<!-- end of values -->"
WORKLOADS = ("router", "planner", "attention", "expert")
KEY = re.compile(r"^( *)([A-Za-z][A-Za-z0-9]*):(?: (.*))?$")


def read_values(text):
    """[(path, default or None, comment)] in their order; default None: a map that follows."""
    values, path, comment, in_list = [], [], [], None
    for line in text.splitlines():
        stripped = line.strip()
        indent = len(line) - len(line.lstrip())
        if in_list is not None and (indent > in_list or stripped.startswith("- ")):
            values[-1] = (values[-1][0], ((values[-1][1] or "") + " " + stripped).strip(), values[-1][2])
            continue
        in_list = None
        if stripped.startswith("#"):
            comment.append(stripped[1:].strip())
            continue
        match = KEY.match(line)
        if match is None:
            comment = []
            continue
        del path[indent // 2:]
        path.append(match.group(2))
        values.append((".".join(path), match.group(3), " ".join(comment)))
        comment = []
        if match.group(3) is None and values[-1][0] == "networkPolicy.scrapers":
            in_list = indent
    return values


def explain(values):
    """Fills in the comments of what another workload has, too."""
    by_tail = {}
    for path, default, comment in values:
        head, _, tail = path.partition(".")
        if not comment and head in WORKLOADS and tail:
            comment = by_tail.get(tail, "")
        elif comment and head in WORKLOADS and tail:
            by_tail.setdefault(tail, comment)
        yield path, default, comment


def table(text):
    rows = ["| value | default | meaning |", "|---|---|---|"]
    for path, default, comment in explain(read_values(text)):
        if default is None and not comment:
            continue
        shown = f"`{default}`" if default is not None else ""
        rows.append(f"| `{path}` | {shown} | {comment} |".replace("|  |", "| |"))
    return "\n".join(rows)


def uncommented(text):
    """Leaves that nothing explains."""
    values = list(explain(read_values(text)))
    commented = {path for path, _, comment in values if comment}
    return [path for path, default, comment in values
            if default is not None and not comment and path.rpartition(".")[0] not in commented]


def updated(readme, values):
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table(values)}\n\n{END}{after}"


def main():
    path = CHART / "README.md"
    old = path.read_text()
    new = updated(old, (CHART / "values.yaml").read_text())
    if "--check" in sys.argv:
        sys.exit(0 if old == new else "helm/gatefold/README.md is out of date: run tests/helm/readme.py")
    path.write_text(new)


if __name__ == "__main__":
    main()
