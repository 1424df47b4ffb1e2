#!/usr/bin/env python3
# requirements: power-grid-model==1.12.110 dss-python==0.15.7 numpy==2.4.6   (Python >= 3.11)
# /// script
# requires-python = ">=3.11"
# dependencies = ["power-grid-model==1.12.110", "dss-python==0.15.7", "numpy==2.4.6"]
# ///
"""The golden cases of the grid engine: networks, readings and expected states, written by independent programs.

  generate.py               write every case folder next to this script
  generate.py NAME ...      write the named cases only
  generate.py --check       write every case into a temporary folder and compare it with what is here
  generate.py --list        print the names

The cases are in power_flow_cases.py and estimate_cases.py, how one is written in case.py. The expectations are the Newton-Raphson
results of power-grid-model (PGM) and, for many three-phase power flows, also those of OpenDSS (opendss.py); estimates are confirmed
by, or where PGM is not at the optimum taken from, a dense estimator (wls.py). What PGM means by each number is in notes.md, with
conventions.py as the evidence.

The same versions give the same bytes on one machine: readings come from a SplitMix64 generator and are rounded before use. Another
processor may change the last digits of the expected files, so --check asks for equal bytes in input.json, update*.json and
case.json, and for differences below 1e-9 p.u. in the expected files.
"""

import argparse, json, math, sys, tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True
from case import CASES, build
from wls import S_BASE
import power_flow_cases, estimate_cases  # they fill CASES


def flat_numbers(value):
    if isinstance(value, dict):
        return [x for k, v in value.items() if k != "id" for x in flat_numbers(v)]
    if isinstance(value, list):
        return [x for v in value for x in flat_numbers(v)]
    return [float(value)] if isinstance(value, (int, float)) else []


def compare(name, folder, files):
    """What differs between the files just made and those in the folder."""
    problems = []
    present = {p.name for p in folder.iterdir()} if folder.is_dir() else set()
    if present != set(files):
        problems.append(f"{name}: files differ: {sorted(present ^ set(files))}")
    for file in sorted(present & set(files)):
        old, new = (folder / file).read_text(), files[file]
        if old == new:
            continue
        if not file.startswith(("pf_", "est_")):
            problems.append(f"{name}/{file}: differs")
            continue
        difference = max(
            (abs(x - y) / (S_BASE if key.startswith(("p", "q")) else 1) for key, x, y in paired(json.loads(old), json.loads(new))),
            default=math.inf,
        )
        if difference > 1e-9:
            problems.append(f"{name}/{file}: differs by {difference:.1e} p.u.")
    return problems


def paired(old, new):
    """(attribute, old number, new number) of two output datasets; a number that has no partner is paired with infinity."""
    index = {i["id"]: i for items in new["data"].values() for i in items}
    for items in old["data"].values():
        for item in items:
            for key in item:
                x, y = flat_numbers(item[key]), flat_numbers(index.get(item["id"], {}).get(key, []))
                if len(x) != len(y):
                    yield key, 0.0, math.inf
                yield from ((key, a, b) for a, b in zip(x, y))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--check", action="store_true", help="compare a fresh copy with the folders here, write nothing")
    parser.add_argument("--list", action="store_true")
    args = parser.parse_args()
    unknown = [n for n in args.names if n not in CASES]
    if unknown:
        parser.error(f"no case {', '.join(unknown)}; --list prints the names")
    if args.list:
        return print("\n".join(CASES))
    problems = []
    with tempfile.TemporaryDirectory() as temp:
        for name in args.names or CASES:
            files = build(name).write(Path(temp) if args.check else HERE)
            if args.check:
                problems += compare(name, HERE / name, files)
            else:
                print(f"{name}: {sum(map(len, files.values())) / 1e3:.0f} kB", flush=True)
    if args.check and not args.names:
        own = {"fault", "reconfiguration"}  # written by scripts of their own
        strays = [p.name for p in HERE.iterdir() if p.is_dir() and not p.name.startswith((".", "_")) and p.name not in CASES.keys() | own]
        problems += [f"{s}: no such case in generate.py" for s in strays]
    if problems:
        sys.exit("\n".join(problems))
    if args.check:
        print(f"{len(args.names or CASES)} cases are as generated")


if __name__ == "__main__":
    main()
