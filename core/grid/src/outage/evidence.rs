//! What has been heard from one metering point.
//!
//! By event time, not by arrival: a late message changes the answer to what it would have been. Repeats change nothing.

use serde::{Deserialize, Serialize};

use super::Micros;

/// Most distinct alarms of one kind kept per point; the oldest are forgotten above it.
pub(crate) const ALARMS_MAX: usize = 32;

/// One thing heard from a metering point, with its event time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Fact {
    /// A last gasp; or a voltage that an estimator no longer sees.
    Gasp(Micros),
    /// Supply is back.
    Restored(Micros),
    /// Any other message: there was supply. Only the newest counts, and it cannot be taken back.
    Alive(Micros),
}

/// Everything kept about a point.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Evidence {
    gasps: Alarms,
    restorations: Alarms,
    heard_at: Option<Micros>,
    /// Log time at which the newest message by event time came.
    heard_log: Option<Micros>,
}

/// Event times with how often each was said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Alarms(Vec<(Micros, i64)>);

impl Alarms {
    fn add(&mut self, at: Micros, difference: i64) {
        match self.0.binary_search_by_key(&at, |alarm| alarm.0) {
            Ok(index) => {
                self.0[index].1 += difference;
                if self.0[index].1 == 0 {
                    self.0.remove(index);
                }
            }
            Err(index) => {
                self.0.insert(index, (at, difference));
                if self.0.len() > ALARMS_MAX {
                    self.0.remove(0);
                }
            }
        }
    }

    fn standing(&self) -> impl DoubleEndedIterator<Item = Micros> {
        self.0.iter().filter(|alarm| alarm.1 > 0).map(|alarm| alarm.0)
    }
}

impl Evidence {
    /// Takes a fact in, or back. An event time after the log time is the log time: a clock that is ahead must not outvote what follows.
    pub(crate) fn apply(&mut self, fact: Fact, log_time: Micros, difference: i64) {
        match fact {
            Fact::Gasp(at) => self.gasps.add(at.min(log_time), difference),
            Fact::Restored(at) => {
                self.restorations.add(at.min(log_time), difference);
                if difference > 0 {
                    self.hear(at.min(log_time), log_time, false);
                }
            }
            Fact::Alive(at) if difference > 0 => self.hear(at.min(log_time), log_time, true),
            Fact::Alive(_) => {}
        }
    }

    fn hear(&mut self, at: Micros, log_time: Micros, is_reading: bool) {
        if self.alive_at().is_none_or(|last| at >= last) {
            self.heard_log = self.heard_log.max(Some(log_time));
        }
        if is_reading {
            self.heard_at = self.heard_at.max(Some(at));
        }
    }

    /// Newest event time at which it surely had supply.
    pub(crate) fn alive_at(&self) -> Option<Micros> {
        self.heard_at.max(self.restorations.standing().next_back())
    }

    /// First gasp that nothing newer contradicts; what was gasped up to `explained_until` has another cause.
    pub(crate) fn gasp_at(&self, explained_until: Option<Micros>) -> Option<Micros> {
        let after = self.alive_at().max(explained_until);
        self.gasps.standing().find(|&gasp| after.is_none_or(|after| gasp > after))
    }

    /// Log time at which the newest message by event time came.
    pub(crate) fn heard_log(&self) -> Option<Micros> {
        self.heard_log
    }

    /// Log time from which it is missed.
    pub(crate) fn missed_from(&self, allowance_us: Micros) -> Option<Micros> {
        self.heard_log.map(|heard| heard.saturating_add(allowance_us))
    }

    /// Whether any gasp within a time stands, contradicted since or not.
    pub(crate) fn has_gasp_within(&self, from: Micros, to: Micros) -> bool {
        self.gasps.standing().any(|gasp| (from..=to).contains(&gasp))
    }

    /// Whether any restoration within a time stands.
    pub(crate) fn has_restoration_within(&self, from: Micros, to: Micros) -> bool {
        self.restorations.standing().any(|restored| (from..=to).contains(&restored))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(facts: &[(Fact, i64)], gasp_at: Option<Micros>, alive_at: Option<Micros>) {
        // any order of the same facts says the same
        for turn in 0..facts.len().max(1) {
            let mut evidence = Evidence::default();
            for index in 0..facts.len() {
                let (fact, difference) = facts[(index + turn) % facts.len()];
                evidence.apply(fact, 1_000, difference);
            }
            assert_eq!(
                (evidence.gasp_at(None), evidence.alive_at()),
                (gasp_at, alive_at),
                "{facts:?} from {turn}"
            );
        }
    }

    #[test]
    fn the_newest_word_by_event_time_counts() {
        use Fact::{Alive, Gasp, Restored};
        check(&[(Gasp(5), 1), (Gasp(5), 1), (Gasp(7), 1)], Some(5), None);
        check(&[(Gasp(5), 1), (Alive(4), 1)], Some(5), Some(4));
        check(&[(Gasp(5), 1), (Alive(6), 1)], None, Some(6));
        check(&[(Gasp(5), 1), (Restored(6), 1), (Gasp(9), 1)], Some(9), Some(6));
        check(&[(Gasp(5), 1), (Restored(6), 1), (Restored(6), -1)], Some(5), None);
        check(&[(Gasp(5), 1), (Gasp(5), -1)], None, None);
        check(&[], None, None);
    }

    #[test]
    fn a_clock_that_is_ahead_does_not_outvote_what_follows() {
        let mut evidence = Evidence::default();
        evidence.apply(Fact::Alive(900), 10, 1);
        evidence.apply(Fact::Gasp(20), 20, 1);
        assert_eq!((evidence.gasp_at(None), evidence.alive_at()), (Some(20), Some(10)));
    }

    #[test]
    fn no_meter_fills_the_memory() {
        let mut evidence = Evidence::default();
        (0..1_000).for_each(|at| evidence.apply(Fact::Gasp(at), 1_000, 1));
        assert_eq!(evidence.gasps.0.len(), ALARMS_MAX);
    }
}
