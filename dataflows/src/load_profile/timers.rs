//! What the load profile does when log time moves on: ended windows are flushed to the lake, old ones leave memory.

use std::collections::BTreeMap;
use std::collections::btree_map::OccupiedEntry;

use super::{DeviceWindows, Draft, LoadProfile, NOT_DUE};
use crate::batch::Tick;
use crate::config::{EngineConfig, minutes_up};

impl LoadProfile {
    /// Log time enters a new minute: flush what is due, let go of what is old.
    pub(super) fn tick(&mut self, tick: &Tick, config: &EngineConfig, draft: &mut Draft) {
        self.minute = tick.minute;
        self.flush(tick, config, draft);
        self.evict(tick, config, draft);
    }

    fn flush(&mut self, tick: &Tick, config: &EngineConfig, draft: &mut Draft) {
        let mut n_left = config.profile_windows_per_tick_max;
        while let Some(entry) = due(&mut self.flushes, tick.minute) {
            let minute = *entry.key();
            let mut keys = entry.remove();
            keys.sort_unstable();
            for (position, &key) in keys.iter().enumerate() {
                if n_left == 0 {
                    self.flushes.insert(minute, keys.split_off(position));
                    return;
                }
                let Some(device) = self.devices.get_mut(key.device as usize) else {
                    continue;
                };
                let Ok(at) = device.position(key.start) else { continue };
                let DeviceWindows {
                    device: Some(device),
                    windows,
                    ..
                } = device
                else {
                    continue;
                };
                let window = &mut windows[at];
                // An entry of a window that left memory and was opened again is not its own.
                if window.flush_at == minute {
                    window.flush_at = NOT_DUE;
                    window.flush(device, tick.offset, draft);
                    n_left -= 1;
                }
            }
        }
    }

    fn evict(&mut self, tick: &Tick, config: &EngineConfig, draft: &mut Draft) {
        let mut n_left = config.profile_windows_per_tick_max;
        loop {
            let is_early = self.n_windows > config.profile_windows_max;
            let Some(entry) = due(&mut self.evictions, if is_early { i64::MAX } else { tick.minute }) else {
                return;
            };
            let minute = *entry.key();
            let mut keys = entry.remove();
            keys.sort_unstable();
            for (position, &key) in keys.iter().enumerate() {
                let Some(device) = self.devices.get_mut(key.device as usize) else {
                    continue;
                };
                let Ok(at) = device.position(key.start) else { continue };
                let leaves_at = leaves_at(device.windows[at].touched, config);
                if leaves_at > minute {
                    self.evictions.entry(leaves_at).or_default().push(key);
                    continue;
                }
                let is_early = self.n_windows > config.profile_windows_max;
                if !is_early && (minute > tick.minute || n_left == 0) {
                    self.evictions.entry(minute).or_default().extend(keys.split_off(position));
                    return;
                }
                n_left = n_left.saturating_sub(1);
                draft.output.n_windows_forgotten += u64::from(minute > tick.minute);
                device.evict(at, key, self.batch, tick.offset, draft);
                self.n_windows -= 1;
            }
        }
    }
}

/// The minute of log time from which a window that was last touched in another one may leave: it was untouched for the whole
/// retention time by then.
pub(super) fn leaves_at(touched: i64, config: &EngineConfig) -> i64 {
    touched.saturating_add(minutes_up(config.profile_retention_us) + 1)
}

/// The first bucket, if it is due.
fn due<T>(buckets: &mut BTreeMap<i64, T>, minute: i64) -> Option<OccupiedEntry<'_, i64, T>> {
    buckets.first_entry().filter(|entry| *entry.key() <= minute)
}
