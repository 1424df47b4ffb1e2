//! What was seen already: the identities of messages, remembered for a horizon of log time.
//!
//! An identity is a 64-bit hash. Identities stand in a queue in the order they came and in a hash table; the queue's front leaves
//! when its minute of log time falls behind the horizon, so forgetting costs as much as remembering and never scans. A message newer
//! than every message remembered of its device is new without a look at the table, so a chance collision can only ever hit
//! late data: about 10⁻¹³ per late message with a million identities remembered.

use std::collections::VecDeque;

use hashbrown::{HashMap, HashTable};

use crate::checkpoint::{CheckpointError, Reader, Writer};

/// The identity of a message within its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Identity(u64);

impl Identity {
    /// Of a message that says when it was sent.
    pub(crate) fn dated(device: u32, kind: u8, event_time: i64, content_hash: u64) -> Self {
        let who = u64::from(kind) << 32 | u64::from(device);
        Self(mix(mix(content_hash ^ SALT[0], event_time as u64 ^ SALT[1]), who ^ SALT[2]))
    }

    /// Of a message that does not.
    pub(crate) fn undated(device: u32, kind: u8, content_hash: u64) -> Self {
        let who = u64::from(kind) << 32 | u64::from(device);
        Self(mix(mix(content_hash ^ SALT[3], SALT[4]), who ^ SALT[2]))
    }

    /// Of the `part`-th event of a payload that was rejected, filed under a hardware id (given as a hash).
    pub(crate) fn payload(tenant: u32, hardware_id_hash: u64, payload_hash: u64, part: u32) -> Self {
        let place = u64::from(tenant) << 32 | u64::from(part);
        Self(mix(mix(payload_hash ^ SALT[5], hardware_id_hash ^ SALT[6]), place ^ SALT[7]))
    }
}

/// Digits of π; any odd-looking constants would do.
const SALT: [u64; 8] = [
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7344,
    0xa409_3822_299f_31d0,
    0x082e_fa98_ec4e_6c89,
    0x4528_21e6_38d0_1377,
    0xbe54_66cf_34e9_0c6c,
    0xc0ac_29b7_c97c_50dd,
    0x3f84_d5b5_b547_0917,
];

fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    ((product as u64) ^ (product >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Tables the identities are spread over. Each grows on its own, so no single message waits for a large table to be copied.
const N_SHARDS: usize = 64;

/// The identities of one partition.
#[derive(Debug)]
pub(crate) struct Identities {
    shards: Vec<HashTable<u64>>,
    queue: VecDeque<u64>,
    /// How many identities of the queue came in which minute of log time, oldest first.
    minutes: VecDeque<(i64, usize)>,
    /// Newest event time remembered of each device.
    newest: Vec<i64>,
    recent: Recent,
}

impl Default for Identities {
    fn default() -> Self {
        Self {
            shards: (0..N_SHARDS).map(|_| HashTable::new()).collect(),
            queue: VecDeque::new(),
            minutes: VecDeque::new(),
            newest: Vec::new(),
            recent: Recent::default(),
        }
    }
}

impl Identities {
    /// Remembers a dated message; false when it was remembered already.
    pub(crate) fn admit_dated(&mut self, identity: Identity, device: u32, event_time: i64, minute: i64) -> bool {
        let device = device as usize;
        if device >= self.newest.len() {
            self.newest.resize(device + 1, i64::MIN);
        }
        let newest = &mut self.newest[device];
        if event_time > *newest {
            *newest = event_time;
        } else if self.contains(identity) {
            return false;
        }
        self.remember(identity, minute);
        true
    }

    /// Remembers a rejected payload; false when it was remembered already.
    pub(crate) fn admit_payload(&mut self, identity: Identity, minute: i64) -> bool {
        if self.contains(identity) {
            return false;
        }
        self.remember(identity, minute);
        true
    }

    /// Remembers an undated message for the redelivery window; false when it is a redelivery of one remembered.
    pub(crate) fn admit_undated(&mut self, identity: Identity, redelivered: bool, log_time: i64, window_us: i64, limit: usize) -> bool {
        self.recent.forget_before(log_time.saturating_sub(window_us));
        if redelivered && self.recent.contains(identity) {
            return false;
        }
        self.recent.remember(identity, log_time, limit);
        true
    }

    /// Forgets what came before a minute of log time.
    pub(crate) fn forget_before(&mut self, minute: i64) {
        while let Some(&(oldest, n)) = self.minutes.front() {
            if oldest >= minute {
                break;
            }
            self.minutes.pop_front();
            for identity in self.queue.drain(..n) {
                remove(&mut self.shards, identity);
            }
        }
    }

    /// Forgets the oldest identities above a limit; says how many.
    pub(crate) fn forget_above(&mut self, limit: usize) -> u64 {
        let n = self.queue.len().saturating_sub(limit);
        for _ in 0..n {
            if let Some(identity) = self.queue.pop_front() {
                remove(&mut self.shards, identity);
            }
            if let Some((_, left)) = self.minutes.front_mut() {
                *left -= 1;
                if *left == 0 {
                    self.minutes.pop_front();
                }
            }
        }
        n as u64
    }

    fn contains(&self, Identity(hash): Identity) -> bool {
        self.shards[shard(hash)].find(hash, |&other| other == hash).is_some()
    }

    fn remember(&mut self, Identity(hash): Identity, minute: i64) {
        self.shards[shard(hash)].insert_unique(hash, hash, |&hash| hash);
        self.queue.push_back(hash);
        match self.minutes.back_mut() {
            Some((newest, n)) if *newest == minute => *n += 1,
            _ => self.minutes.push_back((minute, 1)),
        }
    }

    pub(crate) fn write(&self, out: &mut Writer) {
        out.len(self.minutes.len());
        for &(minute, n) in &self.minutes {
            out.i64(minute);
            out.len(n);
        }
        out.len(self.queue.len());
        self.queue.iter().for_each(|&identity| out.u64(identity));
        out.len(self.newest.len());
        self.newest.iter().for_each(|&newest| out.i64(newest));
        self.recent.write(out);
    }

    pub(crate) fn read(input: &mut Reader<'_>) -> Result<Self, CheckpointError> {
        let mut this = Self::default();
        let mut n_dated = 0usize;
        for _ in 0..input.len(9)? {
            let minute = input.i64()?;
            let n = usize::try_from(input.varint()?).map_err(|_| CheckpointError::Value { what: "identity count" })?;
            n_dated = n_dated.checked_add(n).ok_or(CheckpointError::Value { what: "identity count" })?;
            if n == 0 || this.minutes.back().is_some_and(|&(newest, _)| newest >= minute) {
                return Err(CheckpointError::Value { what: "identity minutes" });
            }
            this.minutes.push_back((minute, n));
        }
        let n = input.len(8)?;
        if n != n_dated {
            return Err(CheckpointError::Value { what: "identity count" });
        }
        this.queue.reserve(n);
        for shard in &mut this.shards {
            shard.reserve(n / N_SHARDS + n / N_SHARDS / 8, |&hash| hash);
        }
        for _ in 0..n {
            let hash = input.u64()?;
            this.shards[shard(hash)].insert_unique(hash, hash, |&hash| hash);
            this.queue.push_back(hash);
        }
        let n_devices = input.len(8)?;
        this.newest.reserve(n_devices);
        for _ in 0..n_devices {
            this.newest.push(input.i64()?);
        }
        this.recent = Recent::read(input)?;
        Ok(this)
    }
}

/// Not the bits that the table itself uses (the low ones and the top seven).
fn shard(hash: u64) -> usize {
    (hash >> 48) as usize % N_SHARDS
}

fn remove(shards: &mut [HashTable<u64>], hash: u64) {
    if let Ok(entry) = shards[shard(hash)].find_entry(hash, |&other| other == hash) {
        entry.remove();
    }
}

/// Undated messages of the last minutes, by exact log time.
#[derive(Debug, Default)]
struct Recent {
    seen: HashMap<u64, i64>,
    queue: VecDeque<(i64, u64)>,
}

impl Recent {
    fn contains(&self, Identity(hash): Identity) -> bool {
        self.seen.contains_key(&hash)
    }

    fn remember(&mut self, Identity(hash): Identity, log_time: i64, limit: usize) {
        if self.queue.len() >= limit {
            self.forget_oldest();
        }
        self.seen.insert(hash, log_time);
        self.queue.push_back((log_time, hash));
    }

    fn forget_before(&mut self, log_time: i64) {
        while self.queue.front().is_some_and(|&(oldest, _)| oldest < log_time) {
            self.forget_oldest();
        }
    }

    /// An identity seen again later has a newer entry in the queue; only its last one ends the memory of it.
    fn forget_oldest(&mut self) {
        if let Some((log_time, hash)) = self.queue.pop_front()
            && self.seen.get(&hash) == Some(&log_time)
        {
            self.seen.remove(&hash);
        }
    }

    fn write(&self, out: &mut Writer) {
        out.len(self.queue.len());
        for &(log_time, hash) in &self.queue {
            out.i64(log_time);
            out.u64(hash);
        }
    }

    fn read(input: &mut Reader<'_>) -> Result<Self, CheckpointError> {
        let mut this = Self::default();
        for _ in 0..input.len(16)? {
            let (log_time, hash) = (input.i64()?, input.u64()?);
            this.remember(Identity(hash), log_time, usize::MAX);
        }
        Ok(this)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dated(identities: &mut Identities, device: u32, event_time: i64, minute: i64) -> bool {
        identities.admit_dated(Identity::dated(device, 1, event_time, 99), device, event_time, minute)
    }

    #[test]
    fn a_repeat_is_refused_in_any_order() {
        let mut identities = Identities::default();
        let order = [5, 3, 9, 1, 7];
        assert!(order.iter().all(|&t| dated(&mut identities, 0, t, 0)));
        assert!(!order.iter().any(|&t| dated(&mut identities, 0, t, 0)));
        assert!(dated(&mut identities, 1, 5, 0), "another device");
    }

    #[test]
    fn what_fell_behind_the_horizon_counts_as_new() {
        let mut identities = Identities::default();
        assert!(dated(&mut identities, 0, 100, 10));
        assert!(dated(&mut identities, 0, 50, 11));
        identities.forget_before(11);
        assert!(!dated(&mut identities, 0, 50, 12), "minute 11 is still remembered");
        assert!(dated(&mut identities, 0, 100, 12), "minute 10 is not");
        identities.forget_before(1_000);
        assert!(identities.queue.is_empty() && identities.shards.iter().all(HashTable::is_empty));
    }

    #[test]
    fn above_the_limit_the_oldest_are_forgotten_and_counted() {
        let mut identities = Identities::default();
        for t in 0..10 {
            assert!(dated(&mut identities, 0, t, t / 4));
        }
        assert_eq!(identities.forget_above(7), 3);
        assert_eq!(identities.forget_above(7), 0);
        assert_eq!(identities.minutes, [(0, 1), (1, 4), (2, 2)]);
        assert!(!dated(&mut identities, 0, 3, 9));
        assert!(dated(&mut identities, 0, 2, 9));
    }

    #[test]
    fn an_undated_message_is_a_repeat_only_when_redelivered_within_the_window() {
        let mut identities = Identities::default();
        let identity = Identity::undated(0, 1, 42);
        let mut admit = |redelivered, log_time| identities.admit_undated(identity, redelivered, log_time, 100, usize::MAX);
        assert!(admit(false, 0));
        assert!(admit(false, 50), "the same again is a new message");
        assert!(!admit(true, 150), "100 after the last one");
        assert!(admit(true, 151), "101 after it");
    }

    #[test]
    fn memory_comes_back_from_its_bytes() {
        let mut identities = Identities::default();
        for t in 0..500 {
            dated(&mut identities, (t % 7) as u32, t * 31 % 97, t / 50);
            identities.admit_undated(Identity::undated(1, 1, t as u64 % 5), false, t, 100, usize::MAX);
        }
        let mut out = Writer::default();
        identities.write(&mut out);
        let bytes = out.into_bytes();
        let back = Identities::read(&mut Reader::new(&bytes)).unwrap();
        assert_eq!(
            (&back.queue, &back.minutes, &back.newest),
            (&identities.queue, &identities.minutes, &identities.newest)
        );
        assert_eq!(
            (&back.recent.queue, &back.recent.seen),
            (&identities.recent.queue, &identities.recent.seen)
        );
        assert!(identities.queue.iter().all(|&hash| back.contains(Identity(hash))));
    }
}
