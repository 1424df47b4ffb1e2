//! Retained messages, in memory and bounded. rmqtt's own store keeps nothing without a plugin, so this is ours.
//!
//! They need not survive a restart: the platform publishes its retained results again when it starts.

use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::RwLock;
use rmqtt::retain::{RetainStorage, RetainTree};
use rmqtt::types::{Retain, TimedValue, Topic, TopicFilter, TopicName};

use super::config::{RETAINED_BYTES_MAX, RETAINED_MESSAGES_MAX};

/// The store.
#[derive(Default)]
pub(super) struct Retained(RwLock<Kept>);

#[derive(Default)]
struct Kept {
    tree: RetainTree<TimedValue<Retain>>,
    n_messages: usize,
    n_bytes: usize,
}

/// A limit was reached. The publish fails: better than a subscriber that never learns what it missed.
#[derive(Debug, thiserror::Error)]
#[error(
    "no more retained messages: {n_messages} with {n_bytes} bytes are kept, the limits are {RETAINED_MESSAGES_MAX} and {RETAINED_BYTES_MAX}"
)]
struct Full {
    n_messages: usize,
    n_bytes: usize,
}

impl Kept {
    fn remove(&mut self, topic: &Topic) {
        if let Some(old) = self.tree.remove(topic) {
            self.n_messages -= 1;
            self.n_bytes -= old.value().publish.payload.len();
        }
    }

    fn remove_expired(&mut self) {
        let (mut n_messages, mut n_bytes) = (0, 0);
        self.tree.retain(usize::MAX, |kept| {
            if kept.is_expired() {
                n_messages += 1;
                n_bytes += kept.value().publish.payload.len();
            }
            !kept.is_expired()
        });
        self.n_messages -= n_messages;
        self.n_bytes -= n_bytes;
    }

    fn is_full(&self, added: usize) -> bool {
        self.n_messages >= RETAINED_MESSAGES_MAX || self.n_bytes + added > RETAINED_BYTES_MAX
    }
}

#[async_trait]
impl RetainStorage for Retained {
    fn enable(&self) -> bool {
        true
    }

    async fn set(&self, topic: &TopicName, retain: Retain, expiry: Option<Duration>) -> rmqtt::Result<()> {
        let topic = Topic::from_str(topic)?;
        let len = retain.publish.payload.len();
        let mut kept = self.0.write();
        kept.remove(&topic);
        if len == 0 {
            return Ok(());
        }
        if kept.is_full(len) {
            kept.remove_expired();
        }
        if kept.is_full(len) {
            return Err(Full {
                n_messages: kept.n_messages,
                n_bytes: kept.n_bytes,
            }
            .into());
        }
        kept.n_messages += 1;
        kept.n_bytes += len;
        kept.tree
            .insert(&topic, TimedValue::new(retain, expiry.filter(|expiry| !expiry.is_zero())));
        Ok(())
    }

    async fn get(&self, filter: &TopicFilter) -> rmqtt::Result<Vec<(TopicName, Retain)>> {
        let matching = self.0.read().tree.matches(&Topic::from_str(filter)?);
        let alive = matching.into_iter().filter(|(_, kept)| !kept.is_expired());
        Ok(alive
            .map(|(topic, kept)| (TopicName::from(topic.to_string()), kept.into_value()))
            .collect())
    }

    async fn count(&self) -> isize {
        isize::try_from(self.0.read().n_messages).unwrap_or(isize::MAX)
    }

    async fn max(&self) -> isize {
        RETAINED_MESSAGES_MAX as isize
    }
}

#[cfg(test)]
mod tests {
    use rmqtt::codec::types::Publish;
    use rmqtt::types::{From, Id, QoS};

    use super::*;

    async fn set(store: &Retained, topic: &str, len: usize) -> rmqtt::Result<()> {
        let publish = Publish {
            dup: false,
            retain: true,
            qos: QoS::AtLeastOnce,
            topic: topic.into(),
            packet_id: None,
            payload: vec![b'x'; len].into(),
            properties: None,
        };
        let from = From::from_system(Id::from(1, "test".into()));
        store
            .set(
                &topic.into(),
                Retain {
                    msg_id: None,
                    from,
                    publish: publish.into(),
                },
                None,
            )
            .await
    }

    #[tokio::test]
    async fn a_newer_message_replaces_the_older_and_an_empty_one_removes_it() {
        let store = Retained::default();
        set(&store, "a/b", 3).await.unwrap();
        set(&store, "a/b", 5).await.unwrap();
        let found = store.get(&"a/+".into()).await.unwrap();
        assert_eq!((found.len(), found[0].1.publish.payload.len(), store.0.read().n_bytes), (1, 5, 5));
        set(&store, "a/b", 0).await.unwrap();
        assert_eq!((store.count().await, store.0.read().n_bytes), (0, 0));
    }

    #[tokio::test]
    async fn the_byte_limit_is_reached_and_replacing_still_works() {
        let store = Retained::default();
        set(&store, "a", RETAINED_BYTES_MAX).await.unwrap();
        assert!(set(&store, "b", 1).await.unwrap_err().to_string().contains("limits"));
        set(&store, "a", 1).await.unwrap();
        set(&store, "b", 1).await.unwrap();
    }
}
