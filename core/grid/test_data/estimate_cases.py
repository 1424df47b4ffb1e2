"""The state-estimation cases. A case is a function; its docstring is the README's text."""

from case import Case, Rng, case, significant
from power_flow_cases import LV_CABLE, LV_SERVICE, MV_CABLE, MV_OVERHEAD, radial_tree
from wls import *


@case
def est_two_nodes(c):
    """
    The smallest estimate with something to weigh: two nodes, a voltage sensor at each, and the same line's power read at its
    sending end and at the load. Eight readings for three unknowns (one angle is the reference). All sensors are symmetric.

    ```text
    (100) source          (10) line 6 km
      ~~~~~ node 1 ---------------------------- node 2 --> (20) load
        (501) U  (503) P, Q from-end              (502) U  (504) P, Q load
    ```
    """
    g = c.grid
    g.nodes(10e3, 1, 2)
    g.line(10, 1, 2, MV_OVERHEAD, 6.0)
    g.load(20, 2, 2.1e6, 0.8e6)
    g.source(100, 1, u_ref=1.02, sk=200e6, rx_ratio=0.1, z01_ratio=1.0)
    c.voltage(501, 1, 0.003)
    c.voltage(502, 2, 0.006)
    c.power(503, 10, BRANCH_FROM, 30e3)
    c.power(504, 20, LOAD, 80e3)
    c.estimate()


def radial_feeder(g, asym=False):
    """Twelve nodes at 10 kV: a trunk 1-2-3-4-5-6, laterals 3-7-8, 4-9-10 and 5-11, and 6-12."""
    g.nodes(10e3, *range(1, 13))
    ends = ((1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (3, 7), (7, 8), (4, 9), (9, 10), (5, 11), (6, 12))
    for k, (f, t) in enumerate(ends):
        g.line(101 + k, f, t, (MV_CABLE, MV_OVERHEAD)[k % 3 == 2], (1.2, 0.8, 2.0, 1.5, 1.0, 0.7, 2.2, 1.1, 0.9, 1.6, 3.0)[k])
    for k, node in enumerate(range(2, 13)):
        p, q = 120e3 + 17e3 * k, 40e3 + 5e3 * (k % 4)
        g.load(
            200 + node,
            node,
            [significant(p * x / 3) for x in (1.5, 0.6, 0.9)] if asym else p,
            [significant(q * x / 3) for x in (1.4, 1.0, 0.6)] if asym else q,
        )
    g.source(300, 1, u_ref=1.03, sk=250e6, rx_ratio=0.1, z01_ratio=1.3)


FEEDER_DIAGRAM = """
    ```text
    (300)
     ~~ 1 --101-- 2 --102-- 3 --103-- 4 --104-- 5 --105-- 6 --111-- 12
                            |         |         |
                           106       108       110
                            |         |         |
                            7         9        11          a load (200 + node) at every node but 1
                            |         |
                           107       109
                            |         |
                            8        10
    ```
"""


@case
def est_radial_voltage_and_power(c):
    radial_feeder(c.grid)
    for k, (node, sigma) in enumerate(((1, 0.002), (4, 0.005), (8, 0.005), (12, 0.008))):
        c.voltage(501 + k, node, sigma)
    c.power(511, 101, BRANCH_FROM, 20e3)
    for node in range(2, 13):
        c.power(520 + node, 200 + node, LOAD, 4e3 if node % 2 else 40e3)
    c.estimate("sym")


est_radial_voltage_and_power.__doc__ = (
    """
    The usual case of a radial feeder: voltage at the busbar and at three nodes, P and Q at the head of the feeder, P and Q of every
    load, half of the loads from meters (4 kVA) and half from load profiles (40 kVA).
    """
    + FEEDER_DIAGRAM
)


@case
def est_asym_feeder(c):
    """
    An LV feeder behind a Dyn11 transformer with meters that read each phase: voltage and power at every house, voltage at the
    busbars on both sides and the power of the source. Node 4 is a joint without any load.

    ```text
    (100) source     (11) 10/0.4 kV Dyn11   (12) 120 m        (13) 90 m
      ~~~~ node 1 ------o o------ node 2 ----------- node 3 ----------- node 4 ---(15) 30 m--- node 6 --> (23)
                                    |                  |                  |
                                    v (20)             v (21)             +------(14) 40 m--- node 5 --> (22)
      asym_voltage_sensor at 1, 2, 3, 5, 6; asym_power_sensor at (100), (20), (21), (22), (23)
    ```
    """
    g = c.grid
    g.node(1, 10e3)
    g.nodes(400.0, 2, 3, 4, 5, 6)
    g.distribution_transformer(11, 1, 2, i0=0.004, p0=600.0)
    for id, ends, cable, km in (
        (12, (2, 3), LV_CABLE, 0.12),
        (13, (3, 4), LV_CABLE, 0.09),
        (14, (4, 5), LV_SERVICE, 0.04),
        (15, (4, 6), LV_SERVICE, 0.03),
    ):
        g.line(id, *ends, cable, km)
    g.load(20, 2, [22e3, 19e3, 25e3], [6e3, 7e3, 5e3])
    g.load(21, 3, [4.5e3, 1.2e3, 2.1e3], [0.9e3, 0.2e3, 0.7e3])
    g.load(22, 5, [0.4e3, 6.2e3, 0.3e3], [0.1e3, 1.5e3, 0.1e3])
    g.load(23, 6, [0.2e3, 0.8e3, 5.1e3], [0.0, 0.2e3, 1.1e3])
    g.source(100, 1, u_ref=1.02, sk=150e6, rx_ratio=0.2, z01_ratio=1.0)
    for k, node in enumerate((1, 2, 3, 5, 6)):
        c.voltage(501 + k, node, (0.002, 0.003, 0.004, 0.004, 0.006)[k], "asym")
    c.power(511, 100, SOURCE, 400.0, "asym")
    for k, load in enumerate((20, 21, 22, 23)):
        c.power(512 + k, load, LOAD, (500.0, 60.0, 60.0, 120.0)[k], "asym")
    c.estimate("asym", "sym")


@case
def est_zero_injections(c):
    """
    Nodes without an appliance are exact constraints, not measurements: a joint, a chain of three joints, a joint with a shunt
    (whose current counts as the network's, not as an injection), and a node whose only load is switched off. Two branches are not
    measured at all and are found through the constraints.

    ```text
    (100) source
      ~~~~ 1 --(11)-- 2 --(12)-- 3 --(13)-- 4 --(14)-- 5 --> (21)        2, 3, 4: nothing
                      |          |
                      |          +--(15)-- 6 --(16)-- 7 --> (22)         6: shunt (31) only
                      |
                      +--(17)-- 8 --(18)-- 9 --> (24)                    8: load (23), switched off
    ```
    """
    g = c.grid
    g.nodes(10e3, *range(1, 10))
    for id, ends, km in (
        (11, (1, 2), 1.5),
        (12, (2, 3), 2.0),
        (13, (3, 4), 1.0),
        (14, (4, 5), 2.5),
        (15, (3, 6), 1.4),
        (16, (6, 7), 0.9),
        (17, (2, 8), 3.0),
        (18, (8, 9), 1.1),
    ):
        g.line(id, *ends, (MV_CABLE, MV_OVERHEAD)[id % 2], km)
    g.shunt(31, 6, g1=1e-5, b1=4e-3, g0=1e-5, b0=1e-3)
    g.load(21, 5, [420e3, 310e3, 360e3], [120e3, 90e3, 100e3])
    g.load(22, 7, [150e3, 260e3, 190e3], [50e3, 60e3, 50e3])
    g.load(23, 8, 900e3, 100e3)
    g.find(23)[1]["status"] = 0
    g.load(24, 9, [210e3, 240e3, 330e3], [80e3, 60e3, 90e3])
    g.source(100, 1, u_ref=1.02, sk=180e6, rx_ratio=0.1, z01_ratio=1.2)
    c.voltage(501, 1, 0.002, "asym")
    c.voltage(502, 5, 0.004, "asym")
    c.voltage(503, 7, 0.005, "asym")
    c.power(511, 100, SOURCE, 15e3, "asym")
    c.power(512, 21, LOAD, 8e3, "asym")
    c.power(513, 22, LOAD, 12e3, "asym")
    c.power(514, 24, LOAD, 50e3, "asym")
    c.estimate()


@case
def est_flow_sensors(c):
    """
    A power sensor on every kind of terminal: both ends of a branch (line and transformer), source, load, generator, shunt, and
    node. A sensor reads in the direction of what it sits on: into the branch at either end, out of a source or generator into the
    node, out of the node into a load or shunt; a node's sensor reads the sum of what its sources and generators give less what its
    loads take (shunts do not count).

    ```text
    (100) source [source]        (11)            (12)  [to]         (13) Dyn11
      ~~~~ node 1 ------------------ node 2 ---------------- node 3 --o o-- node 4 --> (24) load
                   [from]              |  \\-> (21) load [load]   |   [from, to]
                                       |  <-- (31) sym_gen [generator]
                                       |                         +--> (41) shunt [shunt]
                                       |                         +--> (22) load [load]
                                     node 5 by (14): (23) load and (32) asym_gen, unmeasured, [node]
    ```
    """
    g = c.grid
    g.nodes(10e3, 1, 2, 3, 5)
    g.node(4, 400.0)
    for id, ends, km in ((11, (1, 2), 2.0), (12, (2, 3), 3.0), (14, (2, 5), 1.5)):
        g.line(id, *ends, (MV_CABLE, MV_OVERHEAD)[id == 12], km)
    g.distribution_transformer(13, 3, 4, i0=0.005, p0=600.0)
    g.load(21, 2, [310e3, 220e3, 260e3], [90e3, 70e3, 80e3])
    g.load(22, 3, [120e3, 180e3, 90e3], [30e3, 50e3, 30e3])
    g.load(23, 5, [80e3, 140e3, 110e3], [20e3, 40e3, 30e3])
    g.load(24, 4, [62e3, 40e3, 51e3], [14e3, 11e3, 16e3])
    g.gen(31, 2, 240e3, 30e3)
    g.gen(32, 5, [30e3, 0.0, 20e3], [5e3, 0.0, 0.0])
    g.shunt(41, 3, g1=2e-5, b1=2.5e-3, g0=1e-5, b0=9e-4)
    g.source(100, 1, u_ref=1.02, sk=180e6, rx_ratio=0.1, z01_ratio=1.2)
    c.voltage(501, 1, 0.002, "asym")
    c.voltage(502, 4, 0.006, "asym")
    for id, object, terminal, sigma in (
        (511, 100, SOURCE, 20e3),
        (512, 11, BRANCH_FROM, 10e3),
        (513, 12, BRANCH_TO, 12e3),
        (514, 21, LOAD, 30e3),
        (515, 31, GENERATOR, 9e3),
        (516, 41, SHUNT, 8e3),
        (517, 22, LOAD, 25e3),
        (518, 5, NODE, 15e3),
        (519, 13, BRANCH_FROM, 3e3),
        (520, 13, BRANCH_TO, 2e3),
    ):
        c.power(id, object, terminal, sigma, "asym")
    c.estimate()


@case
def est_redundant(c):
    """
    Several sensors on one object, with readings that do not agree: two voltage sensors on a node (one symmetric, one per phase),
    three power sensors on a load, two on a source, a node's injection sensor beside sensors on all of its appliances, and beside
    sensors on some of them only (then the appliances' own readings say nothing about the node: the unmeasured load may take
    anything; they only share out the node's power afterwards).

    ```text
    (100) source              (11)              (12)              (13)
      ~~~~ node 1 -------------------- node 2 ------------ node 3 ----------- node 4
        U, U per phase                   |                   |                  |
        (100) twice         (21) three times      (22), (23), (31) once each    (24) once, (25) not
                                                  node 3: injection twice       node 4: injection once, U
    ```
    """
    g = c.grid
    g.nodes(10e3, 1, 2, 3, 4)
    for id, ends, km in ((11, (1, 2), 2.0), (12, (2, 3), 3.0), (13, (3, 4), 2.4)):
        g.line(id, *ends, (MV_CABLE, MV_OVERHEAD)[id == 12], km)
    g.load(21, 2, [310e3, 220e3, 260e3], [90e3, 70e3, 80e3])
    g.load(22, 3, [120e3, 180e3, 90e3], [30e3, 50e3, 30e3])
    g.load(23, 3, 150e3, 45e3)
    g.load(24, 4, [90e3, 100e3, 130e3], [20e3, 30e3, 40e3])
    g.load(25, 4, 180e3, 60e3)
    g.gen(31, 3, 200e3, 10e3)
    g.source(100, 1, u_ref=1.02, sk=180e6, rx_ratio=0.1, z01_ratio=1.2)
    c.voltage(501, 1, 0.003)
    c.voltage(502, 1, 0.004, "asym")
    c.voltage(503, 4, 0.005)
    c.voltage(504, 2, 0.004, "asym")
    c.power(511, 100, SOURCE, 30e3)
    c.power(512, 100, SOURCE, 15e3, "asym")
    c.power(513, 21, LOAD, 20e3)
    c.power(514, 21, LOAD, 12e3, q_sigma=18e3)
    c.power(515, 21, LOAD, 9e3, "asym")
    for k, (object, terminal) in enumerate(((22, LOAD), (23, LOAD), (31, GENERATOR))):
        c.power(521 + k, object, terminal, 14e3 + 3e3 * k)
    c.power(524, 3, NODE, 16e3)
    c.power(525, 3, NODE, 11e3, "asym")
    c.power(526, 24, LOAD, 5e3)
    c.power(527, 4, NODE, 24e3)
    c.estimate()


@case
def est_angle_sensors(c):
    """
    Voltage sensors that read angles. The angles' reference is then what they read, not the source; a node read by two sensors with
    angles combines the phasors, and a node where one of two sensors lacks the angle keeps the magnitudes only. The standard
    deviation of an angle, in rad, is that of the magnitude, in p.u. of rated voltage.

    ```text
    (100) u_ref_angle 0.25 rad      (11)             (12)             (13)
      ~~~~~~~ node 1 ------------------- node 2 ------------ node 3 ------------ node 4
              U, angle                     |                   |                   |
                                           v (21)  U, angle    v (22) twice        v (23)  U, angle per phase
                                                   and U                U, angle
    ```
    """
    g = c.grid
    g.nodes(10e3, 1, 2, 3, 4)
    for id, ends, km in ((11, (1, 2), 2.0), (12, (2, 3), 3.0), (13, (3, 4), 2.4)):
        g.line(id, *ends, (MV_CABLE, MV_OVERHEAD)[id == 12], km)
    for id, node in ((21, 2), (22, 3), (23, 4)):
        g.load(id, node, [330e3, 240e3, 280e3], [100e3, 60e3, 90e3])
    g.source(100, 1, u_ref=1.02, u_ref_angle=0.25, sk=180e6, rx_ratio=0.1, z01_ratio=1.2)
    c.voltage(501, 1, 0.002, angle_sigma=0.002)
    c.voltage(502, 2, 0.004, angle_sigma=0.004)
    c.voltage(503, 2, 0.003)
    c.voltage(504, 3, 0.003, angle_sigma=0.003)
    c.voltage(505, 3, 0.005, "asym", angle_sigma=0.005)
    c.voltage(506, 4, 0.004, "asym", angle_sigma=0.004)
    for k, load in enumerate((21, 22, 23)):
        c.power(511 + k, load, LOAD, (12e3, 30e3, 18e3)[k], ("sym", "asym", "asym")[k])
    c.estimate()


@case
def est_loop(c):
    """
    A closed ring with a spur. The loads of two nodes are not measured; the flows at the ring's two ends and in its middle are.

    ```text
    (100) source          (11) [from]       (12)              (13) [to]
      ~~~~ node 1 ---------------- node 2 ---------- node 3 ---------- node 4
             |                       v (22)            |  (17) spur      |
             | (16) [from]           (15)              v (23)            | (14)
             +-------- node 6 ---------------- node 5 -------------------+
                         v (26) not measured     v (25)   node 7 --> (27);  (24) at node 4 not measured
    ```
    """
    g = c.grid
    g.nodes(10e3, *range(1, 8))
    for id, ends, km in (
        (11, (1, 2), 1.5),
        (12, (2, 3), 2.2),
        (13, (3, 4), 3.0),
        (14, (4, 5), 1.2),
        (15, (6, 5), 0.8),
        (16, (1, 6), 2.6),
        (17, (3, 7), 4.0),
    ):
        g.line(id, *ends, (MV_CABLE, MV_OVERHEAD)[id in (13, 17)], km)
    for k, node in enumerate((2, 3, 4, 5, 6, 7)):
        g.load(20 + node, node, [150e3 + 40e3 * k, 200e3 - 20e3 * k, 170e3], [50e3, 40e3 + 10e3 * k, 60e3 - 8e3 * k])
    g.source(100, 1, u_ref=1.03, sk=200e6, rx_ratio=0.1, z01_ratio=1.4)
    for k, node in enumerate((1, 3, 5)):
        c.voltage(501 + k, node, 0.003 + 0.001 * k, "asym")
    for id, branch, terminal in ((511, 11, BRANCH_FROM), (512, 16, BRANCH_FROM), (513, 13, BRANCH_TO)):
        c.power(id, branch, terminal, 9e3, "asym")
    for k, load in enumerate((22, 23, 25, 27)):
        c.power(521 + k, load, LOAD, 12e3 + 4e3 * k, "asym")
    c.estimate()


def three_levels(c):
    g = c.grid
    g.node(1, 110e3)
    g.nodes(10e3, 2, 3)
    g.nodes(400.0, 4, 5, 6)
    g.transformer(
        11,
        1,
        2,
        110e3,
        10.5e3,
        25e6,
        0.11,
        110e3,
        0.0012,
        16e3,
        (WYE_N, DELTA),
        5,
        tap_side=FROM,
        tap_pos=4,
        tap_min=-9,
        tap_max=9,
        tap_size=1.65e3,
        uk_min=0.12,
        uk_max=0.104,
    )
    g.line(12, 2, 3, MV_CABLE, 9.0)
    g.distribution_transformer(13, 3, 4, i0=0.004, p0=600.0)
    g.distribution_transformer(
        14, 3, 5, clock=1, sn=630e3, pk=6.5e3, i0=0.004, p0=800.0, tap_side=FROM, tap_pos=-1, tap_min=-2, tap_max=2, tap_size=250.0
    )
    g.line(15, 4, 6, LV_CABLE, 0.1)
    g.load(20, 2, [9.2e3, 8.9e3, 9.1e3], [2.1e3, 2.0e3, 2.2e3])
    g.load(21, 4, [52e3, 48e3, 60e3], [12e3, 15e3, 12e3])
    g.load(22, 6, [11e3, 6e3, 4e3], [3e3, 1e3, 1e3])
    g.load(23, 5, [120e3, 95e3, 101e3], [30e3, 25e3, 33e3])
    g.source(100, 1, u_ref=1.01, sk=2e9, rx_ratio=0.1, z01_ratio=2.0)
    for k, node in enumerate((1, 2, 4, 5)):
        c.voltage(501 + k, node, (0.002, 0.003, 0.005, 0.005)[k], "asym")
    for k, load in enumerate((20, 21, 22, 23)):
        c.power(521 + k, load, LOAD, (300.0, 2e3, 300.0, 6e3)[k], "asym")


LEVELS_DIAGRAM = """
    ```text
    (100) 110 kV        (11) YNd5, tap 4          (12) 9 km           (13) Dyn11
      ~~~~ node 1 -----------o o----------- node 2 ----------- node 3 --o o-- node 4 ---(15)--- node 6 --> (22)
                                              v (20)             |              v (21)
                                                                 +--o o-- node 5 --> (23)
                                                               (14) Dyn1, tap -1
    ```
"""


@case
def est_transformers(c):
    three_levels(c)
    c.power(511, 100, SOURCE, 30e3, "asym")
    c.estimate()


@case
def est_transformer_flows(c):
    three_levels(c)
    for id, branch, terminal, sigma in (
        (511, 11, BRANCH_FROM, 30e3),
        (512, 11, BRANCH_TO, 6e3),
        (513, 13, BRANCH_TO, 1.5e3),
        (514, 14, BRANCH_FROM, 2.5e3),
    ):
        c.power(id, branch, terminal, sigma, "asym")
    c.estimate()


est_transformers.__doc__ = (
    """
    Across three voltage levels: YNd5 with a tap changer off its nominal position, then Dyn11 and Dyn1 at a tap, with the source's
    power, every load's and a voltage at each level. The angles turn by 150 degrees and then by 30 either way; a flat start does not
    find its way unless it is turned with the clock numbers.
    """
    + LEVELS_DIAGRAM
)
est_transformer_flows.__doc__ = (
    """
    As `est_transformers`, with power sensors at the transformers' own terminals instead of the source: (11) on both sides, (13) on
    its LV side, (14) on its 10 kV side.
    """
    + LEVELS_DIAGRAM
)


def current_feeder(c):
    g = c.grid
    g.nodes(10e3, 1, 2, 3, 4)
    for id, ends, km in ((11, (1, 2), 2.0), (12, (2, 3), 3.0), (13, (2, 4), 2.4)):
        g.line(id, *ends, (MV_CABLE, MV_OVERHEAD)[id == 12], km)
    for id, node, p, q in ((21, 3, 900e3, 300e3), (22, 4, 700e3, -150e3), (23, 2, 400e3, 100e3)):
        g.load(id, node, p, q)
    g.source(100, 1, u_ref=1.02, sk=180e6, rx_ratio=0.1, z01_ratio=1.2)


CURRENT_DIAGRAM = """
    ```text
    (100) source      (11)              (12)
      ~~~~ node 1 ------------ node 2 ------------ node 3 --> (21) read in the local case only
        U      I [from]          |  v (23)  I [to]   U
                                 |
                                 | (13)
                               I [from, twice]
                               node 4 --> (22) read
    ```
"""


@case
def est_current_sensors_local(c):
    current_feeder(c)
    c.voltage(501, 1, 0.003)
    c.voltage(502, 3, 0.004)
    c.power(511, 21, LOAD, 60e3)
    c.power(512, 22, LOAD, 40e3)
    c.current(521, 11, BRANCH_FROM, 1.5, 0.02, LOCAL_ANGLE)
    c.current(522, 12, BRANCH_TO, 1.0, 0.01, LOCAL_ANGLE)
    c.current(523, 13, BRANCH_FROM, 2.0, 0.05, LOCAL_ANGLE)
    c.current(524, 13, BRANCH_FROM, 1.0, 0.03, LOCAL_ANGLE)
    c.estimate("sym")


@case
def est_current_sensors_global(c):
    current_feeder(c)
    c.voltage(501, 1, 0.003, angle_sigma=0.003)
    c.voltage(502, 3, 0.004)
    c.power(512, 22, LOAD, 40e3)
    c.current(521, 11, BRANCH_FROM, 1.5, 0.02, GLOBAL_ANGLE)
    c.current(522, 12, BRANCH_TO, 1.0, 0.01, GLOBAL_ANGLE)
    c.current(523, 13, BRANCH_FROM, 2.0, 0.05, GLOBAL_ANGLE)
    c.current(524, 13, BRANCH_FROM, 1.0, 0.03, GLOBAL_ANGLE)
    c.estimate("sym", "asym")


est_current_sensors_local.__doc__ = (
    """
    Current sensors that read the angle by which the current lags the voltage of their own node (`angle_measurement_type` 0).
    Magnitude and angle are turned into a real part (in phase with the voltage) and an imaginary part, each with its own variance;
    two sensors on one terminal are combined part by part.
    """
    + CURRENT_DIAGRAM
)
est_current_sensors_global.__doc__ = (
    """
    Current sensors that read the angle against the common reference (`angle_measurement_type` 1), as phasor measurement units do;
    the voltage angle at node 1 is read too, without which the reference would be unknown. Symmetric sensors, in the symmetric and
    in the three-phase calculation.
    """
    + CURRENT_DIAGRAM
)


@case
def est_current_sensors_asym(c):
    """
    Current sensors per phase, local and global, in the three-phase calculation of an unbalanced feeder.

    ```text
    (100) source      (11)              (12)
      ~~~~ node 1 ------------ node 2 ------------ node 3 --> (21) not read
    U, angle   I local [from]    |  v (23)  I global [to]   U
                                 | (13)
                               node 4 --> (22) read
    ```
    """
    g = c.grid
    g.nodes(10e3, 1, 2, 3, 4)
    for id, ends, km in ((11, (1, 2), 2.0), (12, (2, 3), 3.0), (13, (2, 4), 2.4)):
        g.line(id, *ends, (MV_CABLE, MV_OVERHEAD)[id == 12], km)
    for id, node, p, q in (
        (21, 3, [400e3, 250e3, 310e3], [90e3, 110e3, 70e3]),
        (22, 4, [190e3, 260e3, 170e3], [50e3, -40e3, 60e3]),
        (23, 2, [90e3, 140e3, 110e3], [30e3, 20e3, 40e3]),
    ):
        g.load(id, node, p, q)
    g.source(100, 1, u_ref=1.02, sk=180e6, rx_ratio=0.1, z01_ratio=1.2)
    c.voltage(501, 1, 0.003, "asym", angle_sigma=0.003)
    c.voltage(502, 3, 0.004, "asym")
    c.power(512, 22, LOAD, 14e3, "asym")
    c.power(513, 23, LOAD, 14e3, "asym")
    c.current(521, 11, BRANCH_FROM, 1.5, 0.02, LOCAL_ANGLE, "asym")
    c.current(522, 12, BRANCH_TO, 1.0, 0.01, GLOBAL_ANGLE, "asym")
    c.estimate("asym")


@case
def est_sym_sensors_in_asym(c):
    """
    Symmetric sensors in a three-phase calculation, beside sensors per phase: a symmetric voltage reading stands for each of the
    three phases (with the same relative standard deviation for each), a symmetric power reading for a third in each phase (with a
    third of the standard deviation each). The true state is unbalanced, so the residuals of the symmetric sensors show it.
    """
    radial_feeder(c.grid, asym=True)
    c.voltage(501, 1, 0.002)
    c.voltage(502, 4, 0.005, "asym")
    c.voltage(503, 8, 0.005)
    c.voltage(504, 12, 0.008, "asym")
    c.power(511, 300, SOURCE, 20e3)
    for node in range(2, 13):
        c.power(520 + node, 200 + node, LOAD, 6e3 if node % 3 else 30e3, "asym" if node % 2 else "sym")
    c.estimate("asym")


@case
def est_asym_sensors_in_sym(c):
    """
    Sensors per phase in a symmetric calculation: the mean of the three voltages (a third of the variance), the sum of the three
    powers (the sum of the variances); with angles, the positive sequence of the three phasors.
    """
    radial_feeder(c.grid, asym=True)
    c.voltage(501, 1, 0.002, "asym", angle_sigma=0.002)
    c.voltage(502, 4, 0.005, "asym")
    c.voltage(503, 8, 0.005)
    c.voltage(504, 12, 0.008, "asym")
    c.power(511, 101, BRANCH_FROM, 7e3, "asym")
    for node in range(2, 13):
        c.power(520 + node, 200 + node, LOAD, 6e3 if node % 3 else 30e3, "asym" if node % 2 else "sym")
    c.estimate("sym")


est_sym_sensors_in_asym.__doc__ += FEEDER_DIAGRAM
est_asym_sensors_in_sym.__doc__ += FEEDER_DIAGRAM


@case
def est_sigmas(c):
    """
    How a power sensor's standard deviations are given: `power_sigma` alone is the apparent power's (each of P and Q has it divided
    by √2), `p_sigma` and `q_sigma` are P's and Q's, per phase in a sensor per phase; where all three are given `power_sigma` is
    ignored. Two loads are not measured at all; node 9's follows from the flow in its line, node 12's from the whole feeder's.
    """
    radial_feeder(c.grid, asym=True)
    c.voltage(501, 1, 0.002, "asym")
    c.voltage(502, 6, 0.005, "asym")
    c.voltage(503, 10, 0.005, "asym")
    c.power(511, 300, SOURCE, [7e3, 8e3, 9e3], "asym", q_sigma=[12e3, 10e3, 8e3])
    c.power(512, 108, BRANCH_FROM, 5e3, q_sigma=9e3)
    for node in (2, 3, 4, 5, 6, 7, 8, 10, 11):
        if node % 3 == 0:
            c.power(520 + node, 200 + node, LOAD, 9e3)
        elif node % 3 == 1:
            c.power(520 + node, 200 + node, LOAD, 6e3, q_sigma=18e3)
        else:
            c.power(520 + node, 200 + node, LOAD, [3e3, 5e3, 4e3], "asym", q_sigma=[9e3, 6e3, 8e3])
    for id in (524, 527):
        c.grid.find(id)[1]["power_sigma"] = 1.0
    c.estimate()


est_sigmas.__doc__ += FEEDER_DIAGRAM


@case
def est_two_sources(c):
    """
    Two sources in one island, no angle measured: the angle of the node of the source that comes first in the data (here 101, at
    node 4) is 0, whatever the `u_ref_angle` of either. One source's power is measured, the other's is not.

    ```text
    (100) ~~~~ node 1 ----(11)---- node 2 ----(12)---- node 3 ----(13)---- node 4 ~~~~ (101)
               U            [from]   v (20)              v (21)              U   P, Q
    ```
    """
    g = c.grid
    g.nodes(10e3, 1, 2, 3, 4)
    for id, ends, km in ((11, (1, 2), 3.0), (12, (2, 3), 4.0), (13, (3, 4), 6.0)):
        g.line(id, *ends, (MV_CABLE, MV_OVERHEAD)[id == 13], km)
    g.load(20, 2, [420e3, 370e3, 400e3], [130e3, 120e3, 140e3])
    g.load(21, 3, [210e3, 260e3, 170e3], [50e3, 80e3, 60e3])
    g.source(101, 4, u_ref=1.00, u_ref_angle=-0.02, sk=60e6, rx_ratio=0.25, z01_ratio=2.5)
    g.source(100, 1, u_ref=1.03, u_ref_angle=0.01, sk=150e6, rx_ratio=0.1, z01_ratio=1.0)
    c.voltage(501, 1, 0.003, "asym")
    c.voltage(502, 4, 0.004, "asym")
    c.power(511, 101, SOURCE, 15e3, "asym")
    c.power(512, 20, LOAD, 12e3, "asym")
    c.power(513, 21, LOAD, 20e3, "asym")
    c.power(514, 11, BRANCH_FROM, 12e3)
    c.estimate()


@case
def est_islands(c):
    """
    Two islands with a source each (one angle reference per island) and one without any: its sensors are ignored and its nodes are
    not energized. Sensors at the open end of a line and on a load that is switched off are ignored too.

    ```text
    (100) ~~~~ node 1 ---(11)--- node 2 ---(12) open at 3 /--- node 3 ---(14)--- node 7        node 3, 7: no source
               U           [from]  v (20) P, Q          [to]     U  v (22) P, Q
    (101) ~~~~ node 4 ---(13)--- node 5 ---(15)--- node 6 --> (23) P, Q, and (24) off, P, Q
               U                   v (21) P, Q       U
    ```
    """
    g = c.grid
    g.nodes(10e3, *range(1, 8))
    for id, ends, km, status in (
        (11, (1, 2), 2.0, (1, 1)),
        (12, (2, 3), 3.0, (1, 0)),
        (13, (4, 5), 5.0, (1, 1)),
        (14, (3, 7), 1.0, (1, 1)),
        (15, (5, 6), 2.0, (1, 1)),
    ):
        g.line(id, *ends, MV_CABLE, km, status)
    g.load(20, 2, [400e3, 500e3, 450e3], [150e3, 100e3, 120e3])
    g.load(21, 5, [200e3, 100e3, 300e3], [20e3, 60e3, 70e3])
    g.load(22, 3, 300e3, 100e3)
    g.load(23, 6, [150e3, 160e3, 90e3], [40e3, 30e3, 50e3])
    g.load(24, 6, 500e3, 100e3)
    g.find(24)[1]["status"] = 0
    g.source(100, 1, u_ref=1.02, sk=100e6, rx_ratio=0.1, z01_ratio=1.0)
    g.source(101, 4, u_ref=0.99, u_ref_angle=0.4, sk=50e6, rx_ratio=0.2, z01_ratio=2.0)
    c.voltage(501, 1, 0.003, "asym")
    c.voltage(502, 4, 0.003, "asym")
    c.voltage(503, 6, 0.005, "asym")
    c.grid.add("sym_voltage_sensor", 504, measured_object=3, u_sigma=30.0, u_measured=9900.0)
    for k, (object, terminal, kind) in enumerate(
        (
            (20, LOAD, "asym"),
            (21, LOAD, "asym"),
            (23, LOAD, "asym"),
            (24, LOAD, "sym"),
            (22, LOAD, "sym"),
            (100, SOURCE, "asym"),
            (12, BRANCH_TO, "sym"),
        )
    ):
        c.power(511 + k, object, terminal, 12e3 + 2e3 * k, kind)
    for id in (514, 515, 517):
        c.grid.find(id)[1].update(p_measured=120e3, q_measured=30e3)
    c.estimate()


@case
def est_switching(c):
    """
    An estimate, and the same network after a switching operation with new readings: line 103 opens, the tie 112 closes, all sensors
    read anew but that of load 210, which keeps its old reading; voltage sensor 504 becomes more accurate, the sensor of load 206
    less.

    ```text
    (300)
     ~~ 1 --101-- 2 --102-- 3 --103-- 4 --104-- 5 --105-- 6 --111-- 12
                            |         |         |                    \\
                           106       108       110                   112  tie, open at 12
                            |         |         |                    /
                            7         9        11          8 -------+
                            |         |
                           107       109
                            |         |
                            8        10
    ```
    """
    g = c.grid
    radial_feeder(g, asym=True)
    g.line(112, 8, 12, MV_CABLE, 1.7, status=(1, 0))
    for k, (node, sigma) in enumerate(((1, 0.002), (4, 0.005), (8, 0.005), (12, 0.008))):
        c.voltage(501 + k, node, sigma, "asym")
    c.power(511, 300, SOURCE, 9e3, "asym")
    for node in range(2, 13):
        c.power(520 + node, 200 + node, LOAD, 3e3 if node % 2 else 15e3, "asym")
    c.estimate()
    switched = {"line": [dict(id=103, from_status=0), dict(id=112, to_status=1)]}
    after = Case("est_switching_transfer", "")  # reads the true state after the operation
    after.grid = g.updated(switched).without_sensors()
    for k, (node, sigma) in enumerate(((1, 0.002), (4, 0.005), (8, 0.005))):
        after.voltage(501 + k, node, sigma, "asym")
    after.voltage(504, 12, 0.004, "asym")
    after.power(511, 300, SOURCE, 9e3, "asym")
    for node in (2, 3, 4, 5, 7, 8, 9, 11, 12):
        after.power(520 + node, 200 + node, LOAD, 3e3 if node % 2 else 15e3, "asym")
    after.power(526, 206, LOAD, 60e3, "asym")
    new = {
        kind: [{k: v for k, v in s.items() if k not in ("measured_object", "measured_terminal_type")} for s in after.grid.data[kind]]
        for kind in ("asym_voltage_sensor", "asym_power_sensor")
    }
    for s in new["asym_power_sensor"]:
        if s["id"] != 526:
            del s["power_sigma"]  # unchanged
    c.estimate(update=c.update("update_transfer.json", switched | new), tag="_transfer")


def linked_substations(c):
    g = c.grid
    g.nodes(10e3, 1, 2, 3, 4, 5, 6)
    for id, ends in ((20, (1, 2)), (21, (3, 4)), (22, (3, 4)), (23, (5, 4))):
        g.link(id, *ends)
    g.line(11, 2, 3, MV_CABLE, 2.0)
    g.line(12, 2, 5, MV_OVERHEAD, 3.0)
    g.line(13, 4, 6, MV_CABLE, 1.2)
    g.load(31, 4, [300e3, 260e3, 280e3], [100e3, 90e3, 110e3])
    g.load(32, 5, [110e3, 160e3, 130e3], [30e3, 40e3, 50e3])
    g.load(33, 6, [90e3, 70e3, 80e3], [20e3, 30e3, 20e3])
    g.source(100, 1, u_ref=1.02, sk=150e6, rx_ratio=0.1, z01_ratio=1.0)


LINKS_DIAGRAM = """
    ```text
    (100) ~~~~ node 1 ==(20)== node 2 ---(11)--- node 3 ==(21)==+
                                 |                      ==(22)== node 4 ---(13)--- node 6 --> (33)
                                 |                               | v (31)
                                 +---(12)--- node 5 ====(23)=====+
                                               v (32)
    ```
"""


@case
def est_links(c):
    linked_substations(c)
    c.grid.find(20)[1].update(to_status=0)
    c.grid.line(14, 1, 2, MV_CABLE, 0.4)
    c.voltage(501, 1, 0.003, "asym")
    c.voltage(502, 6, 0.004, "asym")
    for id, object, terminal, sigma in ((511, 100, SOURCE, 9e3), (512, 31, LOAD, 12e3), (513, 32, LOAD, 7e3), (514, 33, LOAD, 5e3)):
        c.power(id, object, terminal, sigma, "asym")
    c.estimate()


@case
def est_links_at_voltages(c):
    linked_substations(c)
    c.voltage(501, 1, 0.003, "asym")
    c.voltage(502, 3, 0.004, "asym")
    c.voltage(503, 4, 0.004, "asym")
    for id, object, terminal, sigma in ((511, 100, SOURCE, 9e3), (512, 31, LOAD, 12e3), (513, 32, LOAD, 7e3), (514, 33, LOAD, 5e3)):
        c.power(id, object, terminal, sigma, "asym")
    c.estimate()


est_links.__doc__ = (
    """
    Links inside an estimate: two in parallel at a load and one that closes a loop; no sensor can sit on a link. Here link (20) is
    open at node 2 and a line (14) of 400 m takes its place, and voltages are read at nodes 1 and 6 only: power-grid-model's
    estimator needs a voltage sensor to be a line away from any link. A link's admittance (1e8 p.u.) beside lines' of some hundreds
    makes the gain matrix ill-conditioned; merging linked nodes does not.
    """
    + LINKS_DIAGRAM
)
est_links_at_voltages.__doc__ = (
    """
    As `est_links`, with link (20) closed (a bus coupler behind the source), without line (14), and with voltages read at nodes 1, 3
    and 4, which are all ends of links; 3 and 4 are one node electrically, and their readings differ.
    """
    + LINKS_DIAGRAM
)


@case
def est_radial_200(c):
    """
    200 nodes at 10 kV as a tree at most 25 branches deep: P and Q of the source (1 %), of every load per phase (half of them 2 %,
    half 30 %), voltage at the busbar (0.3 %) and at about a tenth of the nodes (0.5 %); a fifth of the nodes have no load and are
    exact constraints.

    ```text
    (90000) source, P, Q
      ~~~~ node 1 (U) --+-- ... up to 25 lines in a row ... --> loads of 4 to 40 kW, P, Q; some nodes U
                        +-- ...
    ```
    """
    g, r, n = c.grid, Rng(200), 200
    parent, depth = radial_tree(r, n, 25)
    for i in range(n):
        g.node(i + 1, 10e3)
    for i in range(1, n):
        cable = MV_CABLE if r.uniform() < 0.6 else MV_OVERHEAD
        g.line(10000 + i, parent[i] + 1, i + 1, {k: v for k, v in cable.items() if k != "i_n"}, significant(r.uniform(0.1, 0.8), 3))
    loads = [i for i in range(1, n) if r.uniform() > 0.2]
    for i in loads:
        p = significant([r.uniform(2e3, 16e3) for _ in range(3)], 3)
        g.load(20000 + i, i + 1, p, significant([x * r.uniform(0.1, 0.4) for x in p], 3))
    g.source(90000, 1, u_ref=1.03, sk=300e6, rx_ratio=0.1, z01_ratio=1.2)
    c.voltage(50000, 1, 0.003, "asym")
    for i in range(1, n):
        if r.uniform() < 0.1:
            c.voltage(50000 + i, i + 1, 0.005, "asym")
    total = sum(sum(g.find(20000 + i)[1]["p_specified"]) for i in loads)
    c.power(40000, 90000, SOURCE, significant(0.01 * total / 3, 3), "asym")
    for i in loads:
        mean = sum(g.find(20000 + i)[1]["p_specified"]) / 3
        c.power(40000 + i, 20000 + i, LOAD, significant(mean * (0.02 if r.uniform() < 0.5 else 0.3), 3), "asym")
    c.estimate()
    c.notes.append(f"The tree is {max(depth)} branches deep.")
