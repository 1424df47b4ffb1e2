#!/usr/bin/env python3
# requirements: power-grid-model==1.12.110 numpy==2.4.6   (Python >= 3.11)
"""What an independent program says of the published reconfiguration cases.

  verify.py           writes case.json of every case
  verify.py --check   compares case.json with what would be written

Losses are those of power-grid-model (Newton-Raphson, 1e-12). The tree of D4.6 is built here once more, from power-grid-model's meshed
power flow. PUBLISHED has the figures of the literature and the best states it knows; see README.md.
"""

import argparse, csv, json, os, sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np
from power_grid_model import CalculationMethod, PowerGridModel
from power_grid_model.utils import json_deserialize

HERE = Path(__file__).resolve().parent
# rated voltage, V; losses before and after, kW; branches open after
PUBLISHED = {
    "baran-wu-69": (12660, 224.99, 99.62, [14, 58, 61, 69, 70]),
    "su-lee-84": (11400, 531.99, 469.88, [7, 13, 34, 39, 42, 55, 62, 72, 83, 86, 89, 90, 92]),
    "zhang-118": (11000, 1298.09, 869.73, [23, 26, 34, 39, 42, 51, 58, 71, 74, 95, 97, 109, 122, 129, 130]),
    "mantovani-136": (
        13800,
        320.36,
        280.19,
        [7, 35, 51, 90, 96, 106, 118, 126, 135, 137, 138, 141, 142, 144, 145, 146, 147, 148, 150, 151, 155],
    ),
}
NODES, LOADS, SOURCE = 1_000, 2_000, 3_000


def rows(folder, file):
    with open(folder / file, newline="") as f:
        return list(csv.DictReader(f))


def dataset(branches, loads, u_rated, opened):
    nodes = sorted({int(b[end]) for b in branches for end in ("from", "to")})
    data = {
        "node": [{"id": NODES + n, "u_rated": u_rated} for n in nodes],
        "line": [],
        "source": [{"id": SOURCE, "node": NODES + nodes[0], "status": 1, "u_ref": 1.0, "sk": 1e16}],
        "sym_load": [],
    }
    for b in branches:
        closed = int(int(b["branch"]) not in opened)
        line = {"id": int(b["branch"]), "from_node": NODES + int(b["from"]), "to_node": NODES + int(b["to"])}
        line |= {"from_status": closed, "to_status": closed, "r1": float(b["r_ohm"]), "x1": float(b["x_ohm"]), "c1": 0.0, "tan1": 0.0}
        data["line"].append(line)
    for load in loads:
        n = int(load["node"])
        power = {"p_specified": float(load["p_kw"]) * 1e3, "q_specified": float(load["q_kvar"]) * 1e3}
        data["sym_load"].append({"id": LOADS + n, "node": NODES + n, "status": 1, "type": 0} | power)
    return {"version": "1.0", "type": "input", "is_batch": False, "attributes": {}, "data": data}


def solve(case, opened):
    model = PowerGridModel(json_deserialize(json.dumps(dataset(*case, set(opened)))))
    return model.calculate_power_flow(error_tolerance=1e-12, calculation_method=CalculationMethod.newton_raphson)


def losses(case, opened):
    out = solve(case, opened)
    return round(float(np.sum(out["line"]["p_from"]) + np.sum(out["line"]["p_to"])), 3), round(float(np.min(out["node"]["u_pu"])), 8)


def tree_of_d4_6(case):
    """Kruskal on 1/|I| of the meshed grid: the branches that stay open."""
    lines = solve(case, [])["line"]
    current = dict(zip(lines["id"].tolist(), lines["i_from"].tolist()))
    above = {}

    def top(n):
        while above.setdefault(n, n) != n:
            n = above[n]
        return n

    opened = []
    for b in sorted(case[0], key=lambda b: (-current[int(b["branch"])], int(b["branch"]))):
        x, y = top(b["from"]), top(b["to"])
        if x == y:
            opened.append(int(b["branch"]))
        above[x] = y
    return sorted(opened)


def expectation(name):
    u_rated, initial_kw, best_kw, best_open = PUBLISHED[name]
    folder = HERE / name
    case = (rows(folder, "branches.csv"), rows(folder, "loads.csv"), u_rated)
    initial_open = [int(b["branch"]) for b in case[0] if b["closed"] == "0"]
    d4_6_open = tree_of_d4_6(case)
    out = {"u_rated_v": u_rated, "published_initial_kw": initial_kw, "published_best_kw": best_kw}
    for state, opened in (("initial", initial_open), ("d4_6", d4_6_open), ("best", best_open)):
        loss_w, voltage_min_pu = losses(case, opened)
        out[state] = {"open": opened, "loss_w": loss_w, "voltage_min_pu": voltage_min_pu}
    return json.dumps(out, indent=1).replace("\n   ", " ").replace("\n  ]", " ]") + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    args = parser.parse_args()
    problems = []
    for name in PUBLISHED:
        text, path = expectation(name), HERE / name / "case.json"
        if args.check and path.read_text() != text:
            problems.append(f"{path}: differs")
        elif not args.check:
            path.write_text(text)
        found = json.loads(text)
        print(name, *(f"{state} {found[state]['loss_w'] / 1e3:.4f} kW" for state in ("initial", "d4_6", "best")))
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
