//! In which order the switches move: pairs that close one and open another, each ending in a radial state that supplies everybody.
//!
//! Every switch that differs moves once, so no sequence has fewer operations. That pairs exist is the exchange property of spanning
//! trees: the loop that a switch of the new tree closes in the old one always holds a switch that the new tree does without.

use super::meshed::apart;
use super::search::{Search, State};
use super::tree::{Exchange, Quality};
use super::{Options, Order, Step, worst_loading};
use crate::error::GridError;
use crate::model::BASE_POWER_VA;

/// A larger angle across a switch makes closing it a short circuit, rad: 20 degrees, the usual limit of a synchronism check.
const CLOSING_ANGLE_MAX_RAD: f64 = 0.349;
/// Pairs looked at by a power flow before one with violated limits is taken.
const TRIALS_MAX: usize = 20;

/// The steps from where the search stands to `target`. The largest saving comes first, among the pairs that keep the limits as well as
/// the start and the target do.
///
/// # Errors
/// [`GridError::NotConverged`] if a state between cannot carry its loads.
pub(super) fn steps(
    search: &mut Search<'_>,
    target: &[bool],
    quality_of_target: Quality,
    options: &Options,
) -> Result<Vec<Step>, GridError> {
    let allowed = search.quality.violation.max(quality_of_target.violation);
    let mut steps = Vec::new();
    loop {
        let candidates = pairs(search, target, options);
        if candidates.is_empty() {
            return Ok(steps);
        }
        let before = search.state();
        let mut best: Option<(Step, State)> = None;
        let mut failure = None;
        let mut is_done = false;
        for &(order, exchange) in candidates.iter().take(TRIALS_MAX) {
            match step(search, exchange, order, options) {
                Ok(step) if search.quality.violation <= allowed => {
                    steps.push(step);
                    is_done = true;
                    break;
                }
                Ok(step) => {
                    let violation = search.quality.violation;
                    if best.as_ref().is_none_or(|(_, best)| violation < best.quality.violation) {
                        best = Some((step, search.state()));
                    }
                }
                Err(error) => failure = Some(error),
            }
            search.restore(&before);
        }
        match (best, failure) {
            _ if is_done => {}
            (Some((step, state)), _) => {
                search.restore(&state);
                steps.push(step);
            }
            (None, Some(error)) => return Err(error),
            (None, None) => return Ok(steps),
        }
    }
}

/// What may be closed and opened next, those that need no interruption and save most first.
fn pairs(search: &mut Search<'_>, target: &[bool], options: &Options) -> Vec<(Order, Exchange)> {
    search.tree.prepare(search.graph);
    let mut pairs = Vec::new();
    let to_close = (0..target.len()).filter(|&edge| target[edge] && !search.tree.closed[edge]);
    for edge in to_close {
        let order = order(search, edge as u32, options);
        search.tree.exchanges(search.graph, edge as u32, |exchange| {
            if !target[exchange.open as usize] {
                pairs.push((order, exchange));
            }
        });
    }
    pairs.sort_unstable_by(|(x_order, x), (y_order, y)| {
        x_order
            .cmp(y_order)
            .then(x.loss_change_pu.total_cmp(&y.loss_change_pu))
            .then((x.close, x.open).cmp(&(y.close, y.open)))
    });
    pairs
}

/// Whether the loop may exist for a moment.
fn order(search: &Search<'_>, close: u32, options: &Options) -> Order {
    let [a, b] = search.graph.ends[close as usize].map(|node| search.tree.position[node as usize] as usize);
    let is_between_sources = search.tree.source(a) != search.tree.source(b);
    let (_, angle_rad) = across(search, close);
    match (is_between_sources && !options.loops_between_sources) || angle_rad > CLOSING_ANGLE_MAX_RAD {
        true => Order::BreakBeforeMake,
        false => Order::MakeBeforeBreak,
    }
}

/// Voltage across an open switch, per unit, and the angle between its ends; a transformer's turn is not a difference.
fn across(search: &Search<'_>, edge: u32) -> (f64, f64) {
    let [a, b] = search.graph.ends[edge as usize].map(|node| search.tree.voltage[node as usize]);
    apart(a * search.graph.ways[edge as usize][1].ratio, b)
}

/// Makes one step and says what it leads to.
fn step(search: &mut Search<'_>, exchange: Exchange, order: Order, options: &Options) -> Result<Step, GridError> {
    let graph = search.graph;
    let (voltage_across_pu, angle_across_rad) = across(search, exchange.close);
    let n_interrupted = match order {
        Order::MakeBeforeBreak => 0,
        Order::BreakBeforeMake => {
            let [a, b] = graph.ends[exchange.open as usize].map(|node| search.tree.position[node as usize] as usize);
            search.tree.n_behind(a.max(b))
        }
    };
    search.tree.exchange(graph, exchange.close, exchange.open);
    search.tree.solve(graph, options.tolerance_pu)?;
    search.quality = search.tree.quality(graph, &search.bounds);
    let voltage_min_pu = search.tree.v.iter().skip(1).map(|v| v.norm()).fold(f64::INFINITY, f64::min);
    Ok(Step {
        close: graph.branch[exchange.close as usize] as usize,
        open: graph.branch[exchange.open as usize] as usize,
        order,
        n_interrupted,
        voltage_across_pu,
        angle_across_rad,
        loss_w: search.quality.loss_pu * BASE_POWER_VA,
        voltage_min_pu,
        loading_max: worst_loading(graph, &search.tree).map(|(_, loading)| loading),
        keeps_limits: search.quality.violation == 0.0,
    })
}
