"""The power-flow cases. A case is a function; its docstring is the README's text."""

import math
from case import Rng, case, significant
from wls import *

# Ohm and farad per km (i_n in A). Cables: XLPE 3x240 Al at 10-20 kV, NAYY 4x150 and 4x35 Al at 0.4 kV; overhead: Al/St 94/15.
MV_CABLE = dict(r1=0.125, x1=0.110, c1=0.36e-6, tan1=0.004, r0=0.61, x0=0.39, c0=0.36e-6, tan0=0.004, i_n=360.0)
MV_OVERHEAD = dict(r1=0.306, x1=0.355, c1=10.3e-9, tan1=0.0, r0=0.454, x0=1.62, c0=4.5e-9, tan0=0.0, i_n=350.0)
LV_CABLE = dict(r1=0.206, x1=0.080, c1=0.83e-6, tan1=0.0, r0=0.824, x0=0.320, c0=0.41e-6, tan0=0.0, i_n=275.0)
LV_SERVICE = dict(r1=0.868, x1=0.086, c1=0.58e-6, tan1=0.0, r0=3.472, x0=0.344, c0=0.29e-6, tan0=0.0, i_n=123.0)


@case
def two_nodes_line(c):
    """
    A load of 2.4 MW and 0.9 Mvar behind a source and 6 km of overhead line at 10 kV, without capacitance: the smallest network
    with an answer that is neither trivial nor flat, checked by hand.

    ```text
    (100) source          (10) line 6 km            (20) load 2.4 MW + 0.9 Mvar
      E ~~[Zs]~~ node 1 ------------------- node 2 --->
    ```

    By hand. Let E be the source's voltage, Z = R + jX the whole impedance between E and node 2, P + jQ the load, all in p.u. of 1
    MVA and 10 kV (100 Ω). The source: |Zs| = 1 MVA / 200 MVA = 0.005, Xs = 0.005 / √(1 + 0.1²), Rs = 0.1 Xs. The line: (1.836 +
    j2.13) Ω / 100 Ω. With A = E² - 2 (PR + QX), the load's voltage solves U⁴ - A U² + |Z|² (P² + Q²) = 0, and its larger root is
    the answer:

        U2² = (A + √(A² - 4 |Z|² (P² + Q²))) / 2        angle of U2 = -atan2(PX - QR, U2² + PR + QX)
    """
    g = c.grid
    g.nodes(10e3, 1, 2)
    g.line(10, 1, 2, MV_OVERHEAD | dict(c1=0.0, c0=0.0), 6.0)
    g.load(20, 2, 2.4e6, 0.9e6)
    g.source(100, 1, u_ref=1.02, sk=200e6, rx_ratio=0.1, z01_ratio=1.0)
    data = c.power_flow("sym")
    c.power_flow("asym")
    x = 0.005 / math.hypot(1, 0.1)
    r, x = 0.1 * x + 1.836 / 100, x + 2.13 / 100
    p, q = 2.4, 0.9
    a = 1.02**2 - 2 * (p * r + q * x)
    u2 = (a + math.sqrt(a * a - 4 * (r * r + x * x) * (p * p + q * q))) / 2
    u, angle = math.sqrt(u2), -math.atan2(p * x - q * r, u2 + p * r + q * x)
    node = data["node"][1]
    if max(abs(node["u_pu"] - u), abs(node["u_angle"] - angle)) > 1e-11:
        raise RuntimeError("the hand calculation differs")
    c.notes.append(
        f"The hand calculation gives U2 = {u:.10f} p.u. at {angle:.10f} rad, equal to power-grid-model's within 1e-11; the "
        "three-phase answer is the same in each phase, turned by 0, -120 and +120 degrees."
    )


@case
def line_charging(c):
    """
    Cable capacitance. A 24 km cable at 20 kV, almost unloaded at its end: the charging current raises the voltage along it
    (Ferranti), the loss factor of the insulation (`tan1`, `tan0`) costs active power, and the overhead spur has a zero-sequence
    capacitance (`c0`) of less than half the positive-sequence one. The single-phase load makes all sequences matter.

    ```text
    (100) source      (10) cable 14 km       (11) cable 10 km
      ~~~~ node 1 ------------------- node 2 ------------------- node 3 --> (21) 40 kW
                                        |
                                        | (12) overhead 9 km
                                        |
                                      node 4 --> (22) 350 kW on phase b, 60 kW on phase c
    ```
    """
    g = c.grid
    g.nodes(20e3, 1, 2, 3, 4)
    lossy = MV_CABLE | dict(tan1=0.012, tan0=0.02, c0=0.29e-6)
    g.line(10, 1, 2, lossy, 14.0)
    g.line(11, 2, 3, lossy, 10.0)
    g.line(12, 2, 4, MV_OVERHEAD, 9.0)
    g.load(21, 3, 40e3, 10e3)
    g.load(22, 4, [0.0, 350e3, 60e3], [0.0, 120e3, 10e3])
    g.source(100, 1, u_ref=1.0, sk=80e6, rx_ratio=0.2, z01_ratio=2.0)
    c.power_flow()
    c.opendss()


@case
def shunt_and_load_types(c):
    """
    Constant power, constant impedance and constant current loads, symmetric and per phase, at voltages well away from 1 p.u., so that
    the three types differ; shunts with conductance and susceptance whose zero sequence differs from the positive one
    (a capacitor bank with an earthed star point through an impedance, and one that is not earthed at all: g0 = b0 = 0).

    ```text
    (100) source      (10) 4 km         (11) 3 km         (12) 5 km
      ~~~~ node 1 ------------- node 2 ------------- node 3 ------------- node 4
                                  |                    |                    |
                     (20) Z, sym  |       (30) shunt   |       (40) shunt   |
                     (21) I, sym  v       (31) P, abc  v       (41) Z, abc  v
                     (22) P, sym          (32) I, abc          (42) I, abc: a only
                                          (33) gen, I, sym     (43) gen, Z, abc
    ```
    """
    g = c.grid
    g.nodes(10e3, 1, 2, 3, 4)
    for id, ends, km in ((10, (1, 2), 4.0), (11, (2, 3), 3.0), (12, (3, 4), 5.0)):
        g.line(id, *ends, MV_OVERHEAD, km)
    g.load(20, 2, 0.8e6, 0.3e6, CONST_IMPEDANCE)
    g.load(21, 2, 0.5e6, 0.2e6, CONST_CURRENT)
    g.load(22, 2, 0.4e6, 0.1e6, CONST_POWER)
    g.shunt(30, 3, g1=2e-5, b1=3e-3, g0=1e-5, b0=8e-4)
    g.load(31, 3, [300e3, 120e3, 80e3], [90e3, 50e3, 40e3], CONST_POWER)
    g.load(32, 3, [60e3, 200e3, 90e3], [10e3, 80e3, 30e3], CONST_CURRENT)
    g.gen(33, 3, 0.15e6, 0.05e6, CONST_CURRENT)
    g.shunt(40, 4, g1=1e-5, b1=-1.2e-3, g0=0.0, b0=0.0)
    g.load(41, 4, [100e3, 150e3, 220e3], [30e3, 60e3, 70e3], CONST_IMPEDANCE)
    g.load(42, 4, [250e3, 0.0, 0.0], [110e3, 0.0, 0.0], CONST_CURRENT)
    g.gen(43, 4, [0.0, 90e3, 40e3], [0.0, -20e3, 10e3], CONST_IMPEDANCE)
    g.source(100, 1, u_ref=0.97, sk=60e6, rx_ratio=0.15, z01_ratio=1.5)
    c.power_flow()
    c.opendss()


@case
def source_impedance(c):
    """
    A weak source: 25 MVA of short-circuit power at R/X = 0.4, a zero-sequence impedance 3.5 times the positive one, u_ref = 1.05
    at 0.35 rad. Strong unbalance at the busbar and behind a line, so that the source's own zero-sequence impedance decides the
    neutral's shift.

    ```text
    (100) source, u_ref_angle 0.35 rad      (10) cable 5 km
      ~~[Z1, Z0]~~ node 1 ---------------------------- node 2
                     |                                   |
                     v (20) 700 kW on a, 100 kW on c     v (21) 500 kW on b
    ```
    """
    g = c.grid
    g.nodes(10e3, 1, 2)
    g.line(10, 1, 2, MV_CABLE | dict(tan1=0.0, tan0=0.0), 5.0)
    g.load(20, 1, [700e3, 0.0, 100e3], [200e3, 0.0, 40e3])
    g.load(21, 2, [0.0, 500e3, 0.0], [0.0, 150e3, 0.0])
    g.source(100, 1, u_ref=1.05, u_ref_angle=0.35, sk=25e6, rx_ratio=0.4, z01_ratio=3.5)
    c.power_flow()
    c.opendss()


@case
def source_defaults(c):
    """
    A source without `sk`, `rx_ratio`, `z01_ratio` and `u_ref_angle`: the reader must fill in 10 GVA, 0.1, 1.0 and 0 rad. At 400 V with
    30 kW on one phase, 10 GVA is still a voltage drop of 3e-6 p.u. at the busbar, above the tolerance. The line, of 2 m, has no `i_n`.

    ```text
    (100) source, defaults      (10) 2 m
      ~~~~~~~ node 1 ------------------------ node 2
                 |                              |
                 v (20) 90 kW                   v (21) 30 kW on phase c
    ```
    """
    g = c.grid
    g.nodes(400.0, 1, 2)
    cable = {k: v for k, v in LV_CABLE.items() if k != "i_n"}
    g.line(10, 1, 2, cable, 0.002)
    g.load(20, 1, 90e3, 20e3)
    g.load(21, 2, [0.0, 0.0, 30e3], [0.0, 0.0, 9e3])
    g.source(100, 1, u_ref=1.0)
    c.power_flow()


@case
def two_sources(c):
    """
    Two sources of different strength, voltage and angle in one island: power circulates between them through the lines, and one
    of them takes power in. No node is a slack: each source is a Thevenin equivalent.

    ```text
    (100) 1.03 p.u., 0 rad                                                      (101) 1.00 p.u., -0.02 rad
      ~~[150 MVA]~~ node 1 ----------- node 2 ----------- node 3 ----------- node 4 ~~[60 MVA]~~
                        (10) cable 3 km  |   (11) cable 4 km |  (12) overhead 6 km
                                         v (20) 1.2 MW       v (21) 0.6 MW on a, 0.2 MW on b
    ```
    """
    g = c.grid
    g.nodes(10e3, 1, 2, 3, 4)
    cable = MV_CABLE | dict(tan1=0.0, tan0=0.0)
    g.line(10, 1, 2, cable, 3.0)
    g.line(11, 2, 3, cable, 4.0)
    g.line(12, 3, 4, MV_OVERHEAD, 6.0)
    g.load(20, 2, 1.2e6, 0.4e6)
    g.load(21, 3, [600e3, 200e3, 0.0], [150e3, 80e3, 0.0])
    g.source(100, 1, u_ref=1.03, u_ref_angle=0.0, sk=150e6, rx_ratio=0.1, z01_ratio=1.0)
    g.source(101, 4, u_ref=1.00, u_ref_angle=-0.02, sk=60e6, rx_ratio=0.25, z01_ratio=2.5)
    c.power_flow()
    c.opendss()


def dyn_feeder(c, clock, **transformer):
    """A 10/0.4 kV transformer of 400 kVA and an LV feeder with single-phase loads."""
    g = c.grid
    g.nodes(10e3, 1, 2)
    g.nodes(400.0, 3, 4, 5, 6)
    g.line(10, 1, 2, MV_CABLE | dict(tan1=0.0, tan0=0.0), 3.0)
    g.distribution_transformer(11, 2, 3, clock=clock, **transformer)
    g.line(12, 3, 4, LV_CABLE, 0.12)
    g.line(13, 4, 5, LV_CABLE, 0.09)
    g.line(14, 4, 6, LV_SERVICE, 0.04)
    g.load(20, 4, [9e3, 2e3, 1.5e3], [2e3, 0.5e3, 0.3e3])
    g.load(21, 5, [0.0, 14e3, 3e3], [0.0, 4e3, 1e3])
    g.load(22, 6, [0.0, 0.0, 7e3], [0.0, 0.0, 1e3])
    g.load(23, 3, 60e3, 18e3)
    g.source(100, 1, u_ref=1.03, sk=250e6, rx_ratio=0.1, z01_ratio=1.0)
    c.power_flow()


DYN_DIAGRAM = """
    ```text
    (100) source     (10) 3 km       (11) 10/0.4 kV      (12) 120 m         (13) 90 m
      ~~~~ node 1 ------------ node 2 --o o-- node 3 ------------ node 4 ------------ node 5 --> (21) b 14 kW, c 3 kW
                                                |                   |
                                                v (23) 60 kW        |  (14) 40 m
                                                                    +------------ node 6 --> (22) c 7 kW
                                                                    v (20) a 9, b 2, c 1.5 kW
    ```
"""


@case
def transformer_dyn11(c):
    dyn_feeder(c, 11)
    c.opendss()


@case
def transformer_dyn1(c):
    dyn_feeder(c, 1, i0=0.012, p0=750.0)


@case
def transformer_dyn5(c):
    dyn_feeder(c, 5, r_grounding_to=0.8, x_grounding_to=0.2)
    c.opendss()


transformer_dyn11.__doc__ = (
    """
    The common distribution transformer, Dyn11, with an LV feeder of single-phase loads. The delta passes no zero sequence: the LV side's
    zero-sequence current closes through the transformer's own impedance and star point, and the 10 kV side sees none of it.
    The LV voltages lead the 10 kV voltages by 30 degrees.
    """
    + DYN_DIAGRAM
)
transformer_dyn1.__doc__ = (
    """
    As `transformer_dyn11`, with clock number 1 (the LV voltages lag by 30 degrees) and a no-load current of 1.2 % with 750 W of iron loss,
    which is a shunt at the transformer's terminals.
    """
    + DYN_DIAGRAM
)
transformer_dyn5.__doc__ = (
    """
    As `transformer_dyn11`, with clock number 5 (the LV voltages lag by 150 degrees) and the LV star point earthed through 0.8 +
    j0.2 Ω, which counts three times in the zero sequence.
    """
    + DYN_DIAGRAM
)


# ---- vector groups


def winding_groups(c, groups, cable, u_from=20e3, u_to=10e3, sn=2e6, **transformer):
    """A busbar with one transformer per group, each feeding a cable with an unbalanced load. Node 10 + k is the transformer's far
    side, 40 + k the load's node; transformer 100 + k, cable 200 + k, load 300 + k. Where the far side has no earth of its own the
    load is small: constant-power loads to earth have no stable solution unless the charging of the cable exceeds them."""
    g = c.grid
    g.nodes(u_from, 1)
    g.source(900, 1, u_ref=1.01, sk=400e6, rx_ratio=0.1, z01_ratio=1.8)
    g.load(901, 1, [900e3, 300e3, 500e3], [300e3, 100e3, 50e3])
    for k, (windings, clock, more) in enumerate(groups):
        g.nodes(u_to, 10 + k, 40 + k)
        rating = dict(u1=u_from, u2=u_to, sn=sn, uk=0.06, pk=0.008 * sn, i0=0.0, p0=0.0)
        g.transformer(100 + k, 1, 10 + k, windings=windings, clock=clock, **(rating | transformer | more))
        g.line(200 + k, 10 + k, 40 + k, cable, 12.0)
        earthed = windings[1] == ZIGZAG_N or (windings[1] == WYE_N and windings[0] != WYE)
        p, extra = (0.1 * sn, 0.05 * sn) if earthed else (10e3, 2e3)
        g.load(300 + k, 40 + k, [p + extra, p, p - extra / 2], [0.3 * p, 0.3 * p, 0.3 * p + extra / 2])


@case
def transformer_wye_delta(c):
    """
    Wye-delta transformers of every odd clock number, with the wye's star point earthed (YNd), earthed through an impedance, or
    free (Yd). An earthed star point draws zero-sequence current from the 20 kV side, where the load on node 1 is unbalanced; the delta side
    has no earth at all, so its zero-sequence voltage is set by the capacitance of the cable alone.

    ```text
    (900) source             (100 + k)         (200 + k) cable 12 km
      ~~~~ node 1 20 kV --+--o o-- node 10 + k ------------------- node 40 + k --> (300 + k) three unequal phases
             |            +--o o-- ...
             v (901) 900, 300, 500 kW           k = 0..7: YNd1, YNd3, YNd5, YNd7, YNd9, YNd11, Yd5, YNd11 through 4 + j12 Ω
    ```
    """
    yn = [((WYE_N, DELTA), clock, {}) for clock in (1, 3, 5, 7, 9, 11)]
    winding_groups(
        c,
        yn + [((WYE, DELTA), 5, {}), ((WYE_N, DELTA), 11, dict(r_grounding_from=4.0, x_grounding_from=12.0))],
        MV_CABLE | dict(tan1=0.0, tan0=0.0),
    )
    c.power_flow()
    c.opendss()


@case
def transformer_delta_wye(c):
    """
    Delta-wye transformers of every odd clock number, with the secondary's star point earthed (Dyn), earthed through an impedance, or
    free (Dy). The rated voltages of the transformers (20.5/10.4 kV) are not those of the nodes (20/10 kV), so that each has an off-nominal
    ratio of 0.9856 without any tap.

    ```text
    (900) source             (100 + k)         (200 + k) cable 12 km
      ~~~~ node 1 20 kV --+--o o-- node 10 + k ------------------- node 40 + k --> (300 + k) three unequal phases
             |            +--o o-- ...
             v (901) 900, 300, 500 kW           k = 0..7: Dyn1, Dyn3, Dyn5, Dyn7, Dyn9, Dyn11, Dyn11 through 2 + j5 Ω, Dy11
    ```
    """
    dyn = [((DELTA, WYE_N), clock, {}) for clock in (1, 3, 5, 7, 9, 11)]
    dyn = [(w, clock, dict(x_grounding_to=0.5)) for w, clock, _ in dyn]
    winding_groups(
        c,
        dyn + [((DELTA, WYE_N), 11, dict(r_grounding_to=2.0, x_grounding_to=5.0)), ((DELTA, WYE), 11, {})],
        MV_CABLE | dict(tan1=0.0, tan0=0.0),
        u1=20.5e3,
        u2=10.4e3,
    )
    c.power_flow()
    c.opendss()


@case
def transformer_even_clocks(c):
    """
    Transformers of every even clock number. YNyn passes the zero sequence from side to side: unturned for the clock numbers 0, 4
    and 8 (a rotation of the phases), reversed for 2, 6 and 10 (reversed windings). Both star points may be earthed through an
    impedance. Dd and Yy have no earth on either side and pass none. One clock number is given as -2, which is 10, and one as 12,
    which is 0.

    ```text
    (900) source             (100 + k)         (200 + k) cable 12 km
      ~~~~ node 1 20 kV --+--o o-- node 10 + k ------------------- node 40 + k --> (300 + k) three unequal phases
             |            +--o o-- ...
             v (901) 900, 300, 500 kW           k = 0..11: YNyn0, 2, 4, 6, 8, 10; YNyn-2, YNyn12; YNyn0 and YNyn6
                                                through 1 + j2 Ω and 0.5 + j3 Ω; Dd6, Yy8
    ```
    """
    earthed = dict(r_grounding_from=1.0, x_grounding_from=2.0, r_grounding_to=0.5, x_grounding_to=3.0)
    groups = [((WYE_N, WYE_N), clock, {}) for clock in (0, 2, 4, 6, 8, 10, -2, 12)]
    groups += [((WYE_N, WYE_N), 0, earthed), ((WYE_N, WYE_N), 6, earthed), ((DELTA, DELTA), 6, {}), ((WYE, WYE), 8, {})]
    winding_groups(c, groups, MV_CABLE | dict(tan1=0.0, tan0=0.0))
    c.power_flow()
    c.opendss()


@case
def transformer_zigzag(c):
    """
    Zigzag windings. An earthed zigzag winding carries zero-sequence current by itself, whatever the other side is; the model takes
    a tenth of the positive-sequence impedance, plus three times the star point's. A zigzag side turns the phases like a wye seen
    from a delta, so its clock numbers are even with a delta and odd with a wye. power-grid-model only: a bank of real zigzag
    windings has a zero-sequence impedance of its own and would answer another question.

    ```text
    (900) source             (100 + k)         (200 + k) cable 12 km
      ~~~~ node 1 20 kV --+--o o-- node 10 + k ------------------- node 40 + k --> (300 + k) three unequal phases
             |            +--o o-- ...
             v (901) 900, 300, 500 kW           k = 0..6: Dzn0, Dzn6, Yzn5, Yzn11 through 1.5 + j2 Ω, YNzn1, ZNd0, Yz11
    ```
    """
    winding_groups(
        c,
        [
            ((DELTA, ZIGZAG_N), 0, {}),
            ((DELTA, ZIGZAG_N), 6, {}),
            ((WYE, ZIGZAG_N), 5, {}),
            ((WYE, ZIGZAG_N), 11, dict(r_grounding_to=1.5, x_grounding_to=2.0)),
            ((WYE_N, ZIGZAG_N), 1, {}),
            ((ZIGZAG_N, DELTA), 0, dict(x_grounding_from=3.0)),
            ((WYE, ZIGZAG), 11, {}),
        ],
        MV_CABLE,
    )
    c.power_flow()


@case
def transformer_no_load_current(c):
    """
    The magnetising branch in each sequence: a no-load current of 0.8 % to 3 % with iron loss, and a zero-sequence magnetising
    current given on its own (`i0_zero_sequence`, as for a three-limb core) with and without `p0_zero_sequence`. Yyn is the hard
    one: its zero sequence closes through the magnetising branch only. Where a star point is earthed through an impedance and the
    other winding is a delta, the impedance is in series with leakage and magnetising branch together.

    ```text
    (900) source             (100 + k)         (200 + k) cable 12 km
      ~~~~ node 1 20 kV --+--o o-- node 10 + k ------------------- node 40 + k --> (300 + k) three unequal phases
             |            +--o o-- ...
             v (901) 900, 300, 500 kW           k = 0..7: Dyn11 through 1 + j0.5 Ω, YNd1 through j8 Ω, YNyn0 and YNyn6;
                                                with i0_zero_sequence and p0_zero_sequence: Dyn11, YNyn0, Yyn0;
                                                with i0_zero_sequence only: YNyn0 (k = 6)
    ```
    """
    small, large = dict(i0=0.008, p0=2.5e3), dict(i0=0.03, p0=6e3)
    winding_groups(
        c,
        [
            ((DELTA, WYE_N), 11, small | dict(r_grounding_to=1.0, x_grounding_to=0.5)),
            ((WYE_N, DELTA), 1, large | dict(x_grounding_from=8.0)),
            ((WYE_N, WYE_N), 0, large),
            ((WYE_N, WYE_N), 6, large),
            ((DELTA, WYE_N), 11, large | dict(i0_zero_sequence=0.5, p0_zero_sequence=20e3)),
            ((WYE_N, WYE_N), 0, large | dict(i0_zero_sequence=0.5, p0_zero_sequence=20e3)),
            ((WYE_N, WYE_N), 0, small | dict(i0_zero_sequence=0.9)),
            ((WYE, WYE_N), 0, small | dict(i0_zero_sequence=0.6, p0_zero_sequence=15e3)),
        ],
        MV_CABLE,
        u1=20.4e3,
    )
    c.power_flow()


@case
def transformer_taps(c):
    """
    Tap changers: on the from side and on the to side, with a nominal position that is not 0, with positions counted downwards
    (tap_min > tap_max), without `tap_pos` (the nominal one is meant) and without `tap_nom` (0 is meant), and with an impedance that
    depends on the position (`uk_min`, `uk_max`, `pk_min`, `pk_max`, linear between the nominal position and each end).

    ```text
    (900) source 110 kV       (101..106)                (201..206) cable 3 km
      ~~~~ node 1 ---------+--o o-- node 11..16 ------------------------- node 21..26 --> (301..306) load
                           +--o o-- ...
    ```

    | transformer | tap_side | tap_min, tap_nom, tap_max | tap_pos | impedance |
    |---|---|---|---|---|
    | 101 | from | -9, 0, 9 | 5 | constant |
    | 102 | to | -4, 0, 4 | -3 | constant |
    | 103 | from | 1, 9, 17 | 14 | uk 0.12 at 1, 0.11 at 9, 0.095 at 17; pk too |
    | 104 | from | 5, 3, 1 (downwards) | 4 | uk 0.10 at 5, 0.11 at 3, 0.13 at 1 |
    | 105 | to | -4, 2, 4 | none: 2 | constant |
    | 106 | from | -9, none: 0, 9 | -7 | uk_min 0.125 only |
    """
    g = c.grid
    g.nodes(110e3, 1)
    g.source(900, 1, u_ref=1.0, sk=3e9, rx_ratio=0.1, z01_ratio=2.0)
    main = dict(u1=110e3, u2=10.5e3, sn=25e6, uk=0.11, pk=110e3, i0=0.0, p0=0.0, windings=(WYE_N, WYE_N), clock=0, tap_size=1.65e3)
    changers = [
        dict(tap_side=FROM, tap_pos=5, tap_min=-9, tap_max=9, tap_nom=0),
        dict(tap_side=TO, tap_pos=-3, tap_min=-4, tap_max=4, tap_nom=0, tap_size=150.0),
        dict(tap_side=FROM, tap_pos=14, tap_min=1, tap_max=17, tap_nom=9, uk_min=0.12, uk_max=0.095, pk_min=125e3, pk_max=98e3),
        dict(tap_side=FROM, tap_pos=4, tap_min=5, tap_max=1, tap_nom=3, uk_min=0.10, uk_max=0.13),
        dict(tap_side=TO, tap_min=-4, tap_max=4, tap_nom=2, tap_size=150.0),
        dict(tap_side=FROM, tap_pos=-7, tap_min=-9, tap_max=9, uk_min=0.125),
    ]
    for k, changer in enumerate(changers, 1):
        g.nodes(10e3, 10 + k, 20 + k)
        g.transformer(100 + k, 1, 10 + k, **(main | changer))
        if "tap_pos" not in changer:
            del g.find(100 + k)[1]["tap_pos"]
        if "tap_nom" not in changer:
            del g.find(100 + k)[1]["tap_nom"]
        g.line(200 + k, 10 + k, 20 + k, MV_CABLE | dict(tan1=0.0, tan0=0.0), 3.0)
        g.load(300 + k, 20 + k, [2.0e6, 1.99e6, 2.01e6], [0.7e6, 0.7e6, 0.69e6])
    c.power_flow()
    c.opendss()


@case
def delta_side_feeder(c):
    """
    An isolated 20 kV network behind the delta of a YNd5 transformer: 46 km of cable and overhead line whose capacitance to earth is
    the only path of the zero sequence. The loads to earth are unbalanced, which shifts the neutral by some per cent. (Such loads
    have a solution only while they are smaller than the charging power; this network is at its nightly minimum.)

    ```text
    (100) source 110 kV      (11) YNd5         (12) cable 15 km          (13) cable 12 km
      ~~~~ node 1 ------------o o--- node 2 --------------------- node 3 ------------------ node 4 --> (21)
                                       |                             |
                                       | (14) overhead 9 km          | (15) cable 10 km
                                       |                             |
                                     node 5 --> (22)               node 6 --> (23) constant impedance, (24) constant current
    ```
    """
    g = c.grid
    g.nodes(110e3, 1)
    g.nodes(20e3, 2, 3, 4, 5, 6)
    g.transformer(
        11,
        1,
        2,
        110e3,
        21e3,
        25e6,
        0.11,
        110e3,
        0.0,
        0.0,
        (WYE_N, DELTA),
        5,
        tap_side=FROM,
        tap_pos=3,
        tap_min=-9,
        tap_max=9,
        tap_size=1.65e3,
    )
    cable = MV_CABLE | dict(tan1=0.0, tan0=0.0)
    g.line(12, 2, 3, cable, 15.0)
    g.line(13, 3, 4, cable, 12.0)
    g.line(14, 2, 5, MV_OVERHEAD, 9.0)
    g.line(15, 3, 6, cable, 10.0)
    g.load(21, 4, [88e3, 61e3, 70e3], [20e3, 22e3, 21e3])
    g.load(22, 5, [30e3, 47e3, 25e3], [10e3, 8e3, 10e3])
    g.load(23, 6, [43e3, 38e3, 29e3], [10e3, 10e3, 10e3], CONST_IMPEDANCE)
    g.load(24, 6, 0.12e6, 0.03e6, CONST_CURRENT)
    g.source(100, 1, u_ref=1.02, sk=2e9, rx_ratio=0.1, z01_ratio=2.5)
    c.power_flow()
    c.opendss()


@case
def single_phase_loads_pv(c):
    """
    A rural LV feeder at noon: single-phase loads, single-phase and three-phase photovoltaic plants, some absorbing reactive power.
    Power flows backwards through the transformer on one phase while another is still loaded, and the voltage rises along the
    feeder.

    ```text
    (100) source     (11) 160 kVA Dyn5       (12) 180 m        (13) 150 m        (14) 120 m
      ~~~~ node 1 --------o o------- node 2 ----------- node 3 ----------- node 4 ----------- node 5
                                       |                  |                  |                  |
                      (15) 90 m        |    (30) load a   v    (31) load b   v    (32) load c   v
                    +------------------+    (40) pv 3ph        (41) pv a          (42) pv a, b  (43) pv 3ph
                  node 6 --> (33) load a, b, c; (44) pv c, off
    ```
    """
    g = c.grid
    g.nodes(10e3, 1)
    g.nodes(400.0, 2, 3, 4, 5, 6)
    g.distribution_transformer(
        11, 1, 2, clock=5, u1=10e3, u2=420.0, sn=160e3, uk=0.04, pk=2.35e3, tap_side=FROM, tap_pos=2, tap_min=-2, tap_max=2, tap_size=250.0
    )
    for id, ends, cable, km in (
        (12, (2, 3), LV_CABLE, 0.18),
        (13, (3, 4), LV_CABLE, 0.15),
        (14, (4, 5), LV_SERVICE, 0.12),
        (15, (2, 6), LV_CABLE, 0.09),
    ):
        g.line(id, *ends, cable, km)
    g.load(30, 3, [4.2e3, 0.0, 0.0], [1.1e3, 0.0, 0.0])
    g.load(31, 4, [0.0, 7.5e3, 0.0], [0.0, 2.0e3, 0.0])
    g.load(32, 5, [0.0, 0.0, 3.6e3], [0.0, 0.0, 0.9e3])
    g.load(33, 6, [1.8e3, 2.6e3, 9.4e3], [0.3e3, 0.5e3, 2.9e3])
    g.gen(40, 3, 24e3, -6e3)
    g.gen(41, 4, [4.6e3, 0.0, 0.0], [-0.5e3, 0.0, 0.0])
    g.gen(42, 5, [4.0e3, 3.0e3, 0.0], [0.0, 0.0, 0.0])
    g.gen(43, 5, 9e3, -2e3)
    g.gen(44, 6, [0.0, 0.0, 5e3], [0.0, 0.0, 0.0])
    g.find(44)[1]["status"] = 0
    g.source(100, 1, u_ref=1.0, sk=90e6, rx_ratio=0.3, z01_ratio=1.0)
    c.power_flow()
    c.opendss()


# ---- topology


@case
def zero_impedance_links(c):
    """
    Links, PGM's component for a connection without length: a bus coupler, two links in series at a feeder's head, two parallel
    links, a triangle of links, a link that joins two feeders into a loop, one that leads to a node without load, and one that is
    open at one end. A link has an admittance of (1 + j) 1e8 p.u. (of 1 MVA), so the voltage across one is some 1e-8 p.u. and how
    parallel links and rings of links share a current follows from their number alone. The reference's own flows through links are
    good to about 1e-7 p.u.

    ```text
    (100) source
      ~~~~ node 1 ==(20)== node 2 ==(21)== node 3 ---(40) 2 km--- node 4 ==(22)==+
             |                                                      ==(23)== node 5 --> (30) 0.9 MW
             +==(24)== node 6 ---(41) 3 km--- node 7 ==(25)==(to node 5: loop)
                                                |
             node 8, 9, 10: triangle (26) 8-9, (27) 9-10, (28) 10-8 at node 7 by (42) 1 km; loads (31) at 9, (32) at 10
             node 11 at node 10 by (29): no load;  (99) node 11 - node 2: open at node 2
    ```
    """
    g = c.grid
    g.nodes(10e3, *range(1, 12))
    for id, ends in (
        (20, (1, 2)),
        (21, (2, 3)),
        (22, (4, 5)),
        (23, (4, 5)),
        (24, (1, 6)),
        (25, (7, 5)),
        (26, (8, 9)),
        (27, (9, 10)),
        (28, (10, 8)),
        (29, (10, 11)),
    ):
        g.link(id, *ends)
    g.link(99, 11, 2, status=(1, 0))
    cable = MV_CABLE | dict(tan1=0.0, tan0=0.0)
    g.line(40, 3, 4, cable, 2.0)
    g.line(41, 6, 7, cable, 3.0)
    g.line(42, 7, 8, MV_OVERHEAD, 1.0)
    g.load(30, 5, [250e3, 300e3, 350e3], [80e3, 90e3, 100e3])
    g.load(31, 9, 0.4e6, 0.1e6)
    g.load(32, 10, [50e3, 100e3, 60e3], [20e3, 10e3, 20e3], CONST_CURRENT)
    g.source(100, 1, u_ref=1.01, sk=120e6, rx_ratio=0.1, z01_ratio=1.2)
    c.power_flow()
    c.opendss()


@case
def open_ends(c):
    """
    Branches open at one end: the open end has a voltage of its own, so the branch is a shunt at its closed end (half of the cable's
    capacitance directly, half seen through the cable's impedance; a transformer's magnetising current). A Dyn transformer that is
    open on the delta side still earths its LV side: its delta carries the zero sequence. Branches open at both ends carry nothing.

    ```text
    (100) source
      ~~~~ node 1 ---(10) 4 km--- node 2 ---(11) 7 km---/ node 3      (11) open at node 3, which is dead
             |                      |
             |                      +--- (12) 5 km, open at node 2 /--- node 4 ---(13) 2 km--- node 1
             |                      +--- (14) 3 km, open at both ends, node 4
             |                      +--o o-- (15) Dyn11, open at node 5: no-load;   node 5 is fed by (16) from node 4
             +--o o-- (17) YNd1, open at node 1, hangs at node 2
      node 5 --- (18) 60 m --- node 6 --> (20) 12 kW on a, 4 kW on c
      node 6 --o o-- (19) Dyn11, open at its delta (node 4)
    ```
    """
    g = c.grid
    g.nodes(10e3, 1, 2, 3, 4)
    g.nodes(400.0, 5, 6)
    g.line(10, 1, 2, MV_CABLE, 4.0)
    g.line(11, 2, 3, MV_CABLE, 7.0, status=(1, 0))
    g.line(12, 2, 4, MV_CABLE | dict(c0=0.2e-6), 5.0, status=(0, 1))
    g.line(13, 4, 1, MV_CABLE, 2.0)
    g.line(14, 2, 4, MV_CABLE, 3.0, status=(0, 0))
    g.distribution_transformer(15, 2, 5, status=(1, 0), i0=0.01, p0=600.0)
    g.distribution_transformer(16, 4, 5, i0=0.01, p0=600.0)
    g.transformer(17, 1, 2, 10e3, 10e3, 1e6, 0.06, 9e3, 0.02, 3e3, (WYE_N, DELTA), 1, status=(0, 1))
    g.line(18, 5, 6, LV_CABLE, 0.06)
    g.distribution_transformer(19, 4, 6, status=(0, 1), i0=0.01, p0=600.0)
    g.load(20, 6, [12e3, 0.0, 4e3], [3e3, 0.0, 1e3])
    g.load(21, 2, [300e3, 250e3, 200e3], [90e3, 80e3, 70e3])
    g.load(22, 3, 100e3, 20e3)
    g.source(100, 1, u_ref=1.02, sk=100e6, rx_ratio=0.1, z01_ratio=1.5)
    c.power_flow()


@case
def ring_closed(c):
    """
    One closed ring of six lines with a spur, fed at one point; the lines differ, so that the flow does not split evenly, and the
    loads are unbalanced.

    ```text
    (100) source          (10)            (11)            (12)
      ~~~~ node 1 -------------- node 2 -------- node 3 -------- node 4
             |                                     |               |
             | (15)           (14)                 |  (16) spur    | (13)
             +-------- node 6 -------- node 5 -----|---------------+
                                                 node 7
    ```
    """
    g = c.grid
    g.nodes(10e3, *range(1, 8))
    cable = MV_CABLE | dict(tan1=0.0, tan0=0.0)
    for id, ends, kind, km in (
        (10, (1, 2), cable, 1.5),
        (11, (2, 3), cable, 2.2),
        (12, (3, 4), MV_OVERHEAD, 3.0),
        (13, (4, 5), MV_OVERHEAD, 1.2),
        (14, (6, 5), cable, 0.8),
        (15, (1, 6), cable, 2.6),
        (16, (3, 7), MV_OVERHEAD, 4.0),
    ):
        g.line(id, *ends, kind, km)
    for k, node in enumerate((2, 3, 4, 5, 6, 7)):
        g.load(20 + k, node, [150e3 + 40e3 * k, 200e3 - 20e3 * k, 170e3], [50e3, 40e3 + 10e3 * k, 60e3 - 8e3 * k])
    g.source(100, 1, u_ref=1.03, sk=200e6, rx_ratio=0.1, z01_ratio=1.4)
    c.power_flow()
    c.opendss()


@case
def two_loops(c):
    """
    A weakly meshed network: two loops that share a line, and a third one through two transformers and the 0.4 kV side. The
    tree has three chords whichever way it is cut, one of them across a voltage level with a phase shift.

    ```text
    (100) source      (10)             (11)
      ~~~~ node 1 ----------- node 2 ----------- node 3 --o o (20)-- node 7
             |                  |                  |                   | (17)
             | (12)             | (13)             | (14)            node 8
             |        (15)      |        (16)      |                   |
           node 4 ----------- node 5 ----------- node 6 --o o (21)-----+
    ```
    """
    g = c.grid
    g.nodes(10e3, *range(1, 7))
    g.nodes(400.0, 7, 8)
    cable = MV_CABLE | dict(tan1=0.0, tan0=0.0)
    for id, ends, km in (
        (10, (1, 2), 1.2),
        (11, (2, 3), 1.9),
        (12, (1, 4), 2.4),
        (13, (2, 5), 0.9),
        (14, (3, 6), 1.1),
        (15, (4, 5), 1.7),
        (16, (5, 6), 2.0),
    ):
        g.line(id, *ends, cable, km)
    g.distribution_transformer(20, 3, 7, sn=630e3, pk=6.5e3)
    g.distribution_transformer(21, 6, 8, sn=400e3)
    g.line(17, 7, 8, LV_CABLE, 0.05)
    for id, node, p, q in ((30, 2, 600e3, 200e3), (31, 3, 350e3, 90e3), (32, 5, 800e3, 300e3), (33, 6, 250e3, 60e3)):
        g.load(id, node, p, q)
    g.load(34, 4, [220e3, 90e3, 140e3], [60e3, 30e3, 50e3])
    g.load(35, 7, [70e3, 30e3, 45e3], [20e3, 9e3, 12e3])
    g.load(36, 8, [15e3, 60e3, 35e3], [4e3, 16e3, 10e3])
    g.source(100, 1, u_ref=1.02, sk=180e6, rx_ratio=0.1, z01_ratio=1.4)
    c.power_flow()
    c.opendss()


@case
def parallel_lines(c):
    """
    Parallel branches: two lines of different impedance between the same nodes, one of them entered the other way round, and two
    transformers of the same clock number but different size, impedance and tap, so that a current circulates between them.

    ```text
    (100) source    (10) cable 3 km              (20) 400 kVA, tap 2
      ~~~~ node 1 =================== node 2 =====o o======== node 3 ---(12) 80 m--- node 4 --> (31) single-phase
                    (11) overhead 3.4 km         (21) 630 kVA, tap 0
    ```
    """
    g = c.grid
    g.nodes(10e3, 1, 2)
    g.nodes(400.0, 3, 4)
    g.line(10, 1, 2, MV_CABLE | dict(tan1=0.0, tan0=0.0), 3.0)
    g.line(11, 2, 1, MV_OVERHEAD, 3.4)
    g.distribution_transformer(20, 2, 3, tap_side=FROM, tap_pos=2, tap_min=-2, tap_max=2, tap_size=250.0)
    g.distribution_transformer(21, 2, 3, sn=630e3, uk=0.06, pk=6.5e3)
    g.line(12, 3, 4, LV_CABLE, 0.08)
    g.load(30, 3, 420e3, 130e3)
    g.load(31, 4, [30e3, 5e3, 12e3], [9e3, 1e3, 3e3])
    g.load(32, 2, [900e3, 700e3, 800e3], [300e3, 250e3, 200e3])
    g.source(100, 1, u_ref=1.02, sk=150e6, rx_ratio=0.1, z01_ratio=1.4)
    c.power_flow()
    c.opendss()


@case
def islands(c):
    """
    Four islands in one dataset: two with a source each, one whose only source is switched off, and a node on its own. Components of
    a dead island are not energized and all their results are zero, loads included; a line open towards a dead node stays energized.

    ```text
    (100) ~~~~ node 1 ---(10)--- node 2 ---(11) open at 5 /--- node 5 ---(13)--- node 6     (102) at node 6, off
                                   |                              |
                                   v (20)                         v (22), (40) shunt        node 7: alone, load (23)
    (101) ~~~~ node 3 ---(12)--- node 4 --> (21)
    ```
    """
    g = c.grid
    g.nodes(10e3, *range(1, 8))
    for id, ends, km, status in (
        (10, (1, 2), 2.0, (1, 1)),
        (11, (2, 5), 3.0, (1, 0)),
        (12, (3, 4), 5.0, (1, 1)),
        (13, (5, 6), 1.0, (1, 1)),
    ):
        g.line(id, *ends, MV_CABLE, km, status)
    g.load(20, 2, [400e3, 500e3, 450e3], [150e3, 100e3, 120e3])
    g.load(21, 4, [200e3, 100e3, 300e3], [20e3, 60e3, 70e3])
    g.load(22, 5, 300e3, 100e3)
    g.load(23, 7, [10e3, 20e3, 30e3], [0.0, 0.0, 1e3])
    g.shunt(40, 5, g1=1e-5, b1=1e-4, g0=0.0, b0=0.0)
    g.source(100, 1, u_ref=1.02, sk=100e6, rx_ratio=0.1, z01_ratio=1.0)
    g.source(101, 3, u_ref=0.99, u_ref_angle=0.4, sk=50e6, rx_ratio=0.2, z01_ratio=2.0)
    g.source(102, 6, u_ref=1.0, sk=50e6, rx_ratio=0.2, z01_ratio=2.0)
    g.find(102)[1]["status"] = 0
    c.power_flow()
    c.opendss()


@case
def switching(c):
    """
    One network, four states: as built (two feeders, tie open); a section isolated for repair and its downstream part taken over by
    the tie; an outage that leaves two nodes dead; and a change of values without any switch (tap, loads, source voltage, a load
    switched off). Each update starts from input.json, not from the previous update.

    ```text
    (100) source          (10)         (11)         (12)
      ~~~~ node 1 --+--------- node 2 ------- node 3 ------- node 4
                    |                                          / (16) tie, open at node 4
                    |  (13)         (14)         (15)          |
                    +--------- node 5 ------- node 6 ------- node 7 --o o (20)-- node 8 --> (37)
    ```
    """
    g = c.grid
    g.nodes(10e3, *range(1, 8))
    g.node(8, 400.0)
    cable = MV_CABLE | dict(tan1=0.0, tan0=0.0)
    for id, ends, km in ((10, (1, 2), 1.8), (11, (2, 3), 1.1), (12, (3, 4), 2.4), (13, (1, 5), 1.5), (14, (5, 6), 2.0), (15, (6, 7), 0.9)):
        g.line(id, *ends, cable, km)
    g.line(16, 4, 7, cable, 1.3, status=(0, 1))
    g.distribution_transformer(20, 7, 8, tap_side=FROM, tap_pos=0, tap_min=-2, tap_max=2, tap_size=250.0)
    for k, node in enumerate((2, 3, 4, 5, 6, 7)):
        g.load(30 + k, node, [160e3 + 30e3 * k, 190e3, 210e3 - 15e3 * k], [50e3, 60e3 - 5e3 * k, 40e3])
    g.load(37, 8, [40e3, 25e3, 33e3], [12e3, 8e3, 9e3])
    g.load(38, 3, 250e3, 80e3, CONST_IMPEDANCE)
    g.source(100, 1, u_ref=1.03, sk=200e6, rx_ratio=0.1, z01_ratio=1.4)
    c.power_flow()
    transfer = c.update("update_transfer.json", {"line": [dict(id=11, from_status=0, to_status=0), dict(id=16, from_status=1)]})
    outage = c.update("update_outage.json", {"line": [dict(id=15, to_status=0)]})
    values = c.update(
        "update_values.json",
        {
            "transformer": [dict(id=20, tap_pos=-2)],
            "source": [dict(id=100, u_ref=1.0, u_ref_angle=0.1)],
            "sym_load": [dict(id=38, status=0)],
            "asym_load": [
                dict(id=31, p_specified=[10e3, 300e3, 100e3]),
                dict(id=34, p_specified=[50e3, 60e3, 70e3], q_specified=[-20e3, 0.0, 30e3]),
            ],
        },
    )
    for update, tag in ((transfer, "_transfer"), (outage, "_outage"), (values, "_values")):
        c.power_flow(update=update, tag=tag)
    c.opendss()
    c.opendss(update=transfer, tag="_transfer")


# ---- larger networks


def radial_tree(r, n, depth_max):
    """Parents of nodes 1..n-1 (node 0 is the root): a new node hangs on the last one with probability 0.7, else on an earlier one."""
    parent, depth = [None], [0]
    for i in range(1, n):
        p = i - 1 if i > 1 and r.uniform() < 0.7 else r.below(i)
        while depth[p] >= depth_max:
            p = r.below(i)
        parent.append(p)
        depth.append(depth[p] + 1)
    return parent, depth


@case
def radial_1000(c):
    """
    1,000 nodes at 10 kV as a tree at most 30 branches deep, with cables and overhead lines in random order, 80 % of the nodes
    loaded, most loads on three unequal phases and of all three types, a few generators. Node numbers are shuffled, and about half
    of the lines are entered from the far end to the near one, so nothing can lean on the order of the data.

    ```text
    (900000) source
      ~~~~ root --+-- ... up to 30 lines in a row ... --> loads of 1 to 12 kW per phase
                  +-- ...
    ```
    """
    g, r, n = c.grid, Rng(1000), 1000
    parent, depth = radial_tree(r, n, 30)
    ids = list(range(1, n + 1))
    for i in range(n - 1, 0, -1):
        j = r.below(i + 1)
        ids[i], ids[j] = ids[j], ids[i]
    for id in sorted(ids):
        g.node(id, 10e3)
    for i in range(1, n):
        ends = (ids[parent[i]], ids[i]) if r.uniform() < 0.5 else (ids[i], ids[parent[i]])
        cable = MV_CABLE if r.uniform() < 0.6 else MV_OVERHEAD
        g.line(100000 + i, *ends, {k: v for k, v in cable.items() if k != "i_n"}, significant(r.uniform(0.05, 0.5), 3))
    for i in range(1, n):
        if r.uniform() < 0.2:
            continue
        type = (CONST_POWER, CONST_POWER, CONST_POWER, CONST_IMPEDANCE, CONST_CURRENT)[r.below(5)]
        if r.uniform() < 0.75:
            p = significant([r.uniform(1e3, 12e3) for _ in range(3)], 3)
            g.load(200000 + i, ids[i], p, significant([x * r.uniform(0.1, 0.4) for x in p], 3), type)
        else:
            g.load(200000 + i, ids[i], significant(r.uniform(3e3, 36e3), 3), significant(r.uniform(1e3, 9e3), 3), type)
        if r.uniform() < 0.05:
            g.gen(300000 + i, ids[i], significant(r.uniform(5e3, 60e3), 3), 0.0)
    g.source(900000, ids[0], u_ref=1.04, sk=500e6, rx_ratio=0.1, z01_ratio=1.3)
    c.power_flow()
    c.notes.append(f"The tree is {max(depth)} branches deep.")


@case
def lv_feeder_short_lines(c):
    """
    An LV feeder of the European kind: 107 nodes behind an 11/0.416 kV transformer of 800 kVA (Dyn1), joints every few metres and
    some only 34 mm apart, 55 single-phase houses. The ratio of the longest to the shortest line is above 1,000, which spoils the
    conditioning of an admittance matrix but not of a sweep along the tree.

    ```text
    (9000) source 11 kV    (1000) Dyn1       (1001) 34 mm     (1002) ...
      ~~~~ node 0 -------------o o------ node 1 ---------- node 2 --------- ... --> houses (2000 + node) on phase a, b or c
    ```
    """
    g, r, n = c.grid, Rng(416), 107
    g.node(0, 11e3)
    parent, _ = radial_tree(r, n - 1, 40)
    for i in range(1, n):
        g.node(i, 416.0)
    g.distribution_transformer(1000, 0, 1, clock=1, u1=11e3, u2=416.0, sn=800e3, uk=math.hypot(0.04, 0.004), pk=3.2e3)
    for i in range(2, n):
        short = r.uniform()
        metres = 0.034 if i == 2 or short < 0.08 else r.uniform(0.1, 2.0) if short < 0.4 else r.uniform(2.0, 35.0)
        g.line(1000 + i - 1, 1 + parent[i - 1], i, LV_CABLE if r.uniform() < 0.7 else LV_SERVICE, significant(metres, 3) / 1e3)
    houses = sorted({2 + r.below(n - 2) for _ in range(70)})[:55]
    for i in houses:
        p = significant(r.uniform(0.2e3, 6e3), 3)
        phase = r.below(3)
        g.load(
            2000 + i, i, [p if k == phase else 0.0 for k in range(3)], [significant(0.3287 * p, 3) if k == phase else 0.0 for k in range(3)]
        )
    g.source(9000, 0, u_ref=1.05, sk=3000.0 * 11e3 * math.sqrt(3), rx_ratio=0.1, z01_ratio=1.0)
    c.power_flow()
    c.opendss()
