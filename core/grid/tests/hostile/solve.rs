//! Everything the engine can be asked of a network, with a look at every number it gives.

use std::sync::mpsc;
use std::time::Duration;

use flexmeter_grid::estimation::{BadDataOptions, EstimateOptions, Estimator, estimate_without_bad_data};
use flexmeter_grid::network::{BranchKind, Network, Terminal};
use flexmeter_grid::power_flow::{Method, Options, PowerFlow};
use flexmeter_grid::{Complex, GridError};

pub(crate) type C64 = Complex<f64>;

/// Voltages by node, per unit; `None` without supply.
pub(crate) type Voltages<const N: usize> = Vec<Option<[C64; N]>>;

/// Fails if `work` takes longer than `seconds_max`, without waiting for it: a hang must not hold up the other tests.
#[track_caller]
pub(crate) fn within<T: Send + 'static>(seconds_max: u64, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    let worker = std::thread::spawn(move || {
        // an error means that nobody is waiting any more
        let _ = sender.send(work());
    });
    match receiver.recv_timeout(Duration::from_secs(seconds_max)) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("no answer after {seconds_max} s"),
        Err(mpsc::RecvTimeoutError::Disconnected) => match worker.join() {
            Ok(()) => panic!("ended without a result"),
            Err(panic) => std::panic::resume_unwind(panic),
        },
    }
}

/// What a calculation gave.
#[derive(Debug)]
pub(crate) struct Answer<const N: usize> {
    pub(crate) voltages: Voltages<N>,
    /// Numbers that are none, or that contradict each other.
    pub(crate) wrong: Vec<String>,
}

impl<const N: usize> Answer<N> {
    fn of(network: &Network, voltage: impl Fn(usize) -> Option<[C64; N]>) -> Self {
        let mut answer = Self {
            voltages: (0..network.nodes().len()).map(voltage).collect(),
            wrong: Vec::new(),
        };
        for node in 0..answer.voltages.len() {
            if let Some(u) = answer.voltages[node] {
                answer.look(|| format!("voltage of node {}", network.nodes()[node].id), u);
            }
        }
        answer
    }

    fn look(&mut self, what: impl FnOnce() -> String, values: impl IntoIterator<Item = C64>) {
        let bad: Vec<String> = values
            .into_iter()
            .filter(|value| !value.is_finite())
            .map(|value| value.to_string())
            .collect();
        if !bad.is_empty() {
            self.wrong.push(format!("{} is {}", what(), bad.join(", ")));
        }
    }

    fn look_real(&mut self, what: impl FnOnce() -> String, values: impl IntoIterator<Item = f64>) {
        self.look(what, values.into_iter().map(C64::from));
    }

    /// The first few of what is wrong.
    pub(crate) fn verdict(&self) -> Option<String> {
        let first: Vec<&str> = self.wrong.iter().take(3).map(String::as_str).collect();
        (!first.is_empty()).then(|| format!("{} of {}", first.join("; "), self.wrong.len()))
    }
}

/// The power flow with its flows and injections, and whether they balance.
pub(crate) fn power_flow<const N: usize>(network: &Network, method: Method) -> Result<Answer<N>, GridError> {
    let mut flow = PowerFlow::<N>::new(network)?;
    let options = Options {
        method,
        ..Options::default()
    };
    let convergence = flow.solve(&options)?;
    let mut answer = Answer::of(network, |node| flow.voltage_pu(node));
    answer.look_real(|| "the last step".to_owned(), [convergence.step_pu]);
    for (index, branch) in network.branches().iter().enumerate() {
        let of = flow.branch_flow(network, index);
        answer.look(|| format!("flow of {}", branch.id), [of.s_from_pu, of.s_to_pu].concat());
        answer.look(|| format!("current of {}", branch.id), [of.i_from_pu, of.i_to_pu].concat());
    }
    for appliance in network.appliances() {
        answer.look(|| format!("injection of {}", appliance.id), flow.injection_pu(appliance)?);
    }
    if answer.wrong.is_empty() {
        answer.wrong.extend(unbalanced(network, &flow));
    }
    Ok(answer)
}

/// Kirchhoff's law as judge: a node without source whose branches and appliances do not add up to zero. Nodes with shunts, links or
/// transformers are left out: their admittances, and so what rounding does to their flows, are not to be had from outside.
fn unbalanced<const N: usize>(network: &Network, flow: &PowerFlow<N>) -> Option<String> {
    let n = network.nodes().len();
    let (mut sum, mut allowed, mut is_judged) = (vec![[C64::ZERO; N]; n], vec![1e-6; n], vec![true; n]);
    network.sources().iter().for_each(|source| is_judged[source.node] = false);
    network.shunts().iter().for_each(|shunt| is_judged[shunt.node] = false);
    let u_max = |node: usize| {
        flow.voltage_pu(node)
            .map_or(0.0, |u| u.iter().map(|u| u.norm()).fold(0.0, f64::max))
    };
    for (index, branch) in network.branches().iter().enumerate() {
        let BranchKind::Line(line) = &branch.kind else {
            (is_judged[branch.from], is_judged[branch.to]) = (false, false);
            continue;
        };
        let z_base = network.nodes()[branch.from].u_rated_v.powi(2) / flexmeter_grid::BASE_POWER_VA;
        let series = [Some(line.z1_ohm), line.z0_ohm]
            .into_iter()
            .flatten()
            .map(|[r, x]| z_base / r.hypot(x));
        let charging = [(line.c1_f, line.tan1), (line.c0_f, line.tan0)].map(|(c, tan)| 315.0 * c.abs() * tan.hypot(1.0) * z_base);
        let y = series.chain(charging).fold(0.0, f64::max);
        let of = flow.branch_flow(network, index);
        for (node, s) in [(branch.from, of.s_from_pu), (branch.to, of.s_to_pu)] {
            // what the voltages' rounding and the iteration's tolerance make of the flow
            let u = u_max(branch.from) + u_max(branch.to);
            allowed[node] += (1e-13 * u + 1e-7) * y * u + 1e-5 * s.iter().map(|s| s.norm()).sum::<f64>();
            for k in 0..N {
                sum[node][k] += s[k];
            }
        }
    }
    for appliance in network.appliances() {
        let s = flow.injection_pu(appliance).ok()?;
        allowed[appliance.node] += 1e-5 * s.iter().map(|s| s.norm()).sum::<f64>();
        for k in 0..N {
            sum[appliance.node][k] -= s[k];
        }
    }
    (0..n)
        .filter(|&node| is_judged[node] && flow.voltage_pu(node).is_some())
        .find_map(|node| {
            let rest = sum[node].iter().map(|s| s.norm()).fold(0.0, f64::max);
            (rest > allowed[node]).then(|| format!("node {} is {rest:.1e} per unit out of balance", network.nodes()[node].id))
        })
}

/// The estimate with its uncertainty, flows, residuals and trust.
pub(crate) fn estimate<const N: usize, const B: usize>(network: &Network) -> Result<Answer<N>, GridError> {
    let mut estimator = Estimator::<N, B>::new(network, EstimateOptions::default())?;
    let convergence = estimator.estimate()?;
    let mut answer = Answer::of(network, |node| estimator.voltage_pu(node));
    answer.look_real(|| "the last step".to_owned(), [convergence.step_pu]);
    let uncertainty = estimator.uncertainty()?;
    let trust = estimator.trust(network, &uncertainty, 0.01);
    answer.look_real(
        || "the sum of squares or its limit".to_owned(),
        [trust.j, trust.j_limit.unwrap_or(0.0)],
    );
    for r in &trust.residuals {
        let values = [r.residual, r.sigma, r.normalized.unwrap_or(0.0)];
        answer.look_real(|| format!("residual ({:?}) of sensor {}", r.quantity, r.sensor.id(network)), values);
    }
    for node in 0..network.nodes().len() {
        let id = network.nodes()[node].id;
        if let Some(injection) = estimator.injection_pu(node) {
            answer.look(|| format!("injection of node {id}"), injection);
        }
        if let Some((u, angle)) = estimator.voltage_sigma(&uncertainty, node) {
            answer.look_real(|| format!("sigma of the voltage of node {id}"), [u, angle].concat());
        }
        if let Some(sigma) = estimator.injection_sigma(&uncertainty, node) {
            answer.look(|| format!("sigma of the injection of node {id}"), sigma);
        }
    }
    for (index, branch) in network.branches().iter().enumerate() {
        let flow = estimator.branch_flow(network, index);
        answer.look(|| format!("flow of {}", branch.id), [flow.s_from_pu, flow.s_to_pu].concat());
        for terminal in [Terminal::BranchFrom(index), Terminal::BranchTo(index)] {
            if let Some(sigma) = estimator.flow_sigma(&uncertainty, network, terminal) {
                answer.look(|| format!("sigma of the flow of {}", branch.id), sigma);
            }
        }
    }
    Ok(answer)
}

/// The search for bad data on top of an estimate.
pub(crate) fn search_bad_data<const N: usize, const B: usize>(network: &Network) -> Result<(), GridError> {
    estimate_without_bad_data::<N, B>(network, EstimateOptions::default(), BadDataOptions::default()).map(|_| ())
}

/// Answers or errors of all calculations.
#[derive(Debug)]
pub(crate) struct Solved {
    pub(crate) symmetric_flow: Result<Answer<1>, GridError>,
    pub(crate) symmetric_newton: Result<Answer<1>, GridError>,
    pub(crate) asymmetric_flow: Result<Answer<3>, GridError>,
    pub(crate) asymmetric_newton: Result<Answer<3>, GridError>,
    pub(crate) symmetric_estimate: Result<Answer<1>, GridError>,
    pub(crate) asymmetric_estimate: Result<Answer<3>, GridError>,
}

impl Solved {
    pub(crate) fn new(network: &Network) -> Self {
        Self {
            symmetric_flow: power_flow(network, Method::Auto),
            symmetric_newton: power_flow(network, Method::Newton),
            asymmetric_flow: power_flow(network, Method::Auto),
            asymmetric_newton: power_flow(network, Method::Newton),
            symmetric_estimate: estimate::<1, 4>(network),
            asymmetric_estimate: estimate::<3, 12>(network),
        }
    }

    /// What is neither an answer nor an error.
    pub(crate) fn wrong(&self) -> Vec<String> {
        fn of<const N: usize>(what: &str, result: &Result<Answer<N>, GridError>) -> Option<String> {
            let verdict = result.as_ref().ok()?.verdict()?;
            Some(format!("{what}: {verdict}"))
        }
        let all = [
            of("symmetric power flow", &self.symmetric_flow),
            of("symmetric power flow by Newton's method", &self.symmetric_newton),
            of("asymmetric power flow", &self.asymmetric_flow),
            of("asymmetric power flow by Newton's method", &self.asymmetric_newton),
            of("symmetric estimate", &self.symmetric_estimate),
            of("asymmetric estimate", &self.asymmetric_estimate),
        ];
        all.into_iter().flatten().collect()
    }

    /// Texts of the errors, by calculation.
    pub(crate) fn errors(&self) -> Vec<String> {
        fn of<const N: usize>(what: &str, result: &Result<Answer<N>, GridError>) -> Option<String> {
            result.as_ref().err().map(|error| format!("{what}: {error}"))
        }
        let all = [
            of("symmetric power flow", &self.symmetric_flow),
            of("symmetric power flow by Newton's method", &self.symmetric_newton),
            of("asymmetric power flow", &self.asymmetric_flow),
            of("asymmetric power flow by Newton's method", &self.asymmetric_newton),
            of("symmetric estimate", &self.symmetric_estimate),
            of("asymmetric estimate", &self.asymmetric_estimate),
        ];
        all.into_iter().flatten().collect()
    }
}
