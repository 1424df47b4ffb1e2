#!/usr/bin/env python3
# requirements: power-grid-model==1.12.110 dss-python==0.15.7 numpy==2.4.6   (Python >= 3.11)
# /// script
# requires-python = ">=3.11"
# dependencies = ["power-grid-model==1.12.110", "dss-python==0.15.7", "numpy==2.4.6"]
# ///
"""What power-grid-model (PGM) does, checked: the evidence for notes.md, one experiment per statement.

  conventions.py            run every experiment; print what each found, fail if one no longer holds
  conventions.py NAME ...   run the named ones

Component models are checked on every power-flow case of generate.py: a result's flows must equal Y u, with Y from wls.py. Estimates of
every case are compared with wls.py by generate.py itself; here are the things that a whole case does not single out.
"""

import cmath, json, math, sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))
import numpy as np
from power_grid_model import CalculationType, initialize_array
from power_grid_model.errors import PowerGridError
from power_grid_model.utils import json_deserialize, json_serialize
from power_grid_model.validation import ValidationException, validate_input_data
import power_flow_cases, estimate_cases  # they fill CASES
from case import CASES, Case, Grid, build, dataset_text, largest_difference, output_data, pgm_estimate, pgm_power_flow, voltages
from power_flow_cases import MV_CABLE
from wls import *

EXPERIMENTS = {}


def experiment(function):
    EXPERIMENTS[function.__name__] = function
    return function


def expect(what, value, limit=1e-10):
    """value is an error that must not exceed the limit."""
    print(f"  {'ok ' if value <= limit else 'NO '} {what}: {value:.1e}")
    if not value <= limit:
        raise SystemExit(f"{what}: {value:.1e} > {limit:.0e}")


def expect_more(what, value, limit):
    """value is a difference that must be visible: the experiment would prove nothing otherwise."""
    print(f"  {'ok ' if value >= limit else 'NO '} {what}: {value:.1e}")
    if not value >= limit:
        raise SystemExit(f"{what}: {value:.1e} < {limit:.0e}")


def estimated(grid, symmetric):
    return output_data(pgm_estimate(grid, symmetric)[0])


def gap(one, other, symmetric):
    """Largest difference of two networks' estimated voltages."""
    return largest_difference(estimated(one, symmetric), estimated(other, symmetric))


def spelled(symmetric):
    return "symmetric" if symmetric else "three-phase"


def attempt(grid, symmetric):
    try:
        pgm_estimate(grid, symmetric)
    except PowerGridError as error:
        return type(error).__name__
    except ValidationException as error:
        return f"the validator: {str(error).splitlines()[1].strip()}"
    return "estimates"


# ---------------------------------------------------------------- component models


def flow_errors(grid, data, symmetric):
    """Largest difference, in p.u., between a result's flows and the component models' at the result's own voltages. The results are
    rounded to 1e-12 p.u., which a large admittance multiplies; that part is divided out."""
    base = S_BASE if symmetric else S_BASE / 3
    u = voltages(data)
    live = {n["id"] for n in data["node"] if n["energized"]}
    flow = lambda item, end="": np.atleast_1d(item["p" + end]) / base + 1j * np.atleast_1d(item["q" + end]) / base
    worst = {}

    def note(kind, expected, found, y=0.0):
        worst[kind] = max(worst.get(kind, 0.0), float(np.abs(np.asarray(expected) - found).max()) / max(1.0, np.abs(y).max() * 1e-3))

    for kind in SEQUENCES:
        for item, result in zip(grid.data.get(kind, []), data.get(kind, [])):
            ends = item["from_node"], item["to_node"]
            if not any(item[s] and e in live for s, e in zip(("from_status", "to_status"), ends)):
                continue
            y = branch_matrix(grid, kind, item, symmetric)
            for side, end in ((0, "_from"), (1, "_to")):
                note(kind, u[ends[side]] * (y[side, 0] @ u[ends[0]] + y[side, 1] @ u[ends[1]]).conj(), flow(result, end), y)
    for item, result in zip(grid.data.get("shunt", []), data.get("shunt", [])):
        v = u[item["node"]]
        note("shunt", v * (shunt_matrix(grid, item, symmetric) @ v).conj(), flow(result))
    for item, result in zip(grid.data.get("source", []), data.get("source", [])):
        if not item["status"] or item["node"] not in live:
            continue
        v, y = u[item["node"]], source_matrix(item, symmetric)
        e = cmath.rect(item["u_ref"], item.get("u_ref_angle", 0.0)) * (np.ones(1) if symmetric else BALANCED)
        note("source", v * (y @ (e - v)).conj(), flow(result), y if "link" not in grid.data else 1e8)
    for kind in ("sym_load", "asym_load", "sym_gen", "asym_gen"):
        for item, result in zip(grid.data.get(kind, []), data.get(kind, [])):
            v, s = u[item["node"]], np.array(item["p_specified"]) + 1j * np.array(item["q_specified"])
            s = np.atleast_1d(s.sum()) if symmetric else s * np.ones(3) / (1 if s.ndim else 3)
            factor = np.abs(v) ** {CONST_POWER: 0, CONST_IMPEDANCE: 2, CONST_CURRENT: 1}[item["type"]]
            note("load", s / base * factor * (item["status"] * (item["node"] in live)), flow(result))
    return worst


@experiment
def component_models():
    """Lines, links, transformers of all vector groups, shunts, sources and loads follow wls.py's models."""
    worst = {}
    for name in CASES:
        if name.startswith("est_"):
            continue
        c = build(name)
        for check in c.checks:
            if "opendss" in check["expected"]:
                continue
            grid = c.grid.updated(json.loads(c.files[check["update"]])["data"]) if "update" in check else c.grid
            for kind, error in flow_errors(grid, json.loads(c.files[check["expected"]])["data"], check["symmetric"]).items():
                worst[kind] = max(worst.get(kind, 0.0), error)
    for kind, error in worst.items():
        expect(f"{kind}: flows against Y u, p.u.", error, 5e-9)


@experiment
def transformers():
    """(10) Every pair of windings with every clock number it may have, taps, earthing, magnetising, closed and open at either side."""
    worst, count = 0.0, 0
    for w in ((a, b) for a in range(5) for b in range(5)):
        wyes = [x in (WYE, WYE_N) for x in w]
        for clock in (-11, -2, *range(13)):
            if (clock % 2 == 0) != (wyes[0] == wyes[1]):
                continue
            for status in ((1, 1), (1, 0), (0, 1)):
                g = Grid()
                g.nodes(20e3, 1, 4)
                g.nodes(10e3, 2, 3)
                g.source(100, 1, sk=100e6, z01_ratio=2.0, u_ref=1.0)
                g.source(101, 3, sk=90e6, z01_ratio=1.5, u_ref=1.0, u_ref_angle=-clock * math.pi / 6)
                g.transformer(
                    11,
                    4,
                    2,
                    20.5e3,
                    10.4e3,
                    3e6,
                    0.07,
                    30e3,
                    0.02,
                    9e3,
                    w,
                    clock,
                    status,
                    tap_side=TO,
                    tap_pos=2,
                    tap_min=-3,
                    tap_max=3,
                    tap_size=100.0,
                    i0_zero_sequence=0.3,
                    r_grounding_from=1.0,
                    x_grounding_from=3.0,
                    r_grounding_to=0.5,
                    x_grounding_to=0.8,
                )
                g.line(12, 2, 3, MV_CABLE, 2.0)
                g.line(13, 1, 4, MV_CABLE, 1.0)
                g.load(20, 2, [30e3, 60e3, 50e3], [10e3, 9e3, 20e3], CONST_IMPEDANCE)
                g.load(21, 4, [90e3, 20e3, 40e3], [10e3, 9e3, 20e3], CONST_IMPEDANCE)
                for symmetric in (True, False):
                    errors = flow_errors(g, output_data(pgm_power_flow(g, symmetric)[0]), symmetric)
                    worst, count = max(worst, errors["transformer"]), count + 1
    expect(f"{count} flows of transformers against Y u, p.u.", worst, 5e-9)


@experiment
def link_admittance():
    """A link is (1 + j) 1e8 p.u. of 1 MVA, at any rated voltage."""
    for u_rated in (400.0, 10e3, 110e3):
        g = Grid()
        g.nodes(u_rated, 1, 2)
        g.link(3, 1, 2)
        g.load(4, 2, 1e8, 3e7)
        g.source(5, 1, sk=1e12)
        result = pgm_power_flow(g, True)[0]
        u = result["node"]["u_pu"] * np.exp(1j * result["node"]["u_angle"])
        link = result["link"][0]
        y = np.conj((link["p_from"] + 1j * link["q_from"]) / S_BASE / u[0]) / (u[0] - u[1])
        expect(f"relative error at {u_rated:g} V", abs(y / (1e8 * (1 + 1j)) - 1), 1e-6)


@experiment
def defaults():
    """An attribute left out of the JSON equals its default."""

    def network(**more):
        g = Grid()
        g.nodes(10e3, 1, 2)
        g.nodes(400.0, 3)
        g.line(10, 1, 2, MV_CABLE, 5.0)
        g.distribution_transformer(11, 2, 3, windings=(WYE_N, WYE_N), clock=0, i0=0.02, p0=900.0, tap_size=250.0, tap_min=-3, tap_max=3)
        g.load(20, 3, [60e3, 90e3, 30e3], [20e3, 30e3, 10e3])
        g.source(100, 1, u_ref=1.0)
        t, s = g.find(11)[1], g.find(100)[1]
        for key in ("tap_pos", "tap_nom"):
            t.pop(key)
        for key, value in more.items():
            (s if key in ("sk", "rx_ratio", "z01_ratio", "u_ref_angle") else t)[key] = value
        return g

    plain = output_data(pgm_power_flow(network(), False)[0])
    for key, default, other in (
        ("sk", 1e10, 1e8),
        ("rx_ratio", 0.1, 0.5),
        ("z01_ratio", 1.0, 3.0),
        ("u_ref_angle", 0.0, 0.1),
        ("tap_pos", 0, 1),
        ("i0_zero_sequence", 0.02, 0.6),
        ("p0_zero_sequence", 900.0, 4e3),
        ("r_grounding_from", 0.0, 1.0),
        ("x_grounding_from", 0.0, 1.0),
        ("r_grounding_to", 0.0, 0.01),
        ("x_grounding_to", 0.0, 0.01),
    ):
        expect(f"{key} = {default}", largest_difference(plain, output_data(pgm_power_flow(network(**{key: default}), False)[0])))
        expect_more(
            f"{key} = {other} makes a difference",
            largest_difference(plain, output_data(pgm_power_flow(network(**{key: other}), False)[0])),
            1e-9,
        )
    one = output_data(pgm_power_flow(network(i0_zero_sequence=0.4), False)[0])
    two = output_data(pgm_power_flow(network(i0_zero_sequence=0.4, p0_zero_sequence=900.0 + 4.6e3 * (0.4**2 - 0.02**2)), False)[0])
    expect("p0_zero_sequence = p0 + pk (i0_zero_sequence² - i0²)", largest_difference(one, two))
    tapped_ = lambda **more: output_data(pgm_power_flow(network(tap_pos=2, **more), False)[0])
    expect(
        "uk_min = uk_max = uk, pk_min = pk_max = pk",
        largest_difference(tapped_(), tapped_(uk_min=0.04, uk_max=0.04, pk_min=4.6e3, pk_max=4.6e3)),
    )
    expect("tap_nom = 0", largest_difference(tapped_(), tapped_(tap_nom=0)))
    expect_more("tap_nom = 1 makes a difference", largest_difference(tapped_(), tapped_(tap_nom=1)), 1e-9)
    expect(
        "tap_nom given, tap_pos not: the nominal one",
        largest_difference(
            output_data(pgm_power_flow(network(tap_nom=2), False)[0]), output_data(pgm_power_flow(network(tap_nom=2, tap_pos=2), False)[0])
        ),
    )


@experiment
def required_attributes():
    """Which attributes the validator wants. (Without the validator PGM calculates with NaN or with whatever the missing integer means.)"""
    g = Grid()
    g.nodes(10e3, 1, 2)
    g.node(3, 400.0)
    g.line(10, 1, 2, MV_CABLE, 5.0)
    g.distribution_transformer(11, 2, 3)
    g.load(20, 3, 60e3, 20e3)
    g.shunt(30, 2, 0.0, 1e-4, 0.0, 1e-4)
    g.source(100, 1, u_ref=1.0)
    for kind, items in g.data.items():
        needed, free = [], []
        for key in [k for k in items[0] if k != "id"]:
            without = Grid()
            without.data = {k: [dict(i) for i in v] for k, v in g.data.items()}
            del without.data[kind][0][key]
            errors = validate_input_data(
                json_deserialize(dataset_text("input", without.data)), symmetric=False, calculation_type=CalculationType.power_flow
            )
            (needed if errors else free).append(key)
        print(f"  {kind}: required {', '.join(needed) or '-'}; optional {', '.join(free) or '-'}")


@experiment
def dead_islands():
    """Nodes without a source: energized 0, every number 0; attributes that are NaN are left out of PGM's own JSON."""
    c = build("islands")
    result = pgm_power_flow(c.grid, False)[0]
    dead = [n for n in result["node"] if not n["energized"]]
    expect_more("dead nodes", len(dead), 3)
    expect("their u_pu and u_angle", float(max(np.abs(n[k]).max() for n in dead for k in ("u_pu", "u_angle"))), 0.0)
    expect("their loads' p and q", float(max(np.abs(l[k]).max() for l in result["asym_load"] if l["id"] == 23 for k in ("p", "q"))), 0.0)
    line = [l for l in result["line"] if l["id"] in (11, 13)]
    print(f"  energized: line 11, open towards the dead node: {line[0]['energized']}; line 13, between dead nodes: {line[1]['energized']}")
    text = json_serialize(result, dataset_type="asym_output")
    expect("the word NaN in PGM's JSON", float("nan" in text.lower()), 0.0)


# ---------------------------------------------------------------- sensors


def measured_feeder(unbalanced=True):
    """Four nodes, loads at 3 and 4, node 2 a joint; voltages read at 1 and 4. Give power sensors before estimating."""
    c = Case("measured_feeder", "")
    g = c.grid
    g.nodes(10e3, 1, 2, 3, 4)
    for id, ends, km in ((11, (1, 2), 2.0), (12, (2, 3), 3.0), (13, (2, 4), 1.5)):
        g.line(id, *ends, MV_CABLE, km)
    g.load(21, 3, [400e3, 300e3, 150e3] if unbalanced else [250e3] * 3, [100e3, 150e3, 50e3] if unbalanced else [80e3] * 3)
    g.load(22, 4, [200e3, 100e3, 450e3] if unbalanced else [250e3] * 3, [10e3, 80e3, 90e3] if unbalanced else [70e3] * 3)
    g.source(100, 1, u_ref=1.02, sk=100e6)
    c.voltage(501, 1, 0.003, "asym")
    c.voltage(502, 4, 0.004, "asym")
    return c


def with_sensor(c, id, **changes):
    """The case's network with one sensor changed; a value of None removes the attribute."""
    g = c.grid.updated({})
    item = g.find(id)[1]
    for key, value in changes.items():
        if value is None:
            item.pop(key, None)
        else:
            item[key] = value
    return g


@experiment
def sigmas():
    """(1) power_sigma alone is shared by P and Q as power_sigma / √2; p_sigma and q_sigma together override it."""
    for kind, scale in (("sym", 1), ("asym", [1.0, 1.0, 1.0])):
        c = measured_feeder()
        for id, object, terminal, sigma in ((511, 100, SOURCE, 30e3), (512, 21, LOAD, 20e3), (513, 22, LOAD, 45e3)):
            c.power(id, object, terminal, sigma, kind)
        part = np.array(scale) * 20e3 / math.sqrt(2)
        part = part.tolist()
        split = with_sensor(c, 512, power_sigma=None, p_sigma=part, q_sigma=part)
        full = with_sensor(
            c, 512, power_sigma=None, p_sigma=(np.array(part) * math.sqrt(2)).tolist(), q_sigma=(np.array(part) * math.sqrt(2)).tolist()
        )
        all_three = with_sensor(c, 512, power_sigma=1.0, p_sigma=part, q_sigma=part)
        for symmetric in (True, False):
            label = f"{kind} sensor, {spelled(symmetric)} calculation"
            expect(f"{label}: p_sigma = q_sigma = power_sigma / √2 is the same", gap(c.grid, split, symmetric))
            expect(f"{label}: power_sigma beside them is ignored", gap(split, all_three, symmetric))
            expect_more(f"{label}: p_sigma = q_sigma = power_sigma is not the same", gap(c.grid, full, symmetric), 1e-7)
    for given in ({"p_sigma": 1e3}, {"q_sigma": 1e3}, {"power_sigma": 1e3, "p_sigma": 1e3}, {}):
        g = with_sensor(c, 512, power_sigma=None)
        g.find(512)[1].update({k: [v] * 3 if k != "power_sigma" else v for k, v in given.items()})
        data = json_deserialize(dataset_text("input", g.data))
        both = {k: initialize_array("input", k, 0) for k in ("sym_voltage_sensor",)}
        errors = validate_input_data(both | data, symmetric=False, calculation_type=CalculationType.state_estimation)
        print(f"  given {sorted(given) or 'nothing'}: the validator {'refuses' if errors else 'accepts'}")


@experiment
def symmetric_and_per_phase():
    """(2) A symmetric reading in a three-phase calculation, and readings per phase in a symmetric one."""
    root3 = math.sqrt(3)
    c = measured_feeder(unbalanced=False)
    for id, object, terminal, sigma in ((511, 100, SOURCE, 30e3), (512, 21, LOAD, 20e3), (513, 22, LOAD, 45e3)):
        c.power(id, object, terminal, sigma, "sym")
    c.voltage(503, 3, 0.004)
    phases = c.grid.updated({})
    s = phases.find(512)[1]
    phases.data["sym_power_sensor"].remove(s)
    phases.add(
        "asym_power_sensor",
        512,
        measured_object=21,
        measured_terminal_type=LOAD,
        power_sigma=s["power_sigma"] / 3,
        p_measured=[s["p_measured"] / 3] * 3,
        q_measured=[s["q_measured"] / 3] * 3,
    )
    v = phases.find(503)[1]
    phases.data["sym_voltage_sensor"].remove(v)
    phases.add("asym_voltage_sensor", 503, measured_object=3, u_sigma=v["u_sigma"] / root3, u_measured=[v["u_measured"] / root3] * 3)
    expect(
        "three-phase: a symmetric P, Q, sigma is P/3, Q/3, sigma/3 in each phase, U, sigma is U/√3, sigma/√3",
        gap(c.grid, phases, False),
    )

    c = measured_feeder()
    for id, object, terminal, sigma in ((511, 100, SOURCE, 30e3), (512, 21, LOAD, 20e3), (513, 22, LOAD, 45e3)):
        c.power(id, object, terminal, sigma, "asym", q_sigma=2 * sigma)
    c.grid.find(512)[1].update(p_sigma=[20e3, 5e3, 9e3], q_sigma=[7e3, 9e3, 30e3])
    total = c.grid.updated({})
    s = total.find(512)[1]
    total.data["asym_power_sensor"].remove(s)
    three = lambda x: 3 * math.sqrt(sum(v * v for v in x) / 3)
    total.add(
        "sym_power_sensor",
        512,
        measured_object=21,
        measured_terminal_type=LOAD,
        p_measured=sum(s["p_measured"]),
        q_measured=sum(s["q_measured"]),
        p_sigma=three(s["p_sigma"]),
        q_sigma=three(s["q_sigma"]),
    )
    v = total.find(502)[1]
    total.data["asym_voltage_sensor"].remove(v)
    total.add("sym_voltage_sensor", 502, measured_object=4, u_sigma=v["u_sigma"] * root3, u_measured=sum(v["u_measured"]) / root3)
    expect(
        "symmetric: P of three phases is their sum with sigma 3 x their root mean square, U is √3 x the mean with √3 sigma",
        gap(c.grid, total, True),
    )
    independent = with_sensor(type("C", (), {"grid": total}), 512, p_sigma=three(s["p_sigma"]) / root3, q_sigma=three(s["q_sigma"]) / root3)
    expect_more("  (not the root of the sum of squares)", gap(c.grid, independent, True), 1e-7)

    angles = measured_feeder()
    angles.voltage(503, 3, 0.002, "asym", angle_sigma=0.002)
    angles.power(512, 21, LOAD, 20e3, "asym")
    angles.power(513, 22, LOAD, 20e3, "asym")
    s = angles.grid.find(503)[1]
    positive = (np.array(s["u_measured"]) * np.exp(1j * np.array(s["u_angle_measured"])) * BALANCED.conj()).mean() * root3
    total = angles.grid.updated({})
    total.data["asym_voltage_sensor"].remove(total.find(503)[1])
    total.add(
        "sym_voltage_sensor",
        503,
        measured_object=3,
        u_sigma=s["u_sigma"] * root3,
        u_measured=abs(positive),
        u_angle_measured=cmath.phase(positive),
    )
    expect("symmetric: with angles, the positive sequence of the three phasors", gap(angles.grid, total, True))


@experiment
def directions():
    """(3) Exact readings in the stated directions give back the true state: every residual is zero."""
    read = build("est_flow_sensors").grid
    c = Case("directions", "")
    c.noisy = lambda values, sigma, digits=7: [float(v) for v in values]
    c.grid = read.without_sensors().updated({})
    for kind in ("asym_load", "asym_gen"):
        for item in c.grid.data[kind]:
            item.update({k: [sum(item[k]) / 3] * 3 for k in ("p_specified", "q_specified")})
    truth = {True: output_data(pgm_power_flow(c.grid, True)[0]), False: output_data(pgm_power_flow(c.grid, False)[0])}
    for s in read.data["asym_voltage_sensor"]:
        c.voltage(s["id"], s["measured_object"], 0.003, "asym")
    for s in read.data["asym_power_sensor"]:
        c.power(s["id"], s["measured_object"], s["measured_terminal_type"], s["power_sigma"], "asym")
    for symmetric in (True, False):
        one, two = (voltages(d) for d in (truth[symmetric], estimated(c.grid, symmetric)))
        turn = np.exp(1j * (np.angle(one[1][0]) - np.angle(two[1][0])))
        expect(
            f"{spelled(symmetric)}: true voltages from exact readings at every kind of terminal",
            max(float(np.abs(one[n] - two[n] * turn).max()) for n in one),
            1e-9,
        )
    result = pgm_estimate(c.grid, True)[0]
    expect("largest residual, W", float(np.abs(result["asym_power_sensor"]["p_residual"]).max()), 1e-2)
    flow = pgm_power_flow(c.grid, True)[0]
    signs = {k: float(np.sign(flow[k]["p"].sum())) for k in ("source", "sym_gen", "asym_load", "shunt")}
    print(
        "  sign of p where power flows as usual:",
        signs,
        "node 5, which consumes:",
        float(np.sign(flow["node"]["p"][list(flow["node"]["id"]).index(5)])),
    )


@experiment
def angle_reference():
    """(4) Without a measured angle: 0 rad at the node of the first source in the data, phase a; u_ref_angle says nothing."""

    def chain(sources, symmetric):
        c = Case("chain", "")
        g = c.grid
        g.nodes(10e3, 4, 2, 3, 1)
        for id, ends in ((11, (1, 2)), (12, (2, 3)), (13, (3, 4))):
            g.line(id, *ends, MV_CABLE, 2.0)
        for id, node in ((21, 2), (22, 3)):
            g.load(id, node, [400e3, 300e3, 150e3], [100e3, 150e3, 50e3])
        for id, node, angle in sources:
            g.source(id, node, u_ref=1.0, u_ref_angle=angle, sk=100e6)
        for k, node in enumerate((1, 2, 4)):
            c.voltage(501 + k, node, 0.004, "asym")
        for id, object, terminal in ((511, 21, LOAD), (512, 22, LOAD), (513, sources[0][0], SOURCE)):
            c.power(id, object, terminal, 12e3, "asym")
        return {n["id"]: np.atleast_1d(n["u_angle"])[0] for n in estimated(g, symmetric)["node"]}

    for symmetric in (True, False):
        for label, sources, node in (
            ("source 100 at node 1, then 101 at node 4", ((100, 1, 0.3), (101, 4, 0.31)), 1),
            ("101 at node 4 first, then 100 at node 1", ((101, 4, 0.31), (100, 1, 0.3)), 4),
            ("one source at node 3", ((100, 3, 0.2),), 3),
        ):
            expect(f"{spelled(symmetric)}, {label}: angle at node {node}", abs(chain(sources, symmetric)[node]), 1e-12)


@experiment
def phase_angles_of_the_reference():
    """(4) Three-phase, without a measured angle: the reference node's three angles count as readings of 0, -120, +120 degrees whose
    standard deviation (rad) is that of its voltage sensor (p.u.); with measured angles, each has its own sensor's."""
    c = measured_feeder()
    for id, object, terminal in ((512, 21, LOAD), (513, 22, LOAD)):
        c.power(id, object, terminal, 9e3, "asym")
    read = with_sensor(c, 501, u_angle_measured=[0.0, -2 * math.pi / 3, 2 * math.pi / 3])
    a, b = voltages(estimated(c.grid, False)), voltages(estimated(read, False))
    turn = np.exp(-1j * np.angle(b[1][0]))
    expect("reading those angles changes nothing but the common angle", max(float(np.abs(a[n] - b[n] * turn).max()) for n in a))
    expect_more("phase b at the reference, off -120 degrees", abs(float(np.angle(a[1][1] / a[1][0])) + 2 * math.pi / 3), 1e-7)


@experiment
def reference_without_voltage_sensor():
    """(4) Without a voltage sensor at the reference node, the angles of the one node that has one count as read; a source that is off
    is no reference; the estimate needs no u_ref and takes no notice of it."""
    c = measured_feeder()
    for id, object, terminal in ((511, 100, SOURCE), (512, 21, LOAD), (513, 22, LOAD)):
        c.power(id, object, terminal, 9e3, "asym")
    other = c.grid.updated({})
    del other.data["asym_voltage_sensor"][0]
    for symmetric in (True, False):
        data = estimated(other, symmetric)
        expect(
            f"{spelled(symmetric)}: voltage read at node 4 only, against wls.py", largest_difference(data, estimate(other, symmetric)[0])
        )
        expect(f"{spelled(symmetric)}: angle at node 1", abs(float(np.atleast_1d(data["node"][0]["u_angle"])[0])), 1e-12)
    two = c.grid.updated({})
    two.data["source"].insert(0, {"id": 99, "node": 3, "status": 0, "u_ref": 1.0})
    expect("a source that is off, first in the data", gap(c.grid, two, False))
    moved = c.grid.updated({"source": [{"id": 100, "u_ref": 0.9, "u_ref_angle": 0.4, "sk": 1e6}]})
    expect("another u_ref, u_ref_angle and sk", gap(c.grid, moved, False))
    del moved.data["source"][0]["u_ref"]
    expect("no u_ref at all", gap(c.grid, moved, False))


@experiment
def several_sensors():
    """(6) Sensors on one quantity combine to a weighted mean with weight 1 / variance; a node's appliances add up."""
    c = measured_feeder()
    c.power(511, 100, SOURCE, 30e3, "asym")
    c.power(513, 22, LOAD, 45e3, "asym")
    for id, sigma in ((521, 20e3), (522, 12e3)):
        c.power(id, 21, LOAD, sigma, "asym")
    one, two = c.grid.find(521)[1], c.grid.find(522)[1]
    w = [1 / s["power_sigma"] ** 2 for s in (one, two)]
    mean = lambda key: [(w[0] * a + w[1] * b) / sum(w) for a, b in zip(one[key], two[key])]
    merged = c.grid.updated({})
    merged.data["asym_power_sensor"] = [s for s in merged.data["asym_power_sensor"] if s["id"] not in (521, 522)]
    merged.add(
        "asym_power_sensor",
        521,
        measured_object=21,
        measured_terminal_type=LOAD,
        power_sigma=sum(w) ** -0.5,
        p_measured=mean("p_measured"),
        q_measured=mean("q_measured"),
    )
    for symmetric in (True, False):
        expect(
            f"two sensors on a load are one with the weighted mean ({spelled(symmetric)})",
            gap(c.grid, merged, symmetric),
        )

    c = measured_feeder()
    c.grid.load(23, 3, 120e3, 40e3)
    c.grid.gen(31, 3, 60e3, 0.0)
    c.truth = None
    c.power(511, 100, SOURCE, 30e3)
    c.power(513, 22, LOAD, 45e3)
    c.power(521, 21, LOAD, 20e3)
    other = with_sensor(c, 521, p_measured=1e5, q_measured=-5e4)
    expect("node 3: one load read, one load and one generator not: the reading does not move the state", gap(c.grid, other, True))
    result = estimated(c.grid, True)
    by_id = {i["id"]: i for k in ("sym_load", "asym_load", "sym_gen") for i in result[k]}
    node = -by_id[21]["p"] - by_id[23]["p"] + by_id[31]["p"]
    flow = next(l for l in result["line"] if l["id"] == 12)["p_to"]
    expect("  the read load is given its reading, W", abs(by_id[21]["p"] - c.grid.find(521)[1]["p_measured"]), 1e-3)
    expect("  the rest is shared equally by the two others, as injections, W", abs(by_id[23]["p"] + by_id[31]["p"]), 1e-3)
    expect("  their sum is the node's injection, W", abs(node - flow), 1e-2)

    c.power(522, 23, LOAD, 10e3)
    c.power(523, 31, GENERATOR, 40e3)
    result = estimated(c.grid, True)
    by_id = {i["id"]: i for k in ("sym_load", "asym_load", "sym_gen") for i in result[k]}
    moved = {id: by_id[id]["p"] - c.grid.find(s)[1]["p_measured"] for id, s in ((21, 521), (23, 522), (31, 523))}
    share = [moved[21] / 20e3**2, moved[23] / 10e3**2, -moved[31] / 40e3**2]
    expect(
        "all read: the node's residual is shared in proportion to the variances (relative)",
        float(np.ptp(share) / abs(np.mean(share))),
        1e-5,
    )

    c.power(531, 3, NODE, 15e3)
    direct = c.grid.find(531)[1]
    total = [sum(c.grid.find(s)[1][f"{x}_measured"] * sign for s, sign in ((521, -1), (522, -1), (523, 1))) for x in "pq"]
    variances = 20e3**2 + 10e3**2 + 40e3**2, 15e3**2
    w = [1 / v for v in variances]
    merged = with_sensor(
        c,
        531,
        power_sigma=sum(w) ** -0.5,
        **{f"{x}_measured": (w[0] * t + w[1] * direct[f"{x}_measured"]) / sum(w) for x, t in zip("pq", total)},
    )
    merged.data["sym_power_sensor"] = [s for s in merged.data["sym_power_sensor"] if s["id"] not in (521, 522, 523)]
    expect("a node's sensor beside all its appliances': the weighted mean of it and their sum (variances added)", gap(c.grid, merged, True))
    result = estimated(c.grid, True)
    by_id = {i["id"]: i for k in ("sym_load", "asym_load", "sym_gen") for i in result[k]}
    flow = next(l for l in result["line"] if l["id"] == 12)["p_to"]
    expect("  the appliances still add up to the node's injection, W", abs(-by_id[21]["p"] - by_id[23]["p"] + by_id[31]["p"] - flow), 1e-2)


@experiment
def current_sensors():
    """(7) Magnitude and angle are turned into a real and an imaginary part with second-order variances. Phase-decoupled lines (zero equal
    to positive sequence) keep the defect of flow sensors out of the three-phase checks."""

    def feeder(kind, angle_type, symmetric, angle_sigma):
        c = measured_feeder()
        for l in c.grid.data["line"]:
            l.update(r0=l["r1"], x0=l["x1"], c0=l["c1"], tan0=l["tan1"])
        c.grid.find(501)[1].update(c.grid.data["asym_voltage_sensor"].pop(0))
        c.voltage(503, 1, 0.003, "asym", angle_sigma=0.003 if angle_type == GLOBAL_ANGLE else None)
        c.power(512, 21, LOAD, 20e3, "asym")
        c.current(531, 11, BRANCH_FROM, 1.5, angle_sigma, angle_type, kind)
        c.current(532, 13, BRANCH_TO, 0.8, angle_sigma, angle_type, kind)
        return c.grid

    names = {LOCAL_ANGLE: "local", GLOBAL_ANGLE: "global"}
    for kind, angle_type, symmetric in (
        ("sym", LOCAL_ANGLE, True),
        ("sym", GLOBAL_ANGLE, True),
        ("sym", GLOBAL_ANGLE, False),
        ("asym", GLOBAL_ANGLE, True),
        ("asym", LOCAL_ANGLE, False),
        ("asym", GLOBAL_ANGLE, False),
    ):
        for angle_sigma in (0.01, 0.08):
            g = feeder(kind, angle_type, symmetric, angle_sigma)
            data = estimated(g, symmetric)
            expect(
                f"{kind} sensor, {names[angle_type]} angle, {spelled(symmetric)} calculation, sigma {angle_sigma} rad",
                largest_difference(data, estimate(g, symmetric)[0]),
            )
    for kind, symmetric in (("sym", False), ("asym", True)):
        g = feeder(kind, LOCAL_ANGLE, symmetric, 0.02)
        outcome = attempt(g, symmetric)
        if outcome == "estimates":
            outcome = f"differs by {largest_difference(estimated(g, symmetric), estimate(g, symmetric)[0]):.1e} p.u."
        print(f"  defect: {kind} sensor, local angle, {spelled(symmetric)} calculation: {outcome}")


# ---------------------------------------------------------------- defects and refusals


class Untransposed(Estimator):
    """What PGM's three-phase Newton-Raphson does with flow sensors: of F' W F, each 3 x 3 block of F' is left untransposed."""

    def weighted(self, h, w):
        out = h.T * w
        for m, (name, *_) in enumerate(self.measurements):
            if name == "injection":
                continue
            for row in (6 * m, 6 * m + 3):
                block = (w[row : row + 3, None] * h[row : row + 3]).reshape(3, -1, 3)
                out[:, row : row + 3] = block.transpose(1, 0, 2).reshape(-1, 3)
        return out


@experiment
def defect_flow_sensors():
    """PGM's three-phase Newton-Raphson is not at the optimum with flow sensors: it equals the untransposed equations, not the true ones."""
    for name in ("est_loop", "est_sigmas", "est_two_sources", "est_transformer_flows", "est_current_sensors_global"):
        grid = build(name).grid
        pgm = estimated(grid, False)
        true, best, theirs = estimate(grid, False, voltages(pgm))
        expect_more(f"{name}: PGM against the optimum, p.u.", largest_difference(pgm, true), 1e-6)
        expect_more(f"{name}: sum of squared weighted residuals, PGM less the optimum", theirs - best, 1e-4)
        expect(
            f"{name}: PGM against the untransposed equations, p.u.",
            largest_difference(pgm, estimate(grid, False, None, Untransposed)[0]),
            1e-8,
        )
    grid = build("est_loop").grid
    for l in grid.data["line"]:
        l.update(r0=l["r1"], x0=l["x1"], c0=l["c1"], tan0=l["tan1"])
    expect(
        "est_loop with decoupled phases: PGM against the optimum, p.u.",
        largest_difference(estimated(grid, False), estimate(grid, False)[0]),
    )


@experiment
def refusals():
    """What PGM's estimator (Newton-Raphson) refuses or fails on."""

    def feeder(link_at, voltage_nodes):
        c = Case("links", "")
        g = c.grid
        g.nodes(10e3, 1, 2, 3, 4)
        for id, ends in ((11, (1, 2)), (12, (2, 3)), (13, (3, 4))):
            if ends == link_at:
                g.link(id, *ends)
            else:
                g.line(id, *ends, MV_CABLE, 2.0)
        for id, node in ((31, 4), (32, 3)):
            g.load(id, node, 250e3, 80e3)
        g.source(100, 1, u_ref=1.02, sk=150e6)
        for k, node in enumerate(voltage_nodes):
            c.voltage(501 + k, node, 0.003)
        for id, object, terminal in ((511, 100, SOURCE), (512, 31, LOAD), (513, 32, LOAD)):
            c.power(id, object, terminal, 9e3)
        return g

    for link_at, nodes in (
        ((3, 4), (1,)),
        ((3, 4), (1, 2)),
        ((3, 4), (1, 4)),
        ((1, 2), (1,)),
        ((1, 2), (1, 2)),
        ((1, 2), (3,)),
        ((1, 2), (4,)),
    ):
        print(
            f"  link {link_at[0]}-{link_at[1]}, voltage at {nodes}: symmetric {attempt(feeder(link_at, nodes), True)}, "
            f"three-phase {attempt(feeder(link_at, nodes), False)}"
        )
    c = measured_feeder()
    c.power(511, 21, LOAD, 9e3)
    print(f"  one of two loads not read, source not read: {attempt(c.grid, True)}, {attempt(c.grid, False)}")
    c.power(512, 22, LOAD, 9e3)
    del c.grid.data["asym_voltage_sensor"]
    print(f"  no voltage sensor at all: {attempt(c.grid, True)}")
    c.voltage(501, 1, 0.003)
    c.current(531, 11, BRANCH_FROM, 1.0, 0.02, GLOBAL_ANGLE)
    print(f"  global current angle without a voltage angle: {attempt(c.grid, True)}")
    c.voltage(502, 2, 0.003, angle_sigma=0.003)
    c.power(513, 11, BRANCH_FROM, 9e3)
    print(f"  a power and a current sensor on one terminal: {attempt(c.grid, True)}")
    g = build("est_links").grid
    g.add("sym_power_sensor", 599, measured_object=21, measured_terminal_type=BRANCH_FROM, power_sigma=1e3, p_measured=0.0, q_measured=0.0)
    print(f"  a power sensor on a link: {attempt(g, True)}")


def main():
    names = sys.argv[1:] or list(EXPERIMENTS)
    unknown = [n for n in names if n not in EXPERIMENTS]
    if unknown:
        sys.exit(f"no experiment {', '.join(unknown)}; there are {', '.join(EXPERIMENTS)}")
    for name in names:
        print(f"{name}: {' '.join(EXPERIMENTS[name].__doc__.split())}")
        EXPERIMENTS[name]()


if __name__ == "__main__":
    main()
