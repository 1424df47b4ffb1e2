"""The feeders of the fault records: of the kind of the IEEE 13, 34 and 123 node test feeders, at 50 Hz and with transposed lines.

Lengths and connections follow the published feeders; impedances are close to transposed averages of their line types, loads are
rounded and partly moved. A line of one or two phases has the impedances that give those
conductors their self and mutual impedance: z1 = z_self - z_mutual, z0 = z_self + 2 z_mutual; no mutual one if it is single-phase.
"""

FOOT_M = 0.3048
MILE_M = 1609.344
WYE_N, DELTA = 1, 2
POWER, IMPEDANCE, CURRENT = 0, 1, 2
HEAD = 1000
LINES, TRANSFORMERS, LOADS, SHUNTS, SOURCE = 1001, 2001, 3001, 4001, 5001


class Feeder:
    """A power-grid-model input dataset, and what it does not hold of lines: length, phases, fuses."""

    def __init__(self, u_source, u_ref=1.02, sk=1.5e8):
        node = dict(id=HEAD, u_rated=u_source)
        source = dict(id=SOURCE, node=HEAD, status=1, u_ref=u_ref, sk=sk, rx_ratio=0.15, z01_ratio=0.9)
        self.data = dict(node=[node], line=[], transformer=[], source=[source], asym_load=[], shunt=[])
        self.u = {HEAD: u_source}
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


def feeder_13():
    """A short, heavily loaded 4.16 kV feeder with a regulator and a Dyn1 transformer."""
    f = Feeder(4160.0)
    main = dict(z_self=0.212 + 0.645j, z_mutual=0.097 + 0.266j, c1=9e-9, c0=5e-9)
    lateral = dict(z_self=0.826 + 0.837j, z_mutual=0.128 + 0.285j, c1=7e-9, c0=4e-9)
    f.line(HEAD, 650, 20, **main)
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


def feeder_34():
    """A long, lightly loaded 24.9 kV feeder with two regulators and a 4.16 kV part behind a transformer."""
    f = Feeder(24900.0, u_ref=1.04)
    main = dict(z_self=(1.3368 + 1.3343j) / 1.609344, z_mutual=(0.2101 + 0.5779j) / 1.609344, c1=10e-9, c0=6e-9)
    small = dict(z_self=(1.93 + 1.4115j) / 1.609344, z_mutual=(0.2327 + 0.6442j) / 1.609344, c1=10e-9, c0=6e-9)
    single = dict(z_self=(2.7995 + 1.4855j) / 1.609344, z_mutual=0, c1=8e-9)

    def line(a, b, feet, kind, **more):
        f.line(a, b, feet * FOOT_M, **kind, **more)

    line(HEAD, 802, 2580, main)
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


# near node, far node, feet, phases of the 123-node feeder; its closed switches have no line of their own
LINES_123 = """
149 1 400 abc|1 2 175 b|1 3 250 c|1 7 300 abc|3 4 200 c|3 5 325 c|5 6 250 c|7 8 200 abc|8 12 225 b|8 9 225 a|8 13 300 abc|9 14 425 a
14 11 250 a|14 10 250 a|13 34 150 c|13 18 825 abc|34 15 100 c|15 16 375 c|15 17 350 c|18 19 250 a|18 21 300 abc|19 20 325 a
21 22 525 b|21 23 250 abc|23 24 550 c|23 25 275 abc|25 26 350 ac|25 28 200 abc|26 27 275 ac|26 31 225 c|27 33 500 a|28 29 300 abc
29 30 350 abc|30 250 200 abc|31 32 300 c|18 35 375 abc|35 36 650 ab|35 40 250 abc|36 37 300 a|36 38 250 b|38 39 325 b|40 41 325 c
40 42 250 abc|42 43 500 b|42 44 200 abc|44 45 200 a|44 47 250 abc|45 46 300 a|47 48 150 abc|47 49 250 abc|49 50 250 abc|50 51 250 abc
51 151 500 abc|13 52 400 abc|52 53 200 abc|53 54 125 abc|54 55 275 abc|54 57 350 abc|55 56 275 abc|57 58 250 b|57 60 750 abc
58 59 250 b|60 61 550 abc|60 62 250 abc|62 63 175 abc|63 64 350 abc|64 65 425 abc|65 66 325 abc|60 67 350 abc|67 68 200 a|67 72 275 abc
67 97 250 abc|68 69 275 a|69 70 325 a|70 71 275 a|72 73 275 c|72 76 200 abc|73 74 350 c|74 75 400 c|76 77 400 abc|76 86 700 abc
77 78 100 abc|78 79 225 abc|78 80 475 abc|80 81 475 abc|81 82 250 abc|81 84 675 c|82 83 250 abc|84 85 475 c|86 87 450 abc|87 88 175 a
87 89 275 abc|89 90 225 b|89 91 225 abc|91 92 300 c|91 93 225 abc|93 94 275 a|93 95 300 abc|95 96 200 b|97 98 275 abc|98 99 550 abc
99 100 300 abc|100 450 800 abc|97 101 250 abc|101 102 225 c|101 105 275 abc|102 103 325 c|103 104 700 c|105 106 225 b|105 108 325 abc
106 107 575 b|108 109 450 a|108 300 1000 abc|109 110 300 a|110 111 575 a|110 112 125 a|112 113 525 a|113 114 325 a
"""
# the closed sectionalizing switches of the published feeder, here reclosers
RECLOSERS_123 = {(13, 52), (18, 35), (60, 67), (97, 101)}
# no load in the published feeder
EMPTY_123 = {3, 8, 13, 14, 15, 18, 21, 23, 25, 26, 27, 36, 40, 44, 54, 57, 61, 67, 72, 78, 81, 89, 91, 93, 97, 101, 105, 108, 110, 149}


def feeder_123():
    """A 4.16 kV feeder with four reclosers and many laterals of one and two phases, each with a fuse."""
    f = Feeder(4160.0)
    main = dict(z_self=(0.4615 + 1.0651j) / 1.609344, z_mutual=(0.1558 + 0.4347j) / 1.609344, c1=9e-9, c0=5e-9)
    cable = dict(z_self=(1.5209 + 0.7521j) / 1.609344, z_mutual=(0.5198 + 0.2775j) / 1.609344, c1=160e-9, c0=160e-9)
    lateral = dict(z_self=(1.3292 + 1.3475j) / 1.609344, z_mutual=(0.2066 + 0.4591j) / 1.609344, c1=7e-9, c0=4e-9)
    f.line(HEAD, 149, 20, **main)
    phases_of = {149: "abc"}
    for n, text in enumerate(LINES_123.replace("\n", "|").strip("|").split("|")):
        a, b, feet, phases = text.split()
        a, b = int(a), int(b)
        kind = cable if 60 < b < 67 else main if phases == "abc" else lateral
        f.line(a, b, int(feet) * FOOT_M, **kind, phases=phases, fuse=len(phases) < len(phases_of[a]) or (a, b) in RECLOSERS_123)
        phases_of[b] = phases
        if b not in EMPTY_123 and (phases != "abc" or n % 3 == 0):
            kw = 40 if n % 2 else 20
            alone = phases if phases != "abc" else "abcbacb"[n % 7]
            kw = [kw if p in alone else 0 for p in "abc"]
            f.load(b, kw, [x * 0.5 for x in kw], [POWER, POWER, IMPEDANCE, POWER, CURRENT][n % 5])
    for node, kw in ((47, [35, 35, 35]), (48, [70, 70, 70]), (49, [35, 70, 35]), (65, [35, 35, 70]), (76, [105, 70, 70])):
        f.load(node, kw, [x * 0.7 for x in kw])
    f.capacitor(83, 600)
    return f


FEEDERS = dict(feeder_13=feeder_13, feeder_34=feeder_34, feeder_123=feeder_123)
