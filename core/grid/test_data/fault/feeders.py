"""The feeders of the fault records: of the kind of the IEEE 13, 34 and 123 node test feeders, at 50 Hz and with transposed lines.

Lengths and connections of the first two follow the published feeders; impedances are the transposed averages of their line types, and
loads are rounded. The third is drawn at random with a fixed seed. A line of one or two phases has the impedances that give those
conductors their self and mutual impedance: z1 = z_self - z_mutual, z0 = z_self + 2 z_mutual; no mutual one if it is single-phase.
"""

import random

FOOT_M = 0.3048
MILE_M = 1609.344
WYE_N, DELTA = 1, 2
POWER, IMPEDANCE, CURRENT = 0, 1, 2
LINES, TRANSFORMERS, LOADS, SHUNTS, SOURCE = 1000, 2000, 3000, 4000, 5000


class Feeder:
    """A power-grid-model input dataset, and what it does not hold of lines: length, phases, fuses."""

    def __init__(self, u_source, u_ref=1.02, sk=1.5e8):
        node = dict(id=1, u_rated=u_source)
        source = dict(id=SOURCE, node=1, status=1, u_ref=u_ref, sk=sk, rx_ratio=0.15, z01_ratio=0.9)
        self.data = dict(node=[node], line=[], transformer=[], source=[source], asym_load=[], shunt=[])
        self.u = {1: u_source}
        self.length, self.phases, self.fuses = {}, {}, set()

    def find(self, node):
        return "node", next(n for n in self.data["node"] if n["id"] == node)

    def node(self, node, u):
        self.u[node] = u
        self.data["node"].append(dict(id=node, u_rated=u))

    def line(self, a, b, length, z_self, z_mutual, phases="abc", c1=0.0, c0=0.0, fuse=False):
        """Impedances in ohm/km, capacitances in F/km, the length in m."""
        self.node(b, self.u[a])
        km = length / 1e3
        if len(phases) == 1:
            z_mutual, c0 = 0, c1
        z1, z0 = (z_self - z_mutual) * km, (z_self + 2 * z_mutual) * km
        item = dict(
            id=LINES + len(self.data["line"]), from_node=a, to_node=b, from_status=1, to_status=1,
            r1=z1.real, x1=z1.imag, c1=c1 * km, tan1=0.0, r0=z0.real, x0=z0.imag, c0=c0 * km, tan0=0.0,
        )
        item = {k: round(v, 15) for k, v in item.items()}
        self.data["line"].append(item)
        self.length[item["id"]] = round(length, 1)
        if phases != "abc":
            self.phases[item["id"]] = phases
        if fuse:
            self.fuses.add(item["id"])

    def transformer(self, a, b, u2, sn, uk, pk, windings=(WYE_N, WYE_N), clock=0, tap=0):
        u1 = self.u[a]
        self.node(b, u2)
        item = dict(
            id=TRANSFORMERS + len(self.data["transformer"]), from_node=a, to_node=b, from_status=1, to_status=1, u1=u1, u2=u2, sn=sn,
            uk=uk, pk=pk, i0=0.0, p0=0.0, winding_from=windings[0], winding_to=windings[1], clock=clock, tap_side=1, tap_pos=tap,
            tap_min=-16, tap_max=16, tap_nom=0, tap_size=u2 * 0.00625,
        )
        self.data["transformer"].append(item)

    def load(self, node, kw, kvar, kind=POWER):
        kw, kvar = ([x] * 3 if not isinstance(x, (list, tuple)) else list(x) for x in (kw, kvar))
        item = dict(id=LOADS + len(self.data["asym_load"]), node=node, status=1, type=kind)
        item |= dict(p_specified=[x * 1e3 for x in kw], q_specified=[x * 1e3 for x in kvar])
        self.data["asym_load"].append(item)

    def capacitor(self, node, kvar):
        b = kvar * 1e3 / self.u[node] ** 2
        self.data["shunt"].append(dict(id=SHUNTS + len(self.data["shunt"]), node=node, status=1, g1=0.0, b1=b, g0=0.0, b0=b))


def thirteen():
    """A short, heavily loaded 4.16 kV feeder with a regulator and a Dyn1 transformer."""
    f = Feeder(4160.0)
    main = dict(z_self=0.212 + 0.645j, z_mutual=0.097 + 0.266j, c1=9e-9, c0=5e-9)
    lateral = dict(z_self=0.826 + 0.837j, z_mutual=0.128 + 0.285j, c1=7e-9, c0=4e-9)
    f.line(1, 650, 20, **main)
    f.transformer(650, 651, 4160.0, 5e6, 0.01, 2.5e4, tap=5)
    f.line(651, 632, 2000 * FOOT_M, **main)
    f.line(632, 670, 700 * FOOT_M, **main)
    f.line(670, 671, 1300 * FOOT_M, **main)
    f.line(671, 680, 1000 * FOOT_M, **main, fuse=True)
    f.line(632, 633, 500 * FOOT_M, **lateral, fuse=True)
    f.transformer(633, 634, 480.0, 5e5, 0.023, 5.5e3, windings=(DELTA, WYE_N), clock=1)
    f.line(634, 635, 40, 0.12 + 0.09j, 0.03 + 0.02j)
    f.line(632, 645, 500 * FOOT_M, **lateral, phases="bc", fuse=True)
    f.line(645, 646, 300 * FOOT_M, **lateral, phases="bc")
    f.line(671, 684, 300 * FOOT_M, **lateral, phases="ac", fuse=True)
    f.line(684, 652, 800 * FOOT_M, **lateral, phases="a", fuse=True)
    f.line(684, 611, 300 * FOOT_M, **lateral, phases="c", fuse=True)
    f.line(671, 675, 500 * FOOT_M, **main, fuse=True)
    f.load(635, [160, 120, 120], [110, 90, 90])
    f.load(645, [0, 170, 0], [0, 125, 0])
    f.load(646, [0, 115, 115], [0, 66, 66], IMPEDANCE)
    f.load(652, [128, 0, 0], [86, 0, 0], IMPEDANCE)
    f.load(671, 385, 220)
    f.load(675, [485, 68, 290], [190, 60, 212])
    f.load(611, [0, 0, 170], [0, 0, 80], CURRENT)
    f.load(670, [17, 66, 117], [10, 38, 68])
    f.load(671, [85, 0, 85], [75, 0, 75], CURRENT)
    f.capacitor(675, 600)
    return f


def thirtyfour():
    """A long, lightly loaded 24.9 kV feeder with two regulators and a 4.16 kV part behind a transformer."""
    f = Feeder(24900.0, u_ref=1.04)
    main = dict(z_self=(1.3368 + 1.3343j) / 1.609344, z_mutual=(0.2101 + 0.5779j) / 1.609344, c1=10e-9, c0=6e-9)
    small = dict(z_self=(1.93 + 1.4115j) / 1.609344, z_mutual=(0.2327 + 0.6442j) / 1.609344, c1=10e-9, c0=6e-9)
    single = dict(z_self=(2.7995 + 1.4855j) / 1.609344, z_mutual=0, c1=8e-9)

    def line(a, b, feet, kind, **more):
        f.line(a, b, feet * FOOT_M, **kind, **more)

    line(1, 802, 2580, main)
    line(802, 806, 1730, main)
    line(806, 808, 32230, main)
    line(808, 810, 5804, single, phases="b", fuse=True)
    line(808, 812, 37500, main)
    line(812, 814, 29730, main)
    f.transformer(814, 850, 24900.0, 5e6, 0.01, 2.5e4, tap=6)
    line(850, 816, 310, small)
    line(816, 818, 1710, single, phases="a", fuse=True)
    line(818, 820, 48150, single, phases="a")
    line(820, 822, 13740, single, phases="a")
    line(816, 824, 10210, small)
    line(824, 826, 3030, single, phases="b", fuse=True)
    line(824, 828, 840, small)
    line(828, 830, 20440, small)
    line(830, 854, 520, small)
    line(854, 856, 23330, single, phases="b", fuse=True)
    line(854, 852, 36830, small)
    f.transformer(852, 832, 24900.0, 5e6, 0.01, 2.5e4, tap=8)
    f.transformer(832, 888, 4160.0, 5e5, 0.045, 9.5e3, windings=(WYE_N, WYE_N))
    line(888, 890, 10560, main, fuse=True)
    line(832, 858, 4900, small)
    line(858, 864, 1620, single, phases="a", fuse=True)
    line(858, 834, 5830, small)
    line(834, 842, 280, small, fuse=True)
    line(842, 844, 1350, small)
    line(844, 846, 3640, small)
    line(846, 848, 530, small)
    line(834, 860, 2020, small)
    line(860, 836, 2680, small)
    line(836, 840, 860, small, fuse=True)
    line(836, 862, 280, small)
    line(862, 838, 4860, single, phases="b", fuse=True)
    for node, kw in ((860, 45), (840, 25), (844, 145), (848, 40), (890, 150), (830, 15), (802, 18), (834, 20)):
        f.load(node, [kw, kw * 0.9, kw * 1.1], kw * 0.5, POWER if kw != 150 else CURRENT)
    for node, phase, kw in ((822, "a", 135), (820, "a", 34), (810, "b", 16), (826, "b", 40), (856, "b", 4), (864, "a", 2), (838, "b", 28)):
        f.load(node, *([p * (phase == k) for k in "abc"] for p in (kw, kw * 0.5)), IMPEDANCE if kw == 135 else POWER)
    f.capacitor(844, 300)
    f.capacitor(848, 450)
    return f


def hundred():
    """120 nodes at 4.16 kV: a trunk and many fused laterals of one, two and three phases."""
    draw = random.Random(123)
    f = Feeder(4160.0)
    trunk = dict(z_self=0.284 + 0.67j, z_mutual=0.098 + 0.28j, c1=9e-9, c0=5e-9)
    lateral = dict(z_self=0.826 + 0.837j, z_mutual=0.128 + 0.285j, c1=7e-9, c0=4e-9)
    at, tips = 1, []
    number = iter(range(2, 121))
    for _ in range(24):
        b = next(number)
        start = at if draw.random() < 0.75 or at < 4 else draw.choice(tips[-6:-1])
        f.line(start, b, draw.uniform(70, 250), **trunk)
        tips.append(b)
        at = b
    laterals = []
    for b in number:
        if draw.random() < 0.55 or not laterals:
            a = draw.choice(tips[1:])
            phases = draw.choice(["a", "b", "c", "a", "b", "c", "ab", "bc", "ac", "abc"])
            f.line(a, b, draw.uniform(50, 180), **lateral, phases=phases, fuse=True)
        else:
            a, phases = draw.choice(laterals)
            f.line(a, b, draw.uniform(50, 180), **lateral, phases=phases)
        laterals.append((b, phases))
        if draw.random() < 0.8:
            kw = [draw.choice([10, 20, 40]) if p in phases else 0 for p in "abc"]
            f.load(b, kw, [x * 0.5 for x in kw], draw.choice([POWER, POWER, IMPEDANCE, CURRENT]))
    for node in tips[::4]:
        f.load(node, [30, 40, 35], 20)
    f.capacitor(tips[-1], 300)
    return f


FEEDERS = dict(thirteen=thirteen, thirtyfour=thirtyfour, hundred=hundred)
