//! Shared subscriptions (`$share/{group}/{filter}`): each message goes to one member of the group, in turns. rmqtt's default says it
//! does not support them and then takes `$share/…` for an ordinary filter that never matches, so this is ours.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use rmqtt::context::ServerContext;
use rmqtt::subscribe::SharedSubscription;
use rmqtt::types::{ClientId, Id, IsOnline, NodeId, SharedGroup, SubscriptionIdentifier, SubscriptionOptions, TopicName};

type Member = (
    NodeId,
    ClientId,
    SubscriptionOptions,
    Option<Vec<SubscriptionIdentifier>>,
    Option<IsOnline>,
);

/// Chooses in turns among the members that are connected; when none is, among all.
#[derive(Default)]
pub(super) struct InTurns(AtomicUsize);

#[async_trait]
impl SharedSubscription for InTurns {
    fn is_supported(&self) -> bool {
        true
    }

    async fn choice(&self, _: &ServerContext, _: &SharedGroup, _: &Id, _: &TopicName, members: &[Member]) -> Option<(usize, IsOnline)> {
        let first = self.0.fetch_add(1, Ordering::Relaxed).checked_rem(members.len())?;
        let is_online = |i: &usize| members[*i].4.unwrap_or(false);
        let mut in_turn = (first..members.len()).chain(0..first);
        Some(in_turn.find(is_online).map_or((first, false), |i| (i, true)))
    }
}
