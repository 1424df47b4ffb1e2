//! What the engine suggests goes into the log, where a proposal begins. The distributor leaves suggestions here and never waits; of each
//! tenant only the newest is kept, and one that is lost is suggested again at the engine's next look.
//!
//! Only what is of now is taken: while the log is applied again, the proposals of then are in it already.

use std::collections::BTreeMap;
use std::sync::Arc;

use flexmeter_model::TenantId;
use flexmeter_model::operator::proposed;
use flexmeter_model::outcome::Suggestion;
use flexmeter_queries::rest::LogDoor;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

/// Suggestions that are not in the log yet: as many as there are tenants, at most.
#[derive(Debug, Default)]
pub(crate) struct Suggestions {
    waiting: Mutex<BTreeMap<TenantId, Arc<Suggestion>>>,
    came: Notify,
}

impl Suggestions {
    /// Takes suggestions over.
    pub(crate) fn post(&self, suggestions: &[(TenantId, Arc<Suggestion>)]) {
        if suggestions.is_empty() {
            return;
        }
        self.waiting.lock().extend(suggestions.iter().cloned());
        self.came.notify_one();
    }

    /// Those of an engine that is no more are worth nothing.
    pub(crate) fn forget(&self) {
        self.waiting.lock().clear();
    }

    /// Puts suggestions into the log until `stopped` turns true.
    pub(crate) async fn propose(&self, log: LogDoor, mut stopped: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                () = self.came.notified() => {}
                // who is gone cannot stop us any more
                _ = stopped.wait_for(|&stopped| stopped) => return,
            }
            // one after the other: what comes meanwhile replaces what still waits
            while let Some((tenant, suggestion)) = self.next() {
                let stored = tokio::select! {
                    stored = log(tenant.clone(), proposed(&suggestion)) => stored,
                    _ = stopped.wait_for(|&stopped| stopped) => return,
                };
                match stored {
                    Ok(()) => metrics::counter!("flexmeter_grid_proposals_total", "outcome" => "stored").increment(1),
                    Err(error) => {
                        metrics::counter!("flexmeter_grid_proposals_total", "outcome" => "not_stored").increment(1);
                        tracing::warn!(%tenant, proposal = suggestion.id, "a proposal is not stored: {error}; it is made again while the saving lasts");
                    }
                }
            }
        }
    }

    fn next(&self) -> Option<(TenantId, Arc<Suggestion>)> {
        self.waiting.lock().pop_first()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use flexmeter_model::HardwareId;
    use flexmeter_model::message::{DeviceMessage, DeviceRequest};
    use flexmeter_model::outcome::{ProposalTerms, SwitchOperation};
    use tokio::sync::{Semaphore, mpsc};

    use super::*;

    fn suggestion(tenant: &str, id: u64) -> (TenantId, Arc<Suggestion>) {
        let suggestion = Suggestion {
            id,
            area: "mv1".into(),
            grid_mark: 1,
            positions_mark: 2,
            operations: vec![SwitchOperation {
                branch_id: 7,
                hardware_id: HardwareId::new("SW-7").unwrap(),
                close: true,
            }],
            loss_before_w: 2.0,
            loss_after_w: 1.0,
            loss_d4_6_w: None,
            voltage_min_pu: [0.9, 0.95],
            terms: ProposalTerms {
                expires_us: 1,
                confirmation_us: 1,
                pause_us: 0,
                is_automatic: false,
            },
        };
        (TenantId::new(tenant).unwrap(), Arc::new(suggestion))
    }

    fn subject(message: &DeviceMessage) -> String {
        let DeviceRequest::Alert(alert) = &message.request else {
            panic!("{message:?}")
        };
        let subject = alert.metadata.iter().find(|(name, _)| name == "subject");
        subject.unwrap().1.clone()
    }

    /// A log that takes a message when it is allowed to, and refuses the proposal 13.
    fn log(permits: &Arc<Semaphore>) -> (LogDoor, mpsc::UnboundedReceiver<String>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let permits = Arc::clone(permits);
        let door: LogDoor = Arc::new(move |tenant, message| {
            let (sender, permits) = (sender.clone(), Arc::clone(&permits));
            Box::pin(async move {
                let subject = subject(&message);
                sender.send(format!("{tenant} {subject}")).unwrap();
                permits.acquire().await.unwrap().forget();
                if subject == "13" {
                    Err("the disk is full".to_owned())
                } else {
                    Ok(())
                }
            })
        });
        (door, receiver)
    }

    #[tokio::test]
    async fn a_slow_log_gets_the_newest_of_each_tenant_and_a_refusal_is_not_the_end() {
        let (suggestions, permits) = (Arc::new(Suggestions::default()), Arc::new(Semaphore::new(0)));
        let (door, mut stored) = log(&permits);
        let (stop, stopped) = watch::channel(false);
        let task = {
            let suggestions = Arc::clone(&suggestions);
            tokio::spawn(async move { suggestions.propose(door, stopped).await })
        };
        suggestions.post(&[suggestion("a", 1)]);
        assert_eq!(stored.recv().await.unwrap(), "a 1");
        // the log hangs; nobody waits for it
        for id in 2..1_000 {
            suggestions.post(&[suggestion("a", id), suggestion("b", id)]);
        }
        suggestions.post(&[suggestion("b", 13)]);
        permits.add_permits(3);
        assert_eq!(stored.recv().await.unwrap(), "a 999");
        assert_eq!(stored.recv().await.unwrap(), "b 13");
        suggestions.post(&[suggestion("b", 14)]);
        assert_eq!(stored.recv().await.unwrap(), "b 14");
        // it hangs again, and is not waited for at the end either
        stop.send_replace(true);
        tokio::time::timeout(Duration::from_secs(30), task).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_an_engine_suggested_that_is_no_more_is_forgotten() {
        let (suggestions, permits) = (Suggestions::default(), Arc::new(Semaphore::new(9)));
        let (door, mut stored) = log(&permits);
        let (stop, stopped) = watch::channel(false);
        suggestions.post(&[suggestion("a", 1)]);
        suggestions.forget();
        suggestions.post(&[suggestion("b", 2)]);
        tokio::join!(suggestions.propose(door, stopped), async {
            assert_eq!(stored.recv().await.unwrap(), "b 2");
            stop.send_replace(true);
        });
        assert!(stored.try_recv().is_err());
    }
}
