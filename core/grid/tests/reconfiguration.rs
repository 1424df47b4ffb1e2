//! Reconfiguration of published and generated grids: the known optima, limits, sequences, hostile input.
#![allow(clippy::unwrap_used)]

mod feeder;

#[path = "reconfiguration/cases.rs"]
mod cases;

use flexmeter_grid::reconfiguration::{Options, Reconfiguration, reconfigure};

#[test]
fn explore() {
    for name in ["baran-wu-69", "su-lee-84", "zhang-118", "mantovani-136"] {
        let case = cases::published(name);
        for (kicks, seed) in [(0, 1), (30, 1), (30, 2), (30, 3), (30, 4), (30, 5)] {
            let start = std::time::Instant::now();
            let found: Reconfiguration = reconfigure(
                &case.network,
                &case.switches,
                &Options { n_kicks: kicks, seed, ..Options::default() },
            )
            .unwrap();
            let ids: Vec<i64> = found.best.open.iter().map(|&b| case.network.branches()[b].id).collect();
            println!(
                "{name} kicks {kicks} seed {seed}: {:.4} d46 {:.4} r {:.4} best {:.4} flows {} steps {} {:?} {:?} vmin {:.4}",
                found.initial.loss_w / 1e3,
                found.d4_6.as_ref().unwrap().loss_w / 1e3,
                found.r_only.as_ref().unwrap().loss_w / 1e3,
                found.best.loss_w / 1e3,
                found.n_power_flows,
                found.sequence.len(),
                start.elapsed(),
                ids,
                found.best.voltage_min_pu.1,
            );
        }
    }
    let network = cases::city(10_476, 84, 260, 1);
    let switches = cases::lines_of(&network);
    for kicks in [0, 30] {
        let start = std::time::Instant::now();
        let found = reconfigure(&network, &switches, &Options { n_kicks: kicks, voltage_pu: [0.0, 2.0], ..Options::default() }).unwrap();
        println!(
            "city kicks {kicks}: {:.3} d46 {:.3} r {:.3} best {:.3} flows {} steps {} {:?} vmin {:.4} -> {:.4}",
            found.initial.loss_w / 1e3,
            found.d4_6.as_ref().unwrap().loss_w / 1e3,
            found.r_only.as_ref().unwrap().loss_w / 1e3,
            found.best.loss_w / 1e3,
            found.n_power_flows,
            found.sequence.len(),
            start.elapsed(),
            found.initial.voltage_min_pu.1,
            found.best.voltage_min_pu.1,
        );
    }
}
