//! The demo's operator: looks at outages and proposals over REST every half second, takes note of the ones and accepts the others.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Somebody with a browser and the admin's password.
#[derive(Debug, Clone)]
pub(super) struct Operator {
    http: reqwest::Client,
    rest: SocketAddr,
    password: String,
}

impl Operator {
    pub(super) fn new(rest: SocketAddr, password: &str) -> Self {
        Self {
            http: reqwest::Client::new(),
            rest,
            password: password.to_owned(),
        }
    }

    /// Works until it is dropped.
    pub(super) async fn work(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if let Err(error) = self.look().await {
                tracing::warn!("the operator sees nothing: {error}");
            }
        }
    }

    /// Waits until the staged events are over: an outage closed, a reconfiguration done.
    pub(super) async fn see_the_end(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let closed = self.list("outages?state=closed").await.unwrap_or_default();
            let proposals = self.list("reconfigurations").await.unwrap_or_default();
            if !closed.is_empty() && proposals.iter().any(|proposal| proposal["state"] == "done") {
                return;
            }
        }
    }

    async fn look(&self) -> reqwest::Result<()> {
        for outage in self.list("outages?state=open").await? {
            let is_new = outage["acknowledged"] == Value::Bool(false);
            if let Some(id) = outage["outageId"].as_str().filter(|_| is_new) {
                self.decide(&format!("outages/{id}/acknowledge")).await?;
            }
        }
        for proposal in self.list("reconfigurations").await? {
            let is_open = proposal["state"] == "proposed";
            if let Some(id) = proposal["proposalId"].as_str().filter(|_| is_open) {
                self.decide(&format!("reconfigurations/{id}/accept")).await?;
            }
        }
        Ok(())
    }

    async fn list(&self, path: &str) -> reqwest::Result<Vec<Value>> {
        let url = format!("http://{}/api/v1/{path}", self.rest);
        let request = self.http.get(url).basic_auth(crate::secrets::ADMIN, Some(&self.password));
        let mut answer: Value = request.send().await?.error_for_status()?.json().await?;
        Ok(answer["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
    }

    async fn decide(&self, path: &str) -> reqwest::Result<()> {
        let url = format!("http://{}/api/v1/{path}", self.rest);
        let request = self.http.post(url).basic_auth(crate::secrets::ADMIN, Some(&self.password));
        // 409 says that somebody, or time, was faster
        request.send().await.map(drop)
    }
}
