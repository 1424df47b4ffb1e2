"""The three-phase power flow of the same network by OpenDSS: an independent program on an independently built circuit.

Sources, lines and shunts are OpenDSS's own elements; a transformer is a bank of three single-phase units wired phase by phase, so that the
vector group comes out of the wiring and not out of a formula.
"""

import cmath, math
from wls import BRANCHES, CONST_CURRENT, CONST_IMPEDANCE, CONST_POWER, DELTA, FREQUENCY, S_BASE, WYE, ZIGZAG, ZIGZAG_N, tapped


class OpenDss:
    """The same network as an OpenDSS circuit, three-phase. Nodes without a source are left out."""

    def __init__(self, grid, live):
        from dss import DSS

        self.dss, self.grid = DSS, grid
        self.live = {n["id"]: n["u_rated"] for n in grid.data["node"] if n["id"] in live}
        self.first = True
        self.run("clear")
        self.run(f"set defaultbasefrequency={FREQUENCY}")
        for kind in ("source", "line", "link", "transformer", "shunt"):
            for item in grid.data.get(kind, []):
                if kind in BRANCHES or (item["node"] in self.live and item["status"]):
                    getattr(self, kind)(item)
        for kind, sign in (("sym_load", 1), ("asym_load", 1), ("sym_gen", -1), ("asym_gen", -1)):
            for item in grid.data.get(kind, []):
                if item["node"] in self.live and item["status"]:
                    self.load(item, sign)

    def run(self, command):
        self.dss.Text.Command = command

    def solve(self):
        for command in ("set controlmode=off", "set maxiterations=1000", "set tolerance=1e-10", "solve"):
            self.run(command)
        if not self.dss.ActiveCircuit.Solution.Converged:
            raise RuntimeError("OpenDSS did not converge")
        self.run("solve")  # once more from the solution: the stopping test looks at the change of one step
        values = self.dss.ActiveCircuit.YNodeVarray
        volts = {name.lower(): complex(values[2 * k], values[2 * k + 1]) for k, name in enumerate(self.dss.ActiveCircuit.YNodeOrder)}
        nodes = []
        for id, u_rated in self.live.items():
            u = [volts[f"n{id}.{p}"] / (u_rated / math.sqrt(3)) for p in (1, 2, 3)]
            nodes.append({"id": id, "u_pu": [round(abs(v), 10) for v in u], "u_angle": [round(cmath.phase(v), 10) for v in u]})
        return {"node": nodes}

    def end(self, item, side):
        """The bus of a branch end; an open end gets a bus of its own."""
        node = item[f"{side}_node"]
        return f"n{node}" if item[f"{side}_status"] and node in self.live else f"open{item['id']}{side}"

    def connected(self, item):
        return any(item[f"{s}_status"] and item[f"{s}_node"] in self.live for s in ("from", "to"))

    def source(self, s):
        u = self.live[s["node"]]
        z = u * u / s.get("sk", 1e10)
        rx = s.get("rx_ratio", 0.1)
        x = z / math.hypot(1, rx)
        ratio = s.get("z01_ratio", 1.0)
        what = "circuit.case" if self.first else f"vsource.s{s['id']}"
        self.first = False
        self.run(
            f"new {what} phases=3 bus1=n{s['node']} basekv={u / 1e3!r} pu={s['u_ref']!r} "
            f"angle={math.degrees(s.get('u_ref_angle', 0.0))!r} z1=[{rx * x!r} {x!r}] z0=[{ratio * rx * x!r} {ratio * x!r}]"
        )

    def line(self, l):
        if not self.connected(l):
            return
        ends = [self.end(l, "from"), self.end(l, "to")]
        self.run(
            f"new line.l{l['id']} phases=3 bus1={ends[0]} bus2={ends[1]} length=1 units=none r1={l['r1']!r} x1={l['x1']!r} "
            f"r0={l['r0']!r} x0={l['x0']!r} c1={l['c1'] * 1e9!r} c0={l['c0'] * 1e9!r}"
        )
        g1, g0 = (math.pi * FREQUENCY * l["c" + s] * l["tan" + s] for s in "10")  # half at each end
        for k, bus in enumerate(ends):
            self.admittance(f"l{l['id']}_{k}", bus, g1, g0)

    def link(self, l):
        """PGM's link: (1 + j) 1e8 p.u. of admittance."""
        z = self.grid.find(l["from_node"])[1]["u_rated"] ** 2 / S_BASE / (1 + 1j) / 1e8
        self.line(l | dict(r1=z.real, x1=z.imag, r0=z.real, x0=z.imag, c1=0.0, c0=0.0, tan1=0.0, tan0=0.0))

    def shunt(self, s):
        self.admittance(f"s{s['id']}", f"n{s['node']}", complex(s["g1"], s["b1"]), complex(s["g0"], s["b0"]))

    def admittance(self, name, bus, y1, y0):
        if y1 == 0 and y0 == 0:
            return
        z1, z0 = (1 / y if y else 1e12 for y in (complex(y1), complex(y0)))
        self.run(f"new reactor.{name} phases=3 bus1={bus} z1=[{z1.real!r} {z1.imag!r}] z0=[{z0.real!r} {z0.imag!r}]")

    def transformer(self, t):
        """Three single-phase units. A winding's wiring gives the vector group: +1 or -1 says which neighbour a delta or a
        phase shift uses; a rotation of the phases adds 4 hours, a reversal 6."""
        if not self.connected(t):
            return
        if t["i0"] or t["p0"]:
            raise ValueError("the OpenDSS circuit has no magnetising branch")
        u, uk, pk = tapped(t)
        windings, clock = (t["winding_from"], t["winding_to"]), t["clock"] % 12
        if any(w in (ZIGZAG, ZIGZAG_N) for w in windings):
            raise ValueError("zigzag windings are not built")
        turn, hours = self.delta_turn(windings, clock)
        reversed_, rotation = next((s, r) for s in (0, 1) for r in range(3) if (hours + 6 * s - 4 * r - clock) % 12 == 0)
        kv = [u[k] / (1e3 if windings[k] == DELTA else 1e3 * math.sqrt(3)) for k in (0, 1)]
        percent_r = 100 * pk / t["sn"]
        percent_x = math.sqrt((100 * uk) ** 2 - percent_r**2)
        buses = [self.end(t, "from"), self.end(t, "to")]
        neutral = [self.neutral(t, k, buses[k], windings[k]) for k in (0, 1)]
        for phase in range(3):
            terminals = []
            for k in (0, 1):
                p = (phase + (rotation if k else 0)) % 3
                other = (p + turn[k]) % 3 + 1 if windings[k] == DELTA else neutral[k]
                pair = [p + 1, other]
                if k and reversed_:
                    pair.reverse()
                terminals.append(f"{buses[k]}.{pair[0]}.{pair[1]}")
            self.run(
                f"new transformer.t{t['id']}_{phase} phases=1 windings=2 buses=[{terminals[0]}, {terminals[1]}] "
                f"kvs=[{kv[0]!r} {kv[1]!r}] kvas=[{t['sn'] / 3e3!r} {t['sn'] / 3e3!r}] "
                f"%rs=[{percent_r / 2!r} {percent_r / 2!r}] xhl={percent_x!r} %noloadloss=0 %imag=0 ppm_antifloat=0"
            )

    @staticmethod
    def delta_turn(windings, clock):
        """Which neighbour each delta winding uses, and the clock number this wiring has."""
        from_delta, to_delta = (w == DELTA for w in windings)
        if from_delta == to_delta:
            return (1, 1), 0
        lag = 1 if clock % 4 == 1 else -1  # 1, 5 and 9 are 1 plus a rotation; 3, 7 and 11 are 11 plus a rotation
        return (1, lag) if to_delta else (-lag, 1), lag % 12

    def neutral(self, t, k, bus, winding):
        """The bus node of a wye winding's star point: earth, or a node of its own where it is free or earthed through an impedance."""
        if winding == DELTA:
            return 0
        node = 4 + self.grid.data["transformer"].index(t)
        if winding == WYE:
            return 0 if k == 0 and t["winding_to"] == WYE else node  # two free star points: earthing one changes nothing
        side = ("from", "to")[k]
        z = complex(t.get(f"r_grounding_{side}", 0.0), t.get(f"x_grounding_{side}", 0.0))
        if z == 0:
            return 0
        self.run(f"new reactor.g{t['id']}{side} phases=1 bus1={bus}.{node} bus2={bus}.0 r={z.real!r} x={z.imag!r}")
        return node

    def load(self, item, sign):
        u = self.live[item["node"]]
        model = {CONST_POWER: 1, CONST_IMPEDANCE: 2, CONST_CURRENT: 5}[item["type"]]
        limits = f"model={model} vminpu=0.3 vmaxpu=2 status=fixed"
        p, q = item["p_specified"], item["q_specified"]
        if isinstance(p, list):
            for k in range(3):
                if p[k] or q[k]:
                    self.run(
                        f"new load.d{item['id']}_{k} phases=1 bus1=n{item['node']}.{k + 1} kv={u / 1e3 / math.sqrt(3)!r} "
                        f"kw={sign * p[k] / 1e3!r} kvar={sign * q[k] / 1e3!r} {limits}"
                    )
        else:
            self.run(
                f"new load.d{item['id']} phases=3 conn=wye bus1=n{item['node']} kv={u / 1e3!r} kw={sign * p / 1e3!r} "
                f"kvar={sign * q / 1e3!r} {limits}"
            )
