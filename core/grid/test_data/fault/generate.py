#!/usr/bin/env python3
# requirements: dss-python==0.15.7 numpy==2.4.6   (Python >= 3.11)
"""Fault records of three feeders, simulated by OpenDSS.

  generate.py            write network.json, lines.csv, records.json and record.json (the first one, as the command line takes it)
                         of each feeder next to this script
  generate.py --check    generate anew and compare: equal networks, phasors within 1e-5

In OpenDSS a line of one phase is a line of one phase, every load is off from what network.json says by a factor between 0.7 and 1.3,
and loads turn into impedances below a voltage of their own between 0.75 and 0.95 p.u.: the locator knows none of this. A record's
fault: one of 11 types, on a line drawn by its length among those that have the phases, 0, 5, 10 or 20 ohm (per phase and again to
ground where several phases meet there; a hundredth of it at low voltage, where 20 ohm is a load), cleared by the lowest fuse, recloser or breaker above it, whose customers
then send a last gasp with a probability of 0.7 each.
"""

import cmath, json, math, random, sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
sys.dont_write_bytecode = True
from feeders import FEEDERS, HEAD
from opendss import OpenDss

TYPES = ["AG", "BG", "CG", "AB", "BC", "CA", "ABG", "BCG", "CAG", "ABC", "ABCG"]
RESISTANCES_OHM = [0.0, 5.0, 10.0, 20.0]
LOW_VOLTAGE_SHARE = 0.01
POSITIONS = 5
FAULT_NODE = 9999
BOLTED_OHM = 1e-6
MODELS = {0: 1, 1: 2, 2: 5}


class Circuit(OpenDss):
    """A feeder, with lines of the phases they have and loads that give way in a sag."""

    def __init__(self, feeder, data, limits):
        self.feeder, self.limits = feeder, limits
        copy = type("Grid", (), {})()
        copy.data, copy.find = data, feeder.find
        super().__init__(copy, {n["id"] for n in data["node"]})

    def line(self, l):
        phases = self.feeder.phases.get(l.get("of", l["id"]), "abc")
        if phases == "abc":
            return super().line(l)
        z1, z0 = complex(l["r1"], l["x1"]), complex(l["r0"], l["x0"])
        own, mutual = (2 * z1 + z0) / 3, (z0 - z1) / 3
        c_own, c_mutual = (2 * l["c1"] + l["c0"]) / 3 * 1e9, (l["c0"] - l["c1"]) / 3 * 1e9
        dots = "".join(f".{'abc'.index(p) + 1}" for p in phases)

        def matrix(a, b):
            return f"[{a!r}]" if len(phases) == 1 else f"[{a!r} | {b!r} {a!r}]"

        self.run(
            f"new line.l{l['id']} phases={len(phases)} bus1=n{l['from_node']}{dots} bus2=n{l['to_node']}{dots} length=1 units=none "
            f"rmatrix={matrix(own.real, mutual.real)} xmatrix={matrix(own.imag, mutual.imag)} cmatrix={matrix(c_own, c_mutual)}"
        )

    def load(self, item, sign):
        u = self.live[item["node"]]
        for k in range(3):
            p, q = item["p_specified"][k], item["q_specified"][k]
            if p or q:
                self.run(
                    f"new load.d{item['id']}_{k} phases=1 bus1=n{item['node']}.{k + 1} kv={u / 1e3 / math.sqrt(3)!r} "
                    f"kw={p / 1e3!r} kvar={q / 1e3!r} model={MODELS[item['type']]} vminpu={self.limits[item['id']]!r} vmaxpu=1.5 status=fixed"
                )

    def fault(self, kind, r, ground):
        """Resistors from each phase to a star point, and from there to ground."""
        phases = [k for k in "ABC" if k in kind]
        bus = f"n{FAULT_NODE}"
        if len(phases) == 2 and "G" not in kind:
            a, b = ("ABC".index(p) + 1 for p in phases)
            return self.run(f"new fault.f phases=1 bus1={bus}.{a} bus2={bus}.{b} r={max(r, BOLTED_OHM)!r}")
        star = 0 if len(phases) == 1 or ground == 0.0 else 4
        for p in phases:
            self.run(f"new fault.f{p} phases=1 bus1={bus}.{'ABC'.index(p) + 1} bus2={bus}.{star} r={max(r, BOLTED_OHM)!r}")
        if star and "G" in kind:
            self.run(f"new fault.fg phases=1 bus1={bus}.4 bus2={bus}.0 r={ground!r}")

    def head(self, line):
        """Voltage and current at the near end of a line."""
        for command in ("set controlmode=off", "set maxiterations=1000", "set tolerance=1e-10", "solve"):
            self.run(command)
        if not self.dss.ActiveCircuit.Solution.Converged:
            raise RuntimeError("OpenDSS did not converge")
        self.run("solve")
        self.dss.ActiveCircuit.SetActiveElement(f"line.l{line}")
        element = self.dss.ActiveCircuit.ActiveCktElement
        values = [list(element.Voltages)[:6], list(element.Currents)[:6]]
        return [[complex(v[2 * k], v[2 * k + 1]) for k in range(3)] for v in values]


def split(data, line, share):
    """The network with a node on a line."""
    item = next(l for l in data["line"] if l["id"] == line)

    def part(id, a, b, share):
        scaled = {k: item[k] * share for k in ("r1", "x1", "c1", "r0", "x0", "c0")}
        return item | scaled | dict(id=id, of=line, from_node=a, to_node=b)

    # the near part keeps the id: it may be the head
    parts = [part(line, item["from_node"], FAULT_NODE, share), part(9000, FAULT_NODE, item["to_node"], 1 - share)]
    u = next(n["u_rated"] for n in data["node"] if n["id"] == item["from_node"])
    lines = [l for l in data["line"] if l["id"] != line] + parts
    return data | dict(line=lines, node=data["node"] + [dict(id=FAULT_NODE, u_rated=u)])


def vary(feeder, draw):
    loads = []
    for item in feeder.data["asym_load"]:
        factor = draw.uniform(0.7, 1.3)
        loads.append(item | {k: [x * factor for x in item[k]] for k in ("p_specified", "q_specified")})
    limits = {item["id"]: round(draw.uniform(0.75, 0.95), 3) for item in loads}
    return feeder.data | dict(asym_load=loads), limits


def gasps(feeder, line, draw):
    """Nodes with loads behind the lowest fuse or recloser above the fault; all of them if that is the feeder's breaker."""
    branches = feeder.data["line"] + feeder.data["transformer"]
    above = {b["to_node"]: b for b in branches}
    at = next(b for b in branches if b["id"] == line)
    while at and at["id"] not in feeder.fuses:
        at = above.get(at["from_node"])
    dark, to_visit = set(), [at["to_node"] if at else HEAD]
    while to_visit:
        node = to_visit.pop()
        dark.add(node)
        to_visit += [b["to_node"] for b in branches if b["from_node"] == node]
    loads = sorted({l["node"] for l in feeder.data["asym_load"]} & dark)
    return [n for n in loads if draw.random() < 0.7]


def phasors(pair):
    def digits(x):
        return float(f"{x:.8g}")

    return [[digits(abs(x)) for x in pair[0]], [digits(cmath.phase(x)) for x in pair[0]],
            [digits(abs(x)) for x in pair[1]], [digits(cmath.phase(x)) for x in pair[1]]]


def as_record(values):
    u, u_angle, i, i_angle = values
    return dict(voltage=dict(magnitude_v=u, angle_rad=u_angle), current=dict(magnitude_a=i, angle_rad=i_angle))


def records(feeder, seed):
    draw = random.Random(seed)
    head = feeder.data["line"][0]["id"]
    for kind in TYPES:
        lines = [l["id"] for l in feeder.data["line"] if {p for p in kind.lower() if p in "abc"} <= set(feeder.phases.get(l["id"], "abc"))]
        for r in RESISTANCES_OHM:
            for _ in range(POSITIONS):
                line = draw.choices(lines, [feeder.length[l] for l in lines])[0]
                share = round(draw.uniform(0.02, 0.98), 3)
                data, limits = vary(feeder, draw)
                low_voltage = feeder.u[next(l["from_node"] for l in feeder.data["line"] if l["id"] == line)] < 1e3
                ohm = r * (LOW_VOLTAGE_SHARE if low_voltage else 1)
                ground = ohm if "G" in kind and len(kind) > 2 else 0.0
                before = Circuit(feeder, data, limits).head(head)
                circuit = Circuit(feeder, split(data, line, share), limits)
                circuit.fault(kind, ohm, ground)
                during = circuit.head(head)
                yield dict(branch=line, share=share, type=kind, resistance_ohm=ohm, ground_resistance_ohm=ground,
                           gasps=gasps(feeder, line, draw), before=phasors(before), during=phasors(during))


def files(name):
    feeder = FEEDERS[name]()
    dataset = dict(version="1.0", type="input", is_batch=False, attributes={}, data={k: v for k, v in feeder.data.items() if v})
    rows = ["branch_id,length_m,phases,device"]
    rows += [f"{l['id']},{feeder.length[l['id']]},{feeder.phases.get(l['id'], '')},{int(l['id'] in feeder.fuses)}" for l in feeder.data["line"]]
    made = list(records(feeder, sum(map(ord, name))))
    lines = ",\n".join(json.dumps(r, separators=(",", ":")) for r in made)
    table = ",\n".join(f'"{k}": [\n' + ",\n".join(json.dumps(i) for i in v) + "\n]" for k, v in dataset.pop("data").items())
    network = json.dumps(dataset)[:-1] + ', "data": {\n' + table + "\n}}\n"
    head = dict(node=HEAD, branch=feeder.data["line"][0]["id"])
    example = dict(head=head, frequency_hz=50, before=as_record(made[0]["before"]), during=as_record(made[0]["during"]))
    return {"record.json": json.dumps(example) + "\n", "network.json": network, "lines.csv": "\n".join(rows) + "\n",
            "records.json": '{"head":' + json.dumps(head) + ',"records":[\n' + lines + "\n]}\n"}


def numbers(value):
    if isinstance(value, dict):
        value = list(value.values())
    return [x for v in value for x in numbers(v)] if isinstance(value, list) else [value]


def main():
    check = sys.argv[1:] == ["--check"]
    for name in FEEDERS:
        folder = HERE / name
        folder.mkdir(exist_ok=True)
        for file, text in files(name).items():
            if not check:
                (folder / file).write_text(text)
                print(f"{name}/{file}: {len(text) / 1e3:.0f} kB")
                continue
            old = (folder / file).read_text()
            if not file.startswith("record"):
                same = old == text
            else:
                pairs = list(zip(numbers(json.loads(old)), numbers(json.loads(text)), strict=True))
                same = all(a == b or abs(a - b) <= 1e-5 * max(1.0, abs(a)) for a, b in pairs)
            if not same:
                sys.exit(f"{name}/{file} differs")
    if check:
        print("all records are as generated")


if __name__ == "__main__":
    main()
