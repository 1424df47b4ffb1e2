//! What the demo shows: a welcome with the doors to try, and a summary that refreshes itself on a terminal.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use arrow::array::{Array as _, AsArray as _};
use arrow::datatypes::Int64Type;
use flexmeter_queries::flight::client::Client;
use parking_lot::Mutex;

use super::Ledger;
use crate::report::thousands;

/// Pause between two refreshes on a terminal; elsewhere one line every ten times this.
const REFRESH: Duration = Duration::from_millis(500);

/// The demo's face.
pub(super) struct Screen {
    pub(super) rest: SocketAddr,
    pub(super) flight: SocketAddr,
    pub(super) password: String,
    pub(super) live: bool,
}

impl Screen {
    /// Says where everything is and what to try.
    pub(super) fn welcome(&self, mqtt: SocketAddr, meters: u32) {
        let Self {
            rest, flight, password, ..
        } = self;
        println!("Flexmeter demo: {meters} simulated meters publish over MQTT; every reading is on disk before it is acknowledged.\n");
        println!("  MQTT        mqtt://{mqtt}");
        println!("  REST        http://{rest}/           OpenAPI: http://{rest}/api/openapi.json");
        println!("  Flight SQL  grpc://{flight}");
        println!("  login       user admin, password {password}\n");
        println!("Try in another terminal:");
        let exe = std::env::current_exe().map_or_else(|_| "flexmeter".to_owned(), |path| path.display().to_string());
        let sql = |statement: &str| println!("  {exe} sql --url http://{flight} --password {password} \"{statement}\"");
        sql("SELECT hardware_id, identifier, value, unit, event_time FROM latest ORDER BY hardware_id, identifier LIMIT 10");
        sql(
            "SELECT window_start, sum(mean) AS kw FROM load_profile_15m JOIN meters USING (hardware_id) WHERE role = 'customer' AND identifier LIKE 'electricity.power.active.consumed.l%' GROUP BY 1 ORDER BY 1",
        );
        sql("SELECT outage_id, device, n_customers, confidence, opened_at, closed_at FROM outages");
        println!("  curl -u admin:{password} http://{rest}/api/v1/devices/DEMO-001-001/latest");
        println!("  curl -u admin:{password} http://{rest}/api/v1/reconfigurations\n");
    }

    /// Refreshes the summary until it is dropped.
    pub(super) async fn refresh(&self, ledger: &Mutex<Ledger>) {
        let started = Instant::now();
        let mut before = (Instant::now(), 0);
        let mut first = true;
        loop {
            tokio::time::sleep(if self.live { REFRESH } else { REFRESH * 4 }).await;
            let summary = self.summary(ledger, started, &mut before).await;
            if self.live {
                if !first {
                    print!("\x1b[{}A", summary.lines().count());
                }
                for line in summary.lines() {
                    println!("\x1b[2K{line}");
                }
            } else {
                println!("{}", summary.lines().map(str::trim).collect::<Vec<_>>().join(" | "));
            }
            let _ = std::io::stdout().flush();
            first = false;
        }
    }

    async fn summary(&self, ledger: &Mutex<Ledger>, started: Instant, before: &mut (Instant, u64)) -> String {
        let (acknowledged, p50, p99, (good, partly, rejected, repeats)) = {
            let ledger = ledger.lock();
            let quantile = |q| ledger.latency_us.value_at_quantile(q) as f64 / 1000.0;
            (ledger.acknowledged.len() as u64, quantile(0.5), quantile(0.99), ledger.tally())
        };
        let now = Instant::now();
        let rate = (acknowledged - before.1) as f64 / now.duration_since(before.0).as_secs_f64();
        *before = (now, acknowledged);
        let (rows, rejections) = self.rows().await.unwrap_or_default();
        let grid = self.grid().await.unwrap_or_else(|error| error.to_string());
        format!(
            "  running {:.0} s   {:>7.0} messages/s acknowledged, {} in all\n  sent: {} good, {} partly good, {} broken, {} repeats\n  rows: {} measurements, {} rejections\n  publish → acknowledged (on disk): p50 {p50:.1} ms, p99 {p99:.1} ms\n  grid: {grid}\n",
            started.elapsed().as_secs_f64(),
            rate,
            thousands(acknowledged),
            thousands(good),
            thousands(partly),
            thousands(rejected),
            thousands(repeats),
            thousands(rows),
            thousands(rejections),
        )
    }

    /// Rows of `measurements` and `rejections`, asked the way a user would.
    async fn rows(&self) -> anyhow::Result<(u64, u64)> {
        let mut client = Client::connect(&format!("http://{}", self.flight), crate::secrets::ADMIN, &self.password).await?;
        let sql = "SELECT (SELECT count(*) FROM measurements) AS m, (SELECT count(*) FROM rejections) AS r";
        for batch in client.query(sql).await?.batches {
            if batch.num_rows() == 1 {
                let cell = |column: usize| batch.column(column).as_primitive::<Int64Type>().value(0);
                return Ok((u64::try_from(cell(0))?, u64::try_from(cell(1))?));
            }
        }
        Ok((0, 0))
    }

    /// The grid in a line: its voltages, the newest outage, the newest reconfiguration.
    async fn grid(&self) -> anyhow::Result<String> {
        let mut client = Client::connect(&format!("http://{}", self.flight), crate::secrets::ADMIN, &self.password).await?;
        let sql = "SELECT (SELECT CAST(round(min(value), 1) AS VARCHAR) || ' to ' || CAST(round(max(value), 1) AS VARCHAR) || ' V' FROM grid_state
                JOIN nodes USING (node_id) WHERE quantity = 'voltage_v' AND u_rated_v < 1000 AND value > 0
                AND event_time > now() - INTERVAL '10 seconds'),
            (SELECT concat('outage at ', device, ', ', n_customers, ' customers, ', coalesce(closed_because, 'open'))
                FROM outages ORDER BY reported_at DESC LIMIT 1),
            (SELECT concat('reconfiguration ', state, ', ', round(loss_before_w / 1000, 1), ' -> ', round(loss_after_w / 1000, 1), ' kW')
                FROM reconfigurations ORDER BY proposed_at DESC LIMIT 1)";
        let batches = client.query(sql).await?.batches;
        let Some(batch) = batches.iter().find(|batch| batch.num_rows() == 1) else {
            return Ok(String::new());
        };
        let cells = batch.columns().iter().filter(|column| column.is_valid(0));
        let texts: Result<Vec<String>, _> = cells.map(|column| arrow::util::display::array_value_to_string(column, 0)).collect();
        Ok(texts?.join("; "))
    }

    /// The last word.
    pub(super) async fn farewell(&self, ledger: &Mutex<Ledger>) -> anyhow::Result<()> {
        let started = Instant::now();
        let mut before = (started, 0);
        println!(
            "\n{}",
            self.summary(ledger, started, &mut before)
                .await
                .lines()
                .skip(1)
                .collect::<Vec<_>>()
                .join("\n")
        );
        Ok(())
    }
}
