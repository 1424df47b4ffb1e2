#!/usr/bin/env python3
# requirements: power-grid-model==1.12.110 dss-python==0.15.7 numpy==2.4.6   (Python >= 3.11)
# /// script
# requires-python = ">=3.11"
# dependencies = ["power-grid-model==1.12.110", "dss-python==0.15.7", "numpy==2.4.6"]
# ///
"""What power-grid-model does, said in numpy and checked against it: the evidence for notes.md.

  conventions.py            check every convention on every case of generate.py; print one line each
  conventions.py NAME ...   the named cases only

Three parts, none of which shares a formula with power-grid-model's source:
  1. component models: admittances in p.u. of every branch and shunt; a power flow's flows must equal Y u;
  2. an estimator: dense Gauss-Newton with exact constraints on the same readings and the stated standard deviations; its voltages
     must equal power-grid-model's newton_raphson estimate;
  3. single experiments for what no case shows.
"""
import cmath, math, sys
from pathlib import Path
sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))
import numpy as np
import generate as cases
from generate import DELTA, FROM, FREQUENCY, S_BASE, TO, WYE_N, ZIGZAG_N, Grid

OMEGA = 2 * math.pi * FREQUENCY
TURN = cmath.rect(1, 2 * math.pi / 3)
FORTESCUE = np.array([[1, 1, 1], [1, TURN ** 2, TURN], [1, TURN, TURN ** 2]])  # phases from zero, positive, negative sequence
BALANCED = np.array([1, TURN ** 2, TURN])


# ---------------------------------------------------------------- 1. component models

def phases(zero, positive, negative=None):
    """The 3 x 3 matrix of three sequence admittances."""
    negative = positive if negative is None else negative
    return FORTESCUE @ np.diag([zero, positive, negative]) @ np.linalg.inv(FORTESCUE)


def pi_model(series, shunt, ratio=1.0):
    """[[ff, ft], [tf, tt]] of a pi model whose ideal transformer u_from = ratio * u_to sits at the from side."""
    ratio = complex(ratio)
    own = series + shunt / 2
    return np.array([[own / abs(ratio) ** 2, -series / ratio.conjugate()], [-series / ratio, own]])


def opened(y, status):
    """The branch with one end open: its current is zero, and the other end sees what is left."""
    (ff, ft), (tf, tt) = y
    if status == (1, 1): return y
    if status == (1, 0): return np.array([[ff - ft * tf / tt if tt != 0 else ff, 0], [0, 0]])
    if status == (0, 1): return np.array([[0, 0], [0, tt - tf * ft / ff if ff != 0 else tt]])
    return np.zeros((2, 2), complex)


def line_sequences(grid, line):
    y_base = S_BASE / grid.find(line["from_node"])[1]["u_rated"] ** 2
    for s in "1", "0":
        series = 1 / complex(line["r" + s], line["x" + s]) / y_base
        shunt = OMEGA * line["c" + s] * complex(line["tan" + s], 1) / y_base
        yield opened(pi_model(series, shunt), (line["from_status"], line["to_status"]))


def link_sequences(grid, link):
    status = (link["from_status"], link["to_status"])
    y = pi_model(1e8 * (1 + 1j), 0) if status == (1, 1) else np.zeros((2, 2), complex)
    return y, y


def transformer_sequences(grid, t):
    """Positive, zero and negative sequence. The zero sequence exists per side: through to the other side (YNyn), to earth through the
    leakage impedance where the other winding is a delta (YNd, Dyn) or the winding is a zigzag, to earth through the magnetising branch otherwise."""
    u_from, u_to = (grid.find(t[k])[1]["u_rated"] for k in ("from_node", "to_node"))
    (u1, u2), uk, pk = cases.OpenDss.tapped(t)
    status = (t["from_status"], t["to_status"])
    sn, k = t["sn"], (u1 / u2) / (u_from / u_to)
    z_base = u_to ** 2 / S_BASE

    r = pk * u2 ** 2 / sn ** 2
    z = complex(r, math.sqrt((uk * u2 ** 2 / sn) ** 2 - r ** 2)) / z_base

    def magnetising(i0, p0):
        g, y = p0 / u2 ** 2, i0 * sn / u2 ** 2
        return complex(g, -math.sqrt(max(y * y - g * g, 0))) * z_base

    shunt = magnetising(t["i0"], t["p0"])
    clock = t["clock"] % 12
    positive, negative = (opened(pi_model(1 / z, shunt, k * cmath.rect(1, sign * clock * math.pi / 6)), status) for sign in (1, -1))

    i00 = t.get("i0_zero_sequence", t["i0"])
    shunt0 = magnetising(i00, t.get("p0_zero_sequence", t["p0"] + t["pk"] * (i00 ** 2 - t["i0"] ** 2)))
    earth_from, earth_to = (3 * complex(t.get(f"r_grounding_{s}", 0), t.get(f"x_grounding_{s}", 0)) / (u ** 2 / S_BASE)
                            for s, u in (("from", u_from), ("to", u_to)))
    windings = t["winding_from"], t["winding_to"]
    if windings == (WYE_N, WYE_N):
        sign = -1 if clock in (2, 6, 10) else 1
        zero = opened(pi_model(1 / (z + earth_to + earth_from / k ** 2), shunt0, sign * k), status)
        return positive, zero, negative

    own = [0, 0]  # admittance of each side to earth, referred to the to side
    float_ = -1j * 1e-8 * sn / S_BASE / uk  # keeps a side without a path to earth from floating
    for side, earth in ((0, earth_from / k ** 2), (1, earth_to)):
        me, other = windings[side], windings[1 - side]
        if me == WYE_N and other == DELTA: own[side] = 1 / (z + earth) + shunt0
        elif me == ZIGZAG_N: own[side] = 1 / (0.1 * z + earth)
        elif me == WYE_N: own[side] = shunt0 + float_
        else: own[side] = float_
    zero = np.diag([own[0] / k ** 2 * status[0], own[1] * status[1]]).astype(complex)
    return positive, zero, negative


SEQUENCES = {"line": line_sequences, "link": link_sequences, "transformer": transformer_sequences}


def branch_matrix(grid, kind, item, symmetric):
    """[[ff, ft], [tf, tt]], each a 1 x 1 or 3 x 3 block."""
    positive, zero, *negative = SEQUENCES[kind](grid, item)
    if symmetric: return positive.reshape(2, 2, 1, 1)
    negative = negative[0] if negative else positive
    return np.array([[phases(zero[i, j], positive[i, j], negative[i, j]) for j in (0, 1)] for i in (0, 1)])


def shunt_matrix(grid, item, symmetric):
    y_base = S_BASE / grid.find(item["node"])[1]["u_rated"] ** 2
    y1, y0 = complex(item["g1"], item["b1"]) / y_base * item["status"], complex(item["g0"], item["b0"]) / y_base * item["status"]
    return np.array([[y1]]) if symmetric else phases(y0, y1)


def source_matrix(item, symmetric):
    """The source's internal admittance; its current is Y (u_ref - u)."""
    z = S_BASE / item.get("sk", 1e10)
    x = z / math.hypot(1, item.get("rx_ratio", 0.1))
    z1 = complex(item.get("rx_ratio", 0.1) * x, x)
    return np.array([[1 / z1]]) if symmetric else phases(1 / z1 / item.get("z01_ratio", 1.0), 1 / z1)


def check_flows(name, grid, data, symmetric):
    """Largest difference, in p.u., between a result's flows and the component models' at the result's own voltages."""
    base = S_BASE if symmetric else S_BASE / 3
    u = {n["id"]: np.atleast_1d(n["u_pu"]) * np.exp(1j * np.atleast_1d(n["u_angle"])) for n in data["node"]}
    live = {n["id"] for n in data["node"] if n["energized"]}
    flow = lambda item, end="": np.atleast_1d(item["p" + end]) / base + 1j * np.atleast_1d(item["q" + end]) / base
    worst = {}

    def note(kind, expected, found, scale=1.0):
        worst[kind] = max(worst.get(kind, 0.0), float(np.abs(np.asarray(expected) - found).max()) / scale)

    for kind in SEQUENCES:
        for item, result in zip(grid.data.get(kind, []), data.get(kind, [])):
            ends = item["from_node"], item["to_node"]
            if not any(item[s] and e in live for s, e in zip(("from_status", "to_status"), ends)): continue
            y = branch_matrix(grid, kind, item, symmetric)
            scale = max(1.0, np.abs(y).max() * 1e-12 / 1e-9)  # the results are rounded to 1e-12 p.u.
            for side, end in ((0, "_from"), (1, "_to")):
                current = y[side, 0] @ u[ends[0]] + y[side, 1] @ u[ends[1]]
                note(kind, u[ends[side]] * current.conj(), flow(result, end), scale)
    for item, result in zip(grid.data.get("shunt", []), data.get("shunt", [])):
        v = u[item["node"]]
        note("shunt", v * (shunt_matrix(grid, item, symmetric) @ v).conj(), flow(result))
    for item, result in zip(grid.data.get("source", []), data.get("source", [])):
        if not item["status"]: continue
        v = u[item["node"]]
        y = source_matrix(item, symmetric)
        e = cmath.rect(item["u_ref"], item.get("u_ref_angle", 0.0)) * (np.ones(1) if symmetric else BALANCED)
        note("source", v * (y @ (e - v)).conj(), flow(result), max(1.0, np.abs(y).max() * 1e-12 / 1e-9))
    for kind in ("sym_load", "asym_load", "sym_gen", "asym_gen"):
        for item, result in zip(grid.data.get(kind, []), data.get(kind, [])):
            v = u[item["node"]]
            s = np.array(item["p_specified"]) + 1j * np.array(item["q_specified"])
            s = np.atleast_1d(s.sum()) if symmetric else s * np.ones(3) / (1 if s.ndim else 3)
            factor = np.abs(v) ** {0: 0, 1: 2, 2: 1}[item["type"]] * item["status"] * (item["node"] in live)
            note("load", s / base * factor, flow(result))
    return worst


# ---------------------------------------------------------------- 2. an estimator

class Estimator:
    """Dense weighted least squares over (angle, magnitude) of every live node and phase, with exact zero-injection constraints."""

    def __init__(self, grid, symmetric, live):
        self.grid, self.symmetric, self.n_phases = grid, symmetric, 1 if symmetric else 3
        self.base = S_BASE / self.n_phases
        self.index = {n["id"]: k for k, n in enumerate(n for n in grid.data["node"] if n["id"] in live)}
        self.u_rated = {n["id"]: n["u_rated"] for n in grid.data["node"]}
        self.size = self.n_phases * len(self.index)
        self.y = np.zeros((self.size, self.size), complex)
        self.ends = {}  # (branch id, side) -> (node, rows of the current at that end)
        for kind in SEQUENCES:
            for item in grid.data.get(kind, []): self.add_branch(kind, item)
        self.shunts = {}
        for item in grid.data.get("shunt", []):
            if item["node"] not in self.index or not item["status"]: continue
            rows = self.at(item["node"])
            self.y[rows, rows] += shunt_matrix(grid, item, symmetric)
            current = np.zeros((self.n_phases, self.size), complex)
            current[:, rows] = shunt_matrix(grid, item, symmetric)
            self.shunts[item["id"]] = item["node"], current
        self.measurements, self.constraints = [], []
        self.collect()

    def at(self, node):
        k = self.index[node] * self.n_phases
        return slice(k, k + self.n_phases)

    def add_branch(self, kind, item):
        ends, statuses = (item["from_node"], item["to_node"]), (item["from_status"], item["to_status"])
        y = branch_matrix(self.grid, kind, item, self.symmetric)
        for i in (0, 1):
            if not statuses[i] or ends[i] not in self.index: continue
            current = np.zeros((self.n_phases, self.size), complex)
            for j in (0, 1):
                if statuses[j] and ends[j] in self.index: current[:, self.at(ends[j])] += y[i, j]
            self.ends[item["id"], i] = ends[i], current
            self.y[self.at(ends[i])] += current

    # Readings: values and variances in p.u. of the calculation's phases, from sensors of either kind.

    def phase_values(self, value, kind, scale):
        """One number per phase of the calculation. A symmetric reading stands for each phase; phases are averaged for a symmetric one."""
        value = np.atleast_1d(np.array(value, float)) / scale
        if self.symmetric: return np.atleast_1d(value.mean())
        return value * np.ones(3)

    def phase_variances(self, sigma, kind, scale):
        """A symmetric sensor's sigma (in p.u.) holds for each phase; the mean of three phases has a third of the mean variance."""
        variance = (np.atleast_1d(np.array(sigma, float)) / scale) ** 2
        if kind == "asym": variance = variance * np.ones(3)
        if self.symmetric: return np.atleast_1d(variance.mean() / (3 if kind == "asym" else 1))
        return variance * np.ones(3)

    def power_reading(self, sensor, kind):
        base = S_BASE if kind == "sym" else S_BASE / 3
        if "p_sigma" in sensor: sigmas = sensor["p_sigma"], sensor["q_sigma"]
        else: sigmas = (sensor["power_sigma"] / math.sqrt(2),) * 2
        return [(self.phase_values(sensor[f"{x}_measured"], kind, base), self.phase_variances(s, kind, base)) for x, s in zip("pq", sigmas)]

    @staticmethod
    def combine(readings):
        """Weighted mean of several (value, variance)."""
        weight = sum(1 / var for _, var in readings)
        return sum(value / var for value, var in readings) / weight, 1 / weight

    def collect(self):
        data, live = self.grid.data, self.index
        by_terminal = {}
        for kind in ("sym", "asym"):
            for s in data.get(f"{kind}_power_sensor", []):
                by_terminal.setdefault((s["measured_terminal_type"], s["measured_object"]), []).append(self.power_reading(s, kind))
        power = {k: [self.combine([r[x] for r in readings]) for x in (0, 1)] for k, readings in by_terminal.items()}
        for (terminal, id), (p, q) in power.items():
            if terminal in (cases.BRANCH_FROM, cases.BRANCH_TO) and (id, terminal) in self.ends: self.add_power(*self.ends[id, terminal], p, q)
            if terminal == cases.SHUNT and id in self.shunts: self.add_power(*self.shunts[id], p, q)
        self.collect_injections(power)
        self.collect_currents()
        self.collect_voltages()

    def add_power(self, node, current, p, q):
        self.measurements.append(("power", node, current, p[0] + 1j * q[0], (p[1], q[1])))

    def collect_injections(self, power):
        """Per node: the sum of its appliances' readings if every connected one has a reading (exactly zero if there is none),
        combined with the node's own injection sensors. Generation counts as positive."""
        for node in self.index:
            appliances = [(kind, item) for kind in cases.APPLIANCES if kind != "shunt" for item in self.grid.data.get(kind, [])
                          if item["node"] == node and item["status"]]
            total, complete = [[0.0, 0.0], [0.0, 0.0]], True
            for kind, item in appliances:
                terminal = {"source": cases.SOURCE, "load": cases.LOAD, "gen": cases.GENERATOR}[kind.split("_")[-1]]
                reading = power.get((terminal, item["id"]))
                if reading is None: complete = False; continue
                for x in (0, 1):
                    total[x][0] = total[x][0] + reading[x][0] * (-1 if terminal == cases.LOAD else 1)
                    total[x][1] = total[x][1] + reading[x][1]
            current = np.zeros((self.n_phases, self.size), complex)
            current[:] = self.y[self.at(node)]
            own = power.get((cases.NODE, node))
            if complete and not appliances: self.constraints.append((node, current))
            elif complete and own: self.add_power(node, current, *(self.combine([total[x], own[x]]) for x in (0, 1)))
            elif complete: self.add_power(node, current, *total)
            elif own: self.add_power(node, current, *own)

    def collect_currents(self):
        by_terminal = {}
        for kind in ("sym", "asym"):
            for s in self.grid.data.get(f"{kind}_current_sensor", []):
                by_terminal.setdefault((s["measured_object"], s["measured_terminal_type"], s["angle_measurement_type"]), []).append(self.current_reading(s, kind))
        for (id, side, angle_type), readings in by_terminal.items():
            if (id, side) not in self.ends: continue
            node, current = self.ends[id, side]
            re, im = (self.combine([r[x] for r in readings]) for x in (0, 1))
            name = "local current" if angle_type == cases.LOCAL_ANGLE else "current"
            self.measurements.append((name, node, current, re[0] + 1j * im[0], (re[1], im[1])))

    def current_reading(self, s, kind):
        """Magnitude and angle become a real and an imaginary part, each with the variance of a first-order propagation."""
        branch = self.grid.find(s["measured_object"])[1]
        node = branch["from_node" if s["measured_terminal_type"] == cases.BRANCH_FROM else "to_node"]
        base = S_BASE / self.u_rated[node] / math.sqrt(3)
        i, angle = np.atleast_1d(s["i_measured"]) / base, np.atleast_1d(s["i_angle_measured"])
        var_i, var_angle = (s["i_sigma"] / base) ** 2, s["i_angle_sigma"] ** 2
        if not self.symmetric and kind == "sym":
            i = i * np.ones(3)
            angle = angle + (np.angle(BALANCED) if s["angle_measurement_type"] == cases.GLOBAL_ANGLE else np.zeros(3))
        if self.symmetric and kind == "asym":
            shift = -np.angle(BALANCED) if s["angle_measurement_type"] == cases.GLOBAL_ANGLE else np.zeros(3)
            z = np.atleast_1d((i * np.exp(1j * (angle + shift))).mean())
            spread = angle + shift
            real = (var_i * np.cos(spread) ** 2 + i ** 2 * var_angle * np.sin(spread) ** 2).sum() / 9
            imag = (var_i * np.sin(spread) ** 2 + i ** 2 * var_angle * np.cos(spread) ** 2).sum() / 9
            return (z.real, np.atleast_1d(real)), (z.imag, np.atleast_1d(imag))
        z = i * np.exp(1j * angle)
        return ((z.real, var_i * np.cos(angle) ** 2 + z.imag ** 2 * var_angle), (z.imag, var_i * np.sin(angle) ** 2 + z.real ** 2 * var_angle))

    def collect_voltages(self):
        by_node = {}
        for kind in ("sym", "asym"):
            for s in self.grid.data.get(f"{kind}_voltage_sensor", []):
                node = s["measured_object"]
                if node not in self.index: continue
                scale = self.u_rated[node] / (1 if kind == "sym" else math.sqrt(3))
                angle = self.angles(s.get("u_angle_measured"), kind)
                value = self.phase_values(s["u_measured"], kind, scale)
                if self.symmetric and kind == "asym" and angle is not None:
                    phasors = np.array(s["u_measured"]) / scale * np.exp(1j * np.array(s["u_angle_measured"]))
                    positive = (phasors * BALANCED.conj()).mean()
                    value, angle = np.atleast_1d(abs(positive)), np.atleast_1d(cmath.phase(positive))
                by_node.setdefault(node, []).append((value, self.phase_variances(s["u_sigma"], kind, scale), angle))
        self.voltages = {}
        for node, readings in by_node.items():
            if all(angle is not None for _, _, angle in readings):
                z, variance = self.combine([(value * np.exp(1j * angle), var) for value, var, angle in readings])
                self.voltages[node] = np.abs(z), variance, np.angle(z)
            else: self.voltages[node] = *self.combine([(value, var) for value, var, _ in readings]), None

    def angles(self, angle, kind):
        if angle is None: return None
        if kind == "sym" and not self.symmetric: return angle + np.angle(BALANCED)
        return np.atleast_1d(angle)

    def solve(self, slack, iterations=60):
        """Voltages in p.u.; slack is the node whose angle is the reference if no angle is measured."""
        order = {node: k for k, node in enumerate(self.index)}
        theta, v = np.zeros(self.size), np.ones(self.size)
        start = self.start_angles(slack)
        for node in self.index:
            theta[self.at(node)] = start[node] + (0 if self.symmetric else np.angle(BALANCED))
            if node in self.voltages: v[self.at(node)] = self.voltages[node][0]
        has_angle = any(angle is not None for *_, angle in self.voltages.values())
        reference = slack if slack in self.voltages else min(self.voltages, key=order.get)
        for _ in range(iterations):
            rows, residuals, weights = [], [], []
            u = v * np.exp(1j * theta)
            du = np.hstack([np.diag(1j * u), np.diag(u / v)])
            for name, node, current, value, variances in self.measurements:
                h, jacobian = self.function(name, self.at(node), current, u, v, du)
                for part, variance in ((np.real, variances[0]), (np.imag, variances[1])):
                    rows.append(part(jacobian)); residuals.append(part(value - h)); weights.append(1 / variance)
            for node, (value, variance, angle) in self.voltages.items():
                unit = np.zeros((self.n_phases, 2 * self.size))
                at = np.arange(self.size)[self.at(node)]
                unit[np.arange(self.n_phases), self.size + at] = 1
                rows.append(unit); residuals.append(value - v[at]); weights.append(1 / variance)
                if angle is None and not has_angle and node == reference: angle = self.angles(0.0, "sym")
                if angle is not None:
                    unit = np.zeros((self.n_phases, 2 * self.size))
                    unit[np.arange(self.n_phases), at] = 1
                    rows.append(unit); residuals.append((angle - theta[at] + math.pi) % (2 * math.pi) - math.pi)
                    weights.append(1 / variance)
            h, r, w = np.vstack(rows), np.concatenate(residuals), np.concatenate(weights)
            c, cr = np.zeros((0, 2 * self.size)), np.zeros(0)
            for node, current in self.constraints:
                s, jacobian = self.function("power", self.at(node), current, u, v, du)
                c, cr = np.vstack([c, jacobian.real, jacobian.imag]), np.concatenate([cr, -s.real, -s.imag])
            w = w / w.max()
            scale = 1.0  # keeps the constraint rows of the size of the gain matrix
            kkt = np.block([[h.T * w @ h, scale * c.T], [scale * c, np.zeros((len(c), len(c)))]])
            step = np.linalg.lstsq(kkt, np.concatenate([h.T * w @ r, scale * cr]), rcond=None)[0][:2 * self.size] if len(kkt) < 3 \
                else np.linalg.solve(kkt, np.concatenate([h.T * w @ r, scale * cr]))[:2 * self.size]
            theta += step[:self.size]; v += step[self.size:]
            if np.abs(step).max() < 1e-12: break
        self.step = float(np.abs(step).max())
        if not has_angle: theta -= theta[self.at(slack)][0]
        return {node: v[self.at(node)] * np.exp(1j * theta[self.at(node)]) for node in self.index}

    def function(self, name, at, current, u, v, du):
        """A measured quantity and its derivatives to (angles, magnitudes)."""
        i, di = current @ u, current @ du
        if name == "current": return i, di
        if name == "power": return u[at] * i.conj(), du[at] * i.conj()[:, None] + u[at][:, None] * di.conj()
        e = u[at] / v[at]  # local current: i* turned by the voltage's own angle
        de = np.zeros_like(du[at])
        k = np.arange(len(u))[at]
        de[np.arange(len(k)), k] = 1j * e
        return e * i.conj(), de * i.conj()[:, None] + e[:, None] * di.conj()

    def start_angles(self, slack):
        """Flat angles, turned by the clock numbers on the way from the slack node."""
        angle, todo = {slack: 0.0}, [slack]
        while todo:
            node = todo.pop()
            for kind in SEQUENCES:
                for item in self.grid.data.get(kind, []):
                    ends = item["from_node"], item["to_node"]
                    if node not in ends or not (item["from_status"] and item["to_status"]): continue
                    other = ends[1] if ends[0] == node else ends[0]
                    if other in angle or other not in self.index: continue
                    shift = item.get("clock", 0) * math.pi / 6
                    angle[other] = angle[node] + (-shift if ends[0] == node else shift)
                    todo.append(other)
        return {node: angle.get(node, 0.0) for node in self.index}
