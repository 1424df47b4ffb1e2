"""What a golden case is made of: a network as PGM (power-grid-model) input data, noisy readings, calculations, expectations, a README."""

import json, math, os, textwrap

os.environ.setdefault("OMP_NUM_THREADS", "1")
from importlib.metadata import version
import numpy as np
from power_grid_model import CalculationMethod, CalculationType, PowerGridModel, initialize_array
from power_grid_model.errors import IterationDiverge, SparseMatrixError
from power_grid_model.utils import json_deserialize
from power_grid_model.validation import assert_valid_batch_data, assert_valid_input_data
from opendss import OpenDss
from wls import APPLIANCES, BRANCH_FROM, BRANCH_TO, BRANCHES, CONST_POWER, DELTA, FREQUENCY, FROM, GLOBAL_ANGLE, SHUNT, WYE_N, estimate

PGM = f"power-grid-model {version('power-grid-model')}"
OPENDSS = f"OpenDSS (dss-python {version('dss-python')})"
WLS = "dense weighted least squares (wls.py), Gauss-Newton 1e-12"
PF_TOLERANCE, PF_TOLERANCE_OPENDSS, EST_TOLERANCE = 1e-6, 1e-4, 1e-6

OUTPUTS = (
    {"node": ("energized", "u_pu", "u_angle")}
    | {b: ("p_from", "q_from", "p_to", "q_to") for b in BRANCHES}
    | {a: ("p", "q") for a in APPLIANCES}
)


class Rng:
    """SplitMix64: the readings do not depend on any library's generator."""

    MASK = (1 << 64) - 1

    def __init__(self, seed):
        self.x = seed & self.MASK

    def u64(self):
        self.x = (self.x + 0x9E3779B97F4A7C15) & self.MASK
        z = self.x
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & self.MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & self.MASK
        return z ^ (z >> 31)

    def uniform(self, a=0.0, b=1.0):
        return a + (b - a) * (self.u64() >> 11) / (1 << 53)

    def below(self, n):
        return self.u64() % n

    def gauss(self):
        radius = math.sqrt(-2 * math.log(1 - self.uniform()))
        return radius * math.cos(2 * math.pi * self.uniform())


def significant(x, digits=7):
    """x rounded to so many significant digits: inputs stay readable, and equal on every machine."""
    return [significant(v, digits) for v in x] if isinstance(x, list) else float(f"{x:.{digits}g}")


class Grid:
    """A PGM input dataset as plain data: component type -> list of {attribute: value}."""

    def __init__(self):
        self.data = {}

    def add(self, kind, id, **attributes):
        self.data.setdefault(kind, []).append({"id": id, **attributes})
        return id

    def node(self, id, u_rated):
        return self.add("node", id, u_rated=u_rated)

    def nodes(self, u_rated, *ids):
        for id in ids:
            self.node(id, u_rated)

    def source(self, id, node, u_ref=1.0, **more):
        return self.add("source", id, node=node, status=1, u_ref=u_ref, **more)

    def line(self, id, from_node, to_node, cable, km, status=(1, 1), **more):
        per_km = {k: cable[k] if k in ("tan1", "tan0", "i_n") else significant(cable[k] * km) for k in cable}
        return self.add("line", id, from_node=from_node, to_node=to_node, from_status=status[0], to_status=status[1], **(per_km | more))

    def link(self, id, from_node, to_node, status=(1, 1)):
        return self.add("link", id, from_node=from_node, to_node=to_node, from_status=status[0], to_status=status[1])

    def transformer(self, id, from_node, to_node, u1, u2, sn, uk, pk, i0, p0, windings, clock, status=(1, 1), **more):
        tap = dict(tap_side=FROM, tap_pos=0, tap_min=0, tap_max=0, tap_nom=0, tap_size=0.0)
        return self.add(
            "transformer",
            id,
            from_node=from_node,
            to_node=to_node,
            from_status=status[0],
            to_status=status[1],
            u1=u1,
            u2=u2,
            sn=sn,
            uk=uk,
            pk=pk,
            i0=i0,
            p0=p0,
            winding_from=windings[0],
            winding_to=windings[1],
            clock=clock,
            **(tap | more),
        )

    def distribution_transformer(
        self,
        id,
        from_node,
        to_node,
        clock=11,
        windings=(DELTA, WYE_N),
        u1=10e3,
        u2=400.0,
        sn=400e3,
        uk=0.04,
        pk=4.6e3,
        i0=0.0,
        p0=0.0,
        **more,
    ):
        return self.transformer(id, from_node, to_node, u1, u2, sn, uk, pk, i0, p0, windings, clock, **more)

    def load(self, id, node, p, q, type=CONST_POWER, kind=None):
        kind = kind or ("asym_load" if isinstance(p, list) else "sym_load")
        return self.add(kind, id, node=node, status=1, type=type, p_specified=p, q_specified=q)

    def gen(self, id, node, p, q, type=CONST_POWER):
        return self.load(id, node, p, q, type, "asym_gen" if isinstance(p, list) else "sym_gen")

    def shunt(self, id, node, g1, b1, g0, b0):
        return self.add("shunt", id, node=node, status=1, g1=g1, b1=b1, g0=g0, b0=b0)

    def find(self, id):
        return next((kind, item) for kind, items in self.data.items() for item in items if item["id"] == id)

    def updated(self, update):
        """The dataset after an update, as PGM applies it: given attributes replace the old ones."""
        new = Grid()
        new.data = {kind: [dict(item) for item in items] for kind, items in self.data.items()}
        for items in (update or {}).values():
            for change in items:
                new.find(change["id"])[1].update(change)
        return new

    def without_sensors(self):
        new = Grid()
        new.data = {kind: items for kind, items in self.data.items() if not kind.endswith("_sensor")}
        return new


def dataset_text(kind, data):
    """A PGM dataset (JSON version 1.0), one component per line."""
    blocks = []
    for name, items in data.items():
        rows = ",\n".join("      " + json.dumps(item) for item in items)
        blocks.append(f'    "{name}": [\n{rows}\n    ]')
    return (
        f'{{\n  "version": "1.0",\n  "type": "{kind}",\n  "is_batch": false,\n  "attributes": {{}},\n  "data": {{\n'
        + ",\n".join(blocks)
        + "\n  }\n}\n"
    )


def pgm_model(grid, update, calculation, symmetric):
    data = json_deserialize(dataset_text("input", grid.data))
    both = {k: initialize_array("input", k, 0) for k in ("sym_voltage_sensor", "asym_voltage_sensor")}  # the validator wants both
    assert_valid_input_data(both | data, calculation_type=calculation, symmetric=symmetric)
    model = PowerGridModel(data, system_frequency=FREQUENCY)
    if update:
        change = json_deserialize(dataset_text("update", update))
        assert_valid_batch_data(data, {k: v.reshape(1, -1) for k, v in change.items()}, calculation_type=calculation, symmetric=symmetric)
        model.update(update_data=change)
    return model


def tightest(calculate, symmetric, tolerances):
    """The result at the first tolerance that Newton-Raphson reaches, and how to name it."""
    for tolerance in tolerances:
        try:
            result = calculate(
                symmetric=symmetric, calculation_method=CalculationMethod.newton_raphson, error_tolerance=tolerance, max_iterations=100
            )
        except (IterationDiverge, SparseMatrixError):
            if tolerance == tolerances[-1]:
                raise
        else:
            return result, f"{PGM} newton_raphson {tolerance:.0e}"


def pgm_power_flow(grid, symmetric, update=None):
    model = pgm_model(grid.without_sensors(), update, CalculationType.power_flow, symmetric)
    return tightest(model.calculate_power_flow, symmetric, (1e-12, 1e-11, 1e-10, 1e-9, 1e-8))


def pgm_estimate(grid, symmetric, update=None):
    model = pgm_model(grid, update, CalculationType.state_estimation, symmetric)
    return tightest(model.calculate_state_estimation, symmetric, (1e-12, 1e-11, 1e-10, 1e-9, 1e-8))


def rounded(x, decimals):
    if hasattr(x, "__len__"):
        return [rounded(v, decimals) for v in x]
    return round(float(x), decimals) + 0.0  # + 0.0 turns -0.0 into 0.0


def output_data(result):
    """A result as plain data: what a case compares, p.u. and rad to 12 decimals, W and var to 4."""
    data = {}
    for kind, names in OUTPUTS.items():
        if kind not in result:
            continue
        data[kind] = []
        for row in result[kind]:
            item = {"id": int(row["id"])}
            for name in names:
                if name == "energized":
                    item[name] = int(row[name])
                else:
                    item[name] = rounded(row[name], 12 if name.startswith("u_") else 4)
            data[kind].append(item)
    return data


def voltages(data):
    """Node id -> array of phasors in p.u."""
    return {n["id"]: np.atleast_1d(n["u_pu"]) * np.exp(1j * np.atleast_1d(n["u_angle"])) for n in data["node"]}


def largest_difference(result, expected):
    """Largest difference of two node results, as phasors in p.u."""
    ours = voltages(result)
    return float(max(abs(v - ours[id]).max() for id, v in voltages(expected).items()))


class Case:
    def __init__(self, name, text):
        self.name, self.text = name, text
        self.grid, self.checks, self.files, self.notes = Grid(), [], {}, []
        self.truth, self.random = None, Rng(sum(ord(x) * 131**k for k, x in enumerate(name)))

    def check(self, file, calculation, symmetric, reference, tolerance_pu, data, update=None):
        kind = "sym_output" if symmetric else "asym_output"
        self.files[file] = dataset_text(kind, data)
        entry = dict(calculation=calculation, symmetric=symmetric)
        if update:
            entry["update"] = update
        self.checks.append(entry | dict(expected=file, reference=reference, tolerance_pu=tolerance_pu))
        return data

    def update(self, file, update):
        self.files[file] = dataset_text("update", update)
        return file, update

    def power_flow(self, *kinds, update=None, tag=""):
        """PGM's power flow, for "sym", "asym" or both; gives back the last one."""
        file, change = update or (None, None)
        for kind in kinds or ("sym", "asym"):
            result, reference = pgm_power_flow(self.grid, kind == "sym", change)
            data = self.check(f"pf_{kind}{tag}.json", "power_flow", kind == "sym", reference, PF_TOLERANCE, output_data(result), file)
        return data

    def opendss(self, update=None, tag=""):
        """OpenDSS's three-phase power flow, once the two programs agree to 1e-5."""
        file, change = update or (None, None)
        pgm = output_data(pgm_power_flow(self.grid, False, change)[0])
        live = {n["id"] for n in pgm["node"] if n["energized"]}
        data = OpenDss(self.grid.updated(change), live).solve()
        gap = largest_difference(pgm, data)
        if gap > 1e-5:
            raise RuntimeError(f"{self.name}: OpenDSS and power-grid-model differ by {gap:.1e} p.u.")
        self.check(f"pf_asym{tag}_opendss.json", "power_flow", False, OPENDSS, PF_TOLERANCE_OPENDSS, data, file)
        self.notes.append(
            f"`pf_asym{tag}_opendss.json`: the two programs agree within {nice_bound(gap)} p.u. (largest difference of a phase "
            "voltage, as a phasor)."
        )

    # Readings for state estimation: the true state (power-grid-model's three-phase power flow of the network as it stands when the first
    # sensor is added) plus noise of the stated size. Symmetric sensors read the sum of the phases' powers, the mean voltage and the
    # angle of phase a.

    def true_state(self):
        if self.truth is None:
            self.truth = {int(row["id"]): row for rows in pgm_power_flow(self.grid, False)[0].values() for row in rows}
        return self.truth

    def noisy(self, values, sigma, digits=7):
        """values + sigma * N(0, 1), rounded."""
        sigmas = sigma if isinstance(sigma, list) else [sigma] * len(values)
        return significant([float(v) + s * self.random.gauss() for v, s in zip(values, sigmas)], digits)

    def voltage(self, id, node, sigma_pu, kind="sym", angle_sigma=None):
        """A voltage sensor; with angle_sigma (rad) it reads the angle as well."""
        u_rated = self.grid.find(node)[1]["u_rated"]
        row, scale = self.true_state()[node], u_rated / (1 if kind == "sym" else math.sqrt(3))
        u, angle = (row["u_pu"], row["u_angle"]) if kind == "asym" else ([sum(row["u_pu"]) / 3], row["u_angle"][:1])
        reading = dict(u_measured=self.noisy(u * scale if kind == "asym" else [u[0] * scale], sigma_pu * scale))
        if angle_sigma is not None:
            reading["u_angle_measured"] = self.noisy(angle, angle_sigma)
        if kind == "sym":
            reading = {k: v[0] for k, v in reading.items()}
        return self.grid.add(f"{kind}_voltage_sensor", id, measured_object=node, u_sigma=significant(sigma_pu * scale), **reading)

    def power(self, id, object, terminal, sigma, kind="sym", q_sigma=None):
        """A power sensor. sigma (VA) alone is the apparent power's, shared by P and Q; with q_sigma it is P's."""
        row = self.true_state()[object]
        end = {BRANCH_FROM: "_from", BRANCH_TO: "_to"}.get(terminal, "")
        per_phase = lambda s: [s] * 3 if kind == "asym" and not isinstance(s, list) else s
        sigmas = dict(power_sigma=sigma) if q_sigma is None else dict(p_sigma=per_phase(sigma), q_sigma=per_phase(q_sigma))
        reading = {}
        for x, s in zip("pq", [sigma / math.sqrt(2)] * 2 if q_sigma is None else (sigma, q_sigma)):
            values = row[x + end] if kind == "asym" else [sum(row[x + end])]
            reading[f"{x}_measured"] = self.noisy(values, s)
        if kind == "sym":
            reading = {k: v[0] for k, v in reading.items()}
        return self.grid.add(f"{kind}_power_sensor", id, measured_object=object, measured_terminal_type=terminal, **sigmas, **reading)

    def current(self, id, branch, terminal, i_sigma, angle_sigma, angle_type, kind="sym"):
        """A current sensor at a branch end: magnitude (A) and angle (rad), of the current itself or behind the local voltage."""
        item, row = self.grid.find(branch)[1], self.true_state()[branch]
        end = {BRANCH_FROM: "from", BRANCH_TO: "to"}[terminal]
        node = item[f"{end}_node"]
        u = self.truth[node]["u_pu"] * np.exp(1j * self.truth[node]["u_angle"]) * self.grid.find(node)[1]["u_rated"] / math.sqrt(3)
        i = np.conj((row[f"p_{end}"] + 1j * row[f"q_{end}"]) / u)
        angle = np.angle(i) if angle_type == GLOBAL_ANGLE else np.angle(u / i)
        reading = dict(i_measured=self.noisy(abs(i), i_sigma), i_angle_measured=self.noisy(angle, angle_sigma))
        if kind == "sym":
            reading = {k: v[0] for k, v in reading.items()}
        return self.grid.add(
            f"{kind}_current_sensor",
            id,
            measured_object=branch,
            measured_terminal_type=terminal,
            angle_measurement_type=angle_type,
            i_sigma=i_sigma,
            i_angle_sigma=angle_sigma,
            **reading,
        )

    def estimate(self, *kinds, update=None, tag=""):
        """The estimate, for "sym", "asym" or both: PGM's if it is at the optimum, else the dense solution."""
        for kind in kinds or ("sym", "asym"):
            self.estimate_one(kind, update, tag)

    def estimate_one(self, kind, update, tag):
        file, change = update or (None, None)
        symmetric, name = kind == "sym", f"est_{kind}{tag}.json"
        grid = self.grid.updated(change)
        try:
            result, reference = pgm_estimate(self.grid, symmetric, change)
        except (IterationDiverge, SparseMatrixError) as error:
            dense, best, _ = estimate(grid, symmetric)
            why = "finds no solution" if isinstance(error, IterationDiverge) else "stops with a singular matrix"
            self.dense(
                name,
                symmetric,
                dense,
                file,
                f"power-grid-model's Newton-Raphson {why} here (`../notes.md`, Defects); the sum of squared weighted "
                f"residuals is {best:.4g}.",
            )
            return
        pgm = output_data(result)
        dense, best, theirs = estimate(grid, symmetric, voltages(pgm))
        gap = largest_difference(pgm, dense)
        flows = [
            s
            for k, items in grid.data.items()
            for s in items
            if k.endswith(("power_sensor", "current_sensor")) and s["measured_terminal_type"] in (BRANCH_FROM, BRANCH_TO, SHUNT)
        ]
        if gap < (1e-7 if "link" in grid.data else 1e-8):
            self.check(name, "estimate", symmetric, reference, EST_TOLERANCE, pgm, file)
            self.notes.append(
                f"`{name}`: the dense solution of `../wls.py` has the same voltages within {nice_bound(gap)} p.u.; "
                f"the sum of squared weighted residuals is {best:.4g}."
            )
        elif not symmetric and flows and theirs > best:
            self.dense(
                name,
                symmetric,
                dense,
                file,
                "power-grid-model's three-phase Newton-Raphson does not reach the optimum when branch or shunt flows are "
                f"measured (`../notes.md`, Defects): the sum of squared weighted residuals is {best:.4g} here and {theirs:.4g} there, "
                f"and the voltages differ by up to {gap:.1g} p.u.",
            )
        else:
            raise RuntimeError(f"{self.name}/{name}: power-grid-model and wls.py differ by {gap:.1e} p.u., J {theirs:.9g} and {best:.9g}")

    def dense(self, name, symmetric, data, file, why):
        self.check(name, "estimate", symmetric, WLS, EST_TOLERANCE, output_data(data), file)
        self.notes.append(f"`{name}`: the dense solution of `../wls.py`, because {why}")

    def write(self, root):
        folder = root / self.name
        folder.mkdir(parents=True, exist_ok=True)
        rows = ",\n".join("  " + json.dumps(c) for c in self.checks)
        files = {
            "README.md": self.readme(),
            "input.json": dataset_text("input", self.grid.data),
            "case.json": f"[\n{rows}\n]\n",
        } | self.files
        for old in folder.iterdir():
            if old.name not in files:
                old.unlink()
        for name, text in files.items():
            (folder / name).write_text(text)
        size = sum(len(t) for t in files.values())
        if size > 1.5e6:
            raise RuntimeError(f"{self.name} is {size} bytes")
        return files

    def readme(self):
        lines = [
            f"# {self.name}",
            "",
            self.text,
            "",
            "## Where the expectations come from",
            "",
            "| file | calculation | program and method | tolerance, p.u. |",
            "|---|---|---|---|",
        ]
        for c in self.checks:
            kind = ("symmetric " if c["symmetric"] else "three-phase ") + c["calculation"].replace("_", " ")
            if "update" in c:
                kind += f" after `{c['update']}`"
            lines.append(f"| `{c['expected']}` | {kind} | {c['reference']} | {c['tolerance_pu']:g} |")
        for note in self.notes:
            lines += ["", *textwrap.wrap(note, 132, break_long_words=False, break_on_hyphens=False)]
        return "\n".join(lines + ["", "Written by `../generate.py`; conventions in `../notes.md`."]) + "\n"


def nice_bound(x):
    """The smallest of 1, 2, 5 times a power of ten that is not below x."""
    for exponent in range(-12, 0):
        for m in (1, 2, 5):
            if x <= m * 10.0**exponent:
                return f"{m}e{exponent}"
    return f"{x:.1g}"


CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


def build(name):
    import inspect

    c = Case(name, inspect.cleandoc(CASES[name].__doc__))
    CASES[name](c)
    return c
