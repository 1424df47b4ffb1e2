"""Component models and a weighted least-squares estimator in plain numpy: the second opinion behind the golden cases.

It reads the same data as power-grid-model (PGM) and shares no code and no method with it: dense matrices, Gauss-Newton over all
measurements at once, zero injections as exact constraints. `generate.py` uses it to confirm PGM's estimates, and in their place where
PGM's three-phase Newton-Raphson is not at the optimum (notes.md, "Defects"); `conventions.py` uses it to pin down what PGM does.

Quantities are in p.u.: 1 MVA for three phases (a third of it for one phase), the node's u_rated (divided by root three for one
phase). Networks are objects with `data` (component type -> list of dictionaries) and `find(id)`, as generate.py's Grid.
"""

import cmath, math
import numpy as np

S_BASE = 1e6  # VA, three-phase; both PGM's base and the base of tolerance_pu for powers
FREQUENCY = 50.0

WYE, WYE_N, DELTA, ZIGZAG, ZIGZAG_N = range(5)
FROM, TO = 0, 1
CONST_POWER, CONST_IMPEDANCE, CONST_CURRENT = range(3)
BRANCH_FROM, BRANCH_TO, SOURCE, SHUNT, LOAD, GENERATOR = range(6)
NODE = 9
LOCAL_ANGLE, GLOBAL_ANGLE = 0, 1

BRANCHES = ("line", "link", "transformer")
APPLIANCES = ("source", "shunt", "sym_load", "asym_load", "sym_gen", "asym_gen")

OMEGA = 2 * math.pi * FREQUENCY
TURN = cmath.rect(1, 2 * math.pi / 3)
FORTESCUE = np.array([[1, 1, 1], [1, TURN**2, TURN], [1, TURN, TURN**2]])  # phases from zero, positive, negative sequence
BALANCED = np.array([1, TURN**2, TURN])


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
    if status == (1, 1):
        return y
    if status == (1, 0):
        return np.array([[ff - ft * tf / tt if tt != 0 else ff, 0], [0, 0]])
    if status == (0, 1):
        return np.array([[0, 0], [0, tt - tf * ft / ff if ff != 0 else tt]])
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


def tapped(t):
    """Winding voltages, uk and pk of a transformer at its tap position."""
    nominal = t.get("tap_nom", 0)
    position = t.get("tap_pos", nominal)
    u = [t["u1"], t["u2"]]
    u[t["tap_side"]] += (position - nominal) * (1 if t["tap_max"] > t["tap_min"] else -1) * t["tap_size"]
    towards = "tap_min" if (position - nominal) * (t["tap_min"] - nominal) > 0 else "tap_max"
    part = (position - nominal) / (t[towards] - nominal) if position != nominal else 0.0
    at_end = {k: t.get(k + towards[3:], t[k]) for k in ("uk", "pk")}
    return u, *(t[k] + part * (at_end[k] - t[k]) for k in ("uk", "pk"))


def transformer_sequences(grid, t):
    """Positive, zero and negative sequence. The zero sequence exists per side: through to the other side (YNyn); to earth through the
    leakage impedance and the magnetising branch where the other winding is a delta (YNd, Dyn); to earth through a tenth of the leakage
    impedance at a zigzag with an earthed star point; to earth through the magnetising branch alone at any other earthed wye. A star
    point's impedance counts three times, in series with all of that."""
    u_from, u_to = (grid.find(t[k])[1]["u_rated"] for k in ("from_node", "to_node"))
    (u1, u2), uk, pk = tapped(t)
    status = (t["from_status"], t["to_status"])
    sn, k = t["sn"], (u1 / u2) / (u_from / u_to)
    z_base = u_to**2 / S_BASE

    r = pk * u2**2 / sn**2
    z = complex(r, math.sqrt((uk * u2**2 / sn) ** 2 - r**2)) / z_base

    def magnetising(i0, p0):
        g, y = p0 / u2**2, i0 * sn / u2**2
        return complex(g, -math.sqrt(max(y * y - g * g, 0))) * z_base

    shunt = magnetising(t["i0"], t["p0"])
    clock = t["clock"] % 12
    positive, negative = (opened(pi_model(1 / z, shunt, k * cmath.rect(1, sign * clock * math.pi / 6)), status) for sign in (1, -1))

    i00 = t.get("i0_zero_sequence", t["i0"])
    shunt0 = magnetising(i00, t.get("p0_zero_sequence", t["p0"] + t["pk"] * (i00**2 - t["i0"] ** 2)))
    earth_from, earth_to = (
        3 * complex(t.get(f"r_grounding_{s}", 0), t.get(f"x_grounding_{s}", 0)) / (u**2 / S_BASE)
        for s, u in (("from", u_from), ("to", u_to))
    )
    windings = t["winding_from"], t["winding_to"]
    if windings == (WYE_N, WYE_N):
        sign = -1 if clock in (2, 6, 10) else 1
        zero = opened(pi_model(1 / (z + earth_to + earth_from / k**2), shunt0, sign * k), status)
        return positive, zero, negative

    own = [0, 0]  # admittance of each side to earth, referred to the to side
    float_ = -1j * 1e-8 * sn / S_BASE / uk  # keeps a side without a path to earth from floating
    for side, earth in ((0, earth_from / k**2), (1, earth_to)):
        me, other = windings[side], windings[1 - side]
        if me == WYE_N and other == DELTA:
            own[side] = 1 / (1 / (1 / z + shunt0) + earth)
        elif me == ZIGZAG_N:
            own[side] = 1 / (0.1 * z + earth)
        elif me == WYE_N:
            own[side] = (1 / (1 / shunt0 + earth) if shunt0 else 0) + float_
        else:
            own[side] = float_
    zero = np.diag([own[0] / k**2 * status[0], own[1] * status[1]]).astype(complex)
    return positive, zero, negative


SEQUENCES = {"line": line_sequences, "link": link_sequences, "transformer": transformer_sequences}


def branch_matrix(grid, kind, item, symmetric):
    """[[ff, ft], [tf, tt]], each a 1 x 1 or 3 x 3 block."""
    positive, zero, *negative = SEQUENCES[kind](grid, item)
    if symmetric:
        return positive.reshape(2, 2, 1, 1)
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


# ---------------------------------------------------------------- 2. the estimator


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
            for item in grid.data.get(kind, []):
                self.add_branch(kind, item)
        self.shunts = {}
        for item in grid.data.get("shunt", []):
            if item["node"] not in self.index or not item["status"]:
                continue
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
            if not statuses[i] or ends[i] not in self.index:
                continue
            current = np.zeros((self.n_phases, self.size), complex)
            for j in (0, 1):
                if statuses[j] and ends[j] in self.index:
                    current[:, self.at(ends[j])] += y[i, j]
            self.ends[item["id"], i] = ends[i], current
            self.y[self.at(ends[i])] += current

    # Readings: values and variances in p.u. of the calculation's phases, from sensors of either kind.

    def phase_values(self, value, kind, scale):
        """One number per phase of the calculation. A symmetric reading stands for each phase; phases are averaged for a symmetric one."""
        value = np.atleast_1d(np.array(value, float)) / scale
        if self.symmetric:
            return np.atleast_1d(value.mean())
        return value * np.ones(3)

    def phase_variances(self, sigma, kind, scale):
        """A symmetric sensor's sigma (in p.u.) holds for each phase. The mean of three phases has the mean of their variances, as if
        their errors were one and the same: power-grid-model does not divide it by three."""
        variance = (np.atleast_1d(np.array(sigma, float)) / scale) ** 2
        if kind == "asym":
            variance = variance * np.ones(3)
        if self.symmetric:
            return np.atleast_1d(variance.mean())
        return variance * np.ones(3)

    def power_reading(self, sensor, kind):
        base = S_BASE if kind == "sym" else S_BASE / 3
        if "p_sigma" in sensor:
            sigmas = sensor["p_sigma"], sensor["q_sigma"]
        else:
            sigmas = (sensor["power_sigma"] / math.sqrt(2),) * 2
        return [(self.phase_values(sensor[f"{x}_measured"], kind, base), self.phase_variances(s, kind, base)) for x, s in zip("pq", sigmas)]

    @staticmethod
    def combine(readings):
        """Weighted mean of several (value, variance)."""
        weight = sum(1 / var for _, var in readings)
        return sum(value / var for value, var in readings) / weight, 1 / weight

    def collect(self):
        data, by_terminal = self.grid.data, {}
        for kind in ("sym", "asym"):
            for s in data.get(f"{kind}_power_sensor", []):
                by_terminal.setdefault((s["measured_terminal_type"], s["measured_object"]), []).append(self.power_reading(s, kind))
        power = {k: [self.combine([r[x] for r in readings]) for x in (0, 1)] for k, readings in by_terminal.items()}
        for (terminal, id), (p, q) in power.items():
            if terminal in (BRANCH_FROM, BRANCH_TO) and (id, terminal) in self.ends:
                self.add_power("flow", *self.ends[id, terminal], p, q)
            if terminal == SHUNT and id in self.shunts:
                self.add_power("flow", *self.shunts[id], p, q)
        self.collect_injections(power)
        self.collect_currents()
        self.collect_voltages()

    def add_power(self, name, node, current, p, q):
        self.measurements.append((name, node, current, p[0] + 1j * q[0], (p[1], q[1])))

    def collect_injections(self, power):
        """Per node: the sum of its appliances' readings if every connected one has a reading (exactly zero if there is none),
        combined with the node's own injection sensors. Generation counts as positive."""
        for node in self.index:
            appliances = [
                (kind, item)
                for kind in APPLIANCES
                if kind != "shunt"
                for item in self.grid.data.get(kind, [])
                if item["node"] == node and item["status"]
            ]
            total, complete = [[0.0, 0.0], [0.0, 0.0]], True
            for kind, item in appliances:
                terminal = {"source": SOURCE, "load": LOAD, "gen": GENERATOR}[kind.split("_")[-1]]
                reading = power.get((terminal, item["id"]))
                if reading is None:
                    complete = False
                    continue
                for x in (0, 1):
                    total[x][0] = total[x][0] + reading[x][0] * (-1 if terminal == LOAD else 1)
                    total[x][1] = total[x][1] + reading[x][1]
            current = np.zeros((self.n_phases, self.size), complex)
            current[:] = self.y[self.at(node)]
            own = power.get((NODE, node))
            if complete and not appliances:
                self.constraints.append((node, current))
            elif complete and own:
                self.add_power("injection", node, current, *(self.combine([total[x], own[x]]) for x in (0, 1)))
            elif complete:
                self.add_power("injection", node, current, *total)
            elif own:
                self.add_power("injection", node, current, *own)

    def collect_currents(self):
        by_terminal = {}
        for kind in ("sym", "asym"):
            for s in self.grid.data.get(f"{kind}_current_sensor", []):
                by_terminal.setdefault((s["measured_object"], s["measured_terminal_type"], s["angle_measurement_type"]), []).append(
                    self.current_reading(s, kind)
                )
        for (id, side, angle_type), readings in by_terminal.items():
            if (id, side) not in self.ends:
                continue
            node, current = self.ends[id, side]
            re, im = (self.combine([r[x] for r in readings]) for x in (0, 1))
            name = "local current" if angle_type == LOCAL_ANGLE else "current"
            self.measurements.append((name, node, current, re[0] + 1j * im[0], (re[1], im[1])))

    def current_reading(self, s, kind):
        """Magnitude and angle become a real and an imaginary part. Their variances are propagated to second order."""
        branch = self.grid.find(s["measured_object"])[1]
        node = branch["from_node" if s["measured_terminal_type"] == BRANCH_FROM else "to_node"]
        base = S_BASE / self.u_rated[node] / math.sqrt(3)
        i, angle = np.atleast_1d(s["i_measured"]) / base, np.atleast_1d(s["i_angle_measured"])
        var_i, var_angle = (s["i_sigma"] / base) ** 2, s["i_angle_sigma"] ** 2
        turn = np.angle(BALANCED) if s["angle_measurement_type"] == GLOBAL_ANGLE else np.zeros(3)
        if kind == "sym" and not self.symmetric:
            i, angle = i * np.ones(3), angle + turn
        if kind == "asym" and self.symmetric:
            angle = angle - turn
        cos2, sin2 = np.cos(angle) ** 2, np.sin(angle) ** 2
        real = var_i * (cos2 + var_angle * sin2) + i**2 * (var_angle * sin2 + var_angle**2 / 2 * cos2)
        imag = var_i * (sin2 + var_angle * cos2) + i**2 * (var_angle * cos2 + var_angle**2 / 2 * sin2)
        z = i * np.exp(1j * angle)
        if kind == "asym" and self.symmetric:
            z, real, imag = (np.atleast_1d(x) for x in (z.mean(), real.sum() / 9, imag.sum() / 9))
        return (z.real, real), (z.imag, imag)

    def collect_voltages(self):
        by_node = {}
        for kind in ("sym", "asym"):
            for s in self.grid.data.get(f"{kind}_voltage_sensor", []):
                node = s["measured_object"]
                if node not in self.index:
                    continue
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
            else:
                self.voltages[node] = *self.combine([(value, var) for value, var, _ in readings]), None

    def angles(self, angle, kind):
        if angle is None:
            return None
        if kind == "sym" and not self.symmetric:
            return angle + np.angle(BALANCED)
        return np.atleast_1d(angle)

    def solve(self, slack, iterations=60):
        """Voltages in p.u.; slack is the node whose angle (phase a) becomes 0 if no angle is measured."""
        theta, start = np.zeros(self.size), self.start_angles(slack)
        for node in self.index:
            theta[self.at(node)] = start[node] + self.angles(0.0, "sym")
        v = np.full(self.size, np.mean([value for value, *_ in self.voltages.values()]))
        self.has_angle = any(angle is not None for *_, angle in self.voltages.values())
        self.reference = slack if slack in self.voltages else next(iter(self.voltages))
        for _ in range(iterations):
            h, r, w, c, cr = self.linearised(theta, v)
            weighted = self.weighted(h, w / w.max())
            zero = np.zeros((len(c), len(c)))
            step = np.linalg.solve(np.block([[weighted @ h, c.T], [c, zero]]), np.concatenate([weighted @ r, cr]))[: 2 * self.size]
            theta, v = theta + step[: self.size], v + step[self.size :]
            if np.abs(step).max() < 1e-12:
                break
        else:
            raise RuntimeError(f"no convergence: last step {np.abs(step).max():.1e}")
        if not self.has_angle:
            theta -= theta[self.at(slack)][0]
        return v * np.exp(1j * theta)

    def weighted(self, h, w):
        """H'W."""
        return h.T * w

    def objective(self, u):
        """Sum of squared weighted residuals at the voltages u, at the best common angle if no angle is measured."""
        theta, v = np.angle(u), np.abs(u)
        if not self.has_angle:
            at = self.at(self.reference)
            theta = theta + ((self.angles(0.0, "sym") - theta[at] + math.pi) % (2 * math.pi) - math.pi).mean()
        _, r, w, *_ = self.linearised(theta, v)
        return float((w * r * r).sum())

    def linearised(self, theta, v):
        """Measurement rows (Jacobian, residual, weight) and constraint rows (Jacobian, what is missing) at a state."""
        rows, residuals, weights = [], [], []
        u = v * np.exp(1j * theta)
        du = np.hstack([np.diag(1j * u), np.diag(u / v)])
        for name, node, current, value, variances in self.measurements:
            h, jacobian = self.function(name, self.at(node), current, u, v, du)
            for part, variance in ((np.real, variances[0]), (np.imag, variances[1])):
                rows.append(part(jacobian))
                residuals.append(part(value - h))
                weights.append(1 / variance)
        everywhere = np.arange(self.size)
        for node, (value, variance, angle) in self.voltages.items():
            at = everywhere[self.at(node)]
            unit = np.zeros((2, self.n_phases, 2 * self.size))
            unit[0, np.arange(self.n_phases), self.size + at] = 1
            unit[1, np.arange(self.n_phases), at] = 1
            rows.append(unit[0])
            residuals.append(value - v[at])
            weights.append(1 / variance)
            # Without any measured angle, the reference node's angles count as read: 0, or 0, -120 and +120 degrees.
            if angle is None and not self.has_angle and node == self.reference:
                angle = self.angles(0.0, "sym")
            if angle is not None:
                rows.append(unit[1])
                residuals.append((angle - theta[at] + math.pi) % (2 * math.pi) - math.pi)
                weights.append(1 / variance)
        c, cr = np.zeros((0, 2 * self.size)), np.zeros(0)
        for node, current in self.constraints:
            s, jacobian = self.function("injection", self.at(node), current, u, v, du)
            c, cr = np.vstack([c, jacobian.real, jacobian.imag]), np.concatenate([cr, -s.real, -s.imag])
        return np.vstack(rows), np.concatenate(residuals), np.concatenate(weights), c, cr

    def function(self, name, at, current, u, v, du):
        """A measured quantity and its derivatives to (angles, magnitudes)."""
        i, di = current @ u, current @ du
        if name == "current":
            return i, di
        if name in ("flow", "injection"):
            return u[at] * i.conj(), du[at] * i.conj()[:, None] + u[at][:, None] * di.conj()
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
                    if node not in ends or not (item["from_status"] and item["to_status"]):
                        continue
                    other = ends[1] if ends[0] == node else ends[0]
                    if other in angle or other not in self.index:
                        continue
                    shift = item.get("clock", 0) * math.pi / 6
                    angle[other] = angle[node] + (-shift if ends[0] == node else shift)
                    todo.append(other)
        return {node: angle.get(node, 0.0) for node in self.index}


def islands(grid):
    """The parts of the network that have a source: (node of the first source in the data, set of nodes)."""
    neighbours = {n["id"]: set() for n in grid.data["node"]}
    for kind in SEQUENCES:
        for item in grid.data.get(kind, []):
            if item["from_status"] and item["to_status"]:
                neighbours[item["from_node"]].add(item["to_node"])
                neighbours[item["to_node"]].add(item["from_node"])
    found = []
    for source in grid.data["source"]:
        if not source["status"] or any(source["node"] in nodes for _, nodes in found):
            continue
        nodes, todo = {source["node"]}, [source["node"]]
        while todo:
            fresh = neighbours[todo.pop()] - nodes
            nodes |= fresh
            todo += fresh
        found.append((source["node"], nodes))
    return found


class Merged:
    """A network in which the nodes at the ends of closed links are one node, the first of them."""

    def __init__(self, grid):
        self.node = {n["id"]: n["id"] for n in grid.data["node"]}
        for link in grid.data.get("link", []):
            if link["from_status"] and link["to_status"]:
                old, new = self.node[link["to_node"]], self.node[link["from_node"]]
                self.node = {k: new if v == old else v for k, v in self.node.items()}
        for kind, items in grid.data.items():
            for sensor in items if kind.endswith("power_sensor") else []:
                if sensor["measured_terminal_type"] == NODE and list(self.node.values()).count(self.node[sensor["measured_object"]]) > 1:
                    raise ValueError("an injection sensor at a merged node is not supported")
        self.data = {kind: [self.moved(kind, item) for item in items] for kind, items in grid.data.items() if kind != "link"}
        self.data["node"] = [n for n in self.data["node"] if self.node[n["id"]] == n["id"]]

    def moved(self, kind, item):
        keys = ("node", "from_node", "to_node") + (("measured_object",) if kind.endswith("voltage_sensor") else ())
        return item | {k: self.node[item[k]] for k in keys if k in item}

    def find(self, id):
        return next((kind, item) for kind, items in self.data.items() for item in items if item["id"] == id)


def estimate(grid, symmetric, other=None, method=Estimator):
    """The estimate of every island as PGM output data (nodes; lines and transformers), the objective, and the objective at other
    node voltages. Closed links are taken out by merging their nodes."""
    whole, grid = grid, Merged(grid)
    n = 1 if symmetric else 3
    base = S_BASE / n
    u = {node["id"]: np.zeros(n, complex) for node in grid.data["node"]}
    objectives = [0.0, 0.0]
    live = set()
    for slack, nodes in islands(grid):
        estimator = method(grid, symmetric, nodes)
        solution = estimator.solve(slack)
        objectives[0] += estimator.objective(solution)
        if other:
            objectives[1] += estimator.objective(np.concatenate([other[node] for node in estimator.index]))
        u |= {node: solution[estimator.at(node)] for node in estimator.index}
        live |= nodes
    scalar = lambda x: float(x[0]) if symmetric else [float(v) for v in x]
    data = {"node": [dict(id=k, energized=int(k in live), u_pu=scalar(np.abs(v)), u_angle=scalar(np.angle(v))) for k, v in u.items()]}
    data["node"] = [dict(next(x for x in data["node"] if x["id"] == grid.node[k["id"]]), id=k["id"]) for k in whole.data["node"]]
    for kind in SEQUENCES:
        for item in grid.data.get(kind, []):
            y = branch_matrix(grid, kind, item, symmetric)
            ends = item["from_node"], item["to_node"]
            dead = not any(e in live and item[s] for e, s in zip(ends, ("from_status", "to_status")))
            flows = {"id": item["id"]}
            for side, name in enumerate(("from", "to")):
                s = u[ends[side]] * (y[side, 0] @ u[ends[0]] + y[side, 1] @ u[ends[1]]).conj() * base * (not dead)
                flows |= {f"p_{name}": scalar(s.real), f"q_{name}": scalar(s.imag)}
            data.setdefault(kind, []).append(flows)
    return data, *objectives
