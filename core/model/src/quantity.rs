//! The quantities a meter can report: the 82 identifiers of D4.6 Table 2, each with its unit and plausibility range.
//!
//! On the wire a quantity is a name; everywhere else it is an [`Identifier`], one byte. The number is the row of [`QUANTITIES`] and
//! goes into checkpoints, so rows may be appended but never moved.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One row of the vocabulary.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantity {
    /// Its name on the wire, for example `electricity.voltage.rms.l1`.
    pub name: &'static str,
    /// The unit its values are in.
    pub unit: &'static str,
    /// The smallest plausible value.
    pub min: f64,
    /// The largest plausible value.
    pub max: f64,
    /// What it is, in words.
    pub meaning: &'static str,
}

const fn q(name: &'static str, unit: &'static str, min: f64, max: f64, meaning: &'static str) -> Quantity {
    Quantity {
        name,
        unit,
        min,
        max,
        meaning,
    }
}

/// The vocabulary, in the order of D4.6 Table 2.
#[rustfmt::skip]
#[allow(clippy::approx_constant, reason = "the published table gives a full turn as 6.283185307")]
pub static QUANTITIES: [Quantity; Identifier::COUNT] = [
    q("electricity.power.active.consumed.l1", "kW", 0.0, 1_000_000.0, "active power consumed"),
    q("electricity.power.active.consumed.l2", "kW", 0.0, 1_000_000.0, "active power consumed"),
    q("electricity.power.active.consumed.l3", "kW", 0.0, 1_000_000.0, "active power consumed"),
    q("electricity.power.active.consumed.total", "kW", 0.0, 1_000_000.0, "active power consumed"),
    q("electricity.power.active.injected.l1", "kW", 0.0, 1_000_000.0, "active power injected"),
    q("electricity.power.active.injected.l2", "kW", 0.0, 1_000_000.0, "active power injected"),
    q("electricity.power.active.injected.l3", "kW", 0.0, 1_000_000.0, "active power injected"),
    q("electricity.power.active.injected.total", "kW", 0.0, 1_000_000.0, "active power injected"),
    q("electricity.power.reactive.consumed.l1", "kVAR", 0.0, 1_000_000.0, "reactive power consumed"),
    q("electricity.power.reactive.consumed.l2", "kVAR", 0.0, 1_000_000.0, "reactive power consumed"),
    q("electricity.power.reactive.consumed.l3", "kVAR", 0.0, 1_000_000.0, "reactive power consumed"),
    q("electricity.power.reactive.consumed.total", "kVAR", 0.0, 1_000_000.0, "reactive power consumed"),
    q("electricity.power.reactive.injected.l1", "kVAR", 0.0, 1_000_000.0, "reactive power injected"),
    q("electricity.power.reactive.injected.l2", "kVAR", 0.0, 1_000_000.0, "reactive power injected"),
    q("electricity.power.reactive.injected.l3", "kVAR", 0.0, 1_000_000.0, "reactive power injected"),
    q("electricity.power.reactive.injected.total", "kVAR", 0.0, 1_000_000.0, "reactive power injected"),
    q("electricity.power.apparent.l1", "kVA", 0.0, 1_000_000.0, "apparent power"),
    q("electricity.power.apparent.l2", "kVA", 0.0, 1_000_000.0, "apparent power"),
    q("electricity.power.apparent.l3", "kVA", 0.0, 1_000_000.0, "apparent power"),
    q("electricity.power.apparent.total", "kVA", 0.0, 1_000_000.0, "apparent power"),
    q("electricity.energy.active.consumed.l1", "kWh", 0.0, 1e12, "active energy consumed, cumulative register"),
    q("electricity.energy.active.consumed.l2", "kWh", 0.0, 1e12, "active energy consumed, cumulative register"),
    q("electricity.energy.active.consumed.l3", "kWh", 0.0, 1e12, "active energy consumed, cumulative register"),
    q("electricity.energy.active.consumed.total", "kWh", 0.0, 1e12, "active energy consumed, cumulative register"),
    q("electricity.energy.active.injected.l1", "kWh", 0.0, 1e12, "active energy injected, cumulative register"),
    q("electricity.energy.active.injected.l2", "kWh", 0.0, 1e12, "active energy injected, cumulative register"),
    q("electricity.energy.active.injected.l3", "kWh", 0.0, 1e12, "active energy injected, cumulative register"),
    q("electricity.energy.active.injected.total", "kWh", 0.0, 1e12, "active energy injected, cumulative register"),
    q("electricity.energy.reactive.consumed.l1", "kVARh", 0.0, 1e12, "reactive energy consumed, cumulative register"),
    q("electricity.energy.reactive.consumed.l2", "kVARh", 0.0, 1e12, "reactive energy consumed, cumulative register"),
    q("electricity.energy.reactive.consumed.l3", "kVARh", 0.0, 1e12, "reactive energy consumed, cumulative register"),
    q("electricity.energy.reactive.consumed.total", "kVARh", 0.0, 1e12, "reactive energy consumed, cumulative register"),
    q("electricity.energy.reactive.injected.l1", "kVARh", 0.0, 1e12, "reactive energy injected, cumulative register"),
    q("electricity.energy.reactive.injected.l2", "kVARh", 0.0, 1e12, "reactive energy injected, cumulative register"),
    q("electricity.energy.reactive.injected.l3", "kVARh", 0.0, 1e12, "reactive energy injected, cumulative register"),
    q("electricity.energy.reactive.injected.total", "kVARh", 0.0, 1e12, "reactive energy injected, cumulative register"),
    q("electricity.energy.apparent.l1", "kVAh", 0.0, 1e12, "apparent energy, cumulative register"),
    q("electricity.energy.apparent.l2", "kVAh", 0.0, 1e12, "apparent energy, cumulative register"),
    q("electricity.energy.apparent.l3", "kVAh", 0.0, 1e12, "apparent energy, cumulative register"),
    q("electricity.energy.apparent.total", "kVAh", 0.0, 1e12, "apparent energy, cumulative register"),
    q("electricity.current.rms.l1", "A", 0.0, 100_000.0, "current rms"),
    q("electricity.current.rms.l2", "A", 0.0, 100_000.0, "current rms"),
    q("electricity.current.rms.l3", "A", 0.0, 100_000.0, "current rms"),
    q("electricity.current.phase.l1", "rad", -6.283185307, 6.283185307, "current phase"),
    q("electricity.current.phase.l2", "rad", -6.283185307, 6.283185307, "current phase"),
    q("electricity.current.phase.l3", "rad", -6.283185307, 6.283185307, "current phase"),
    q("electricity.current.instant.l1", "A", -1_000_000.0, 1_000_000.0, "current instant"),
    q("electricity.current.instant.l2", "A", -1_000_000.0, 1_000_000.0, "current instant"),
    q("electricity.current.instant.l3", "A", -1_000_000.0, 1_000_000.0, "current instant"),
    q("electricity.voltage.rms.l1", "V", 0.0, 1_000_000.0, "voltage rms"),
    q("electricity.voltage.rms.l2", "V", 0.0, 1_000_000.0, "voltage rms"),
    q("electricity.voltage.rms.l3", "V", 0.0, 1_000_000.0, "voltage rms"),
    q("electricity.voltage.phase.l1", "rad", -6.283185307, 6.283185307, "voltage phase"),
    q("electricity.voltage.phase.l2", "rad", -6.283185307, 6.283185307, "voltage phase"),
    q("electricity.voltage.phase.l3", "rad", -6.283185307, 6.283185307, "voltage phase"),
    q("electricity.voltage.instant.l1", "V", -2_000_000.0, 2_000_000.0, "voltage instant"),
    q("electricity.voltage.instant.l2", "V", -2_000_000.0, 2_000_000.0, "voltage instant"),
    q("electricity.voltage.instant.l3", "V", -2_000_000.0, 2_000_000.0, "voltage instant"),
    q("electricity.powerFactor.l1", "1", -1.0, 1.0, "power factor cos phi (Table 2 prints rad)"),
    q("electricity.powerFactor.l2", "1", -1.0, 1.0, "power factor cos phi (Table 2 prints rad)"),
    q("electricity.powerFactor.l3", "1", -1.0, 1.0, "power factor cos phi (Table 2 prints rad)"),
    q("electricity.frequency", "Hz", 0.0, 100.0, "mains frequency"),
    q("electricity.energy.blink", "Wh", 0.0, 1e12, "energy counted from LED blinks"),
    q("heating.energy", "MWh", 0.0, 1e9, "thermal energy, cumulative register"),
    q("heating.power", "MW", -10_000.0, 10_000.0, "thermal power"),
    q("heating.volume", "m3", 0.0, 1e9, "heating water volume, cumulative register"),
    q("heating.temp.primary.inlet", "°C", -60.0, 300.0, "temperature"),
    q("heating.temp.secondary.inlet", "°C", -60.0, 300.0, "temperature"),
    q("heating.flowrate", "m3/h", -100_000.0, 100_000.0, "heating water flow"),
    q("heating.temp.primary.outlet", "°C", -60.0, 300.0, "temperature"),
    q("heating.temp.secondary.outlet", "°C", -60.0, 300.0, "temperature"),
    q("heating.temp.external", "°C", -60.0, 300.0, "temperature"),
    q("heating.set.point", "°C", -60.0, 300.0, "set point"),
    q("heating.time.slot", "#", 0.0, 1_000_000.0, "time slot"),
    q("heating.pump.status", "#", 0.0, 1_000_000.0, "pump status"),
    q("gas.flowrate", "m3/h", 0.0, 1_000_000.0, "gas flow"),
    q("gas.temperature", "°C", -60.0, 300.0, "gas temperature"),
    q("gas.volume", "m3", 0.0, 1e9, "gas volume, cumulative register"),
    q("gas.pressure", "bar", 0.0, 1_000.0, "gas pressure"),
    q("water.flowrate", "m3/h", -100_000.0, 100_000.0, "water flow"),
    q("water.volume", "m3", 0.0, 1e9, "water volume, cumulative register"),
    q("water.pressure", "bar", 0.0, 1_000.0, "water pressure"),
];

/// A quantity of the vocabulary, as a small number.
///
/// ```
/// use flexmeter_model::Identifier;
///
/// let voltage = Identifier::from_name(b"electricity.voltage.rms.l1").ok_or("unknown")?;
/// assert_eq!(voltage.unit(), "V");
/// assert_eq!(Identifier::from_name(b"electricity.voltage.rms.l9"), None);
/// # Ok::<(), &str>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identifier(u8);

/// No such quantity is in the vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no measurement identifier of that name; the names are those of D4.6 Table 2")]
pub struct UnknownIdentifier;

impl Identifier {
    /// Size of the vocabulary.
    pub const COUNT: usize = 82;

    /// Every identifier, in the order of the vocabulary.
    pub const ALL: [Self; Self::COUNT] = {
        let mut all = [Self(0); Self::COUNT];
        let mut i = 0;
        while i < Self::COUNT {
            all[i] = Self(i as u8);
            i += 1;
        }
        all
    };

    /// The identifier with this name on the wire.
    #[must_use]
    #[inline]
    pub fn from_name(name: &[u8]) -> Option<Self> {
        let index = SLOTS[slot(name, SEED)?];
        let quantity = QUANTITIES.get(usize::from(index))?;
        (quantity.name.as_bytes() == name).then_some(Self(index))
    }

    /// The identifier with this number.
    #[must_use]
    pub const fn from_index(index: u8) -> Option<Self> {
        if (index as usize) < Self::COUNT { Some(Self(index)) } else { None }
    }

    /// Its number, from 0 to `COUNT - 1`.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Its row of the vocabulary.
    #[must_use]
    #[inline]
    pub fn quantity(self) -> &'static Quantity {
        &QUANTITIES[self.index()]
    }

    /// Its name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.quantity().name
    }

    /// The unit of its values.
    #[must_use]
    pub fn unit(self) -> &'static str {
        self.quantity().unit
    }

    /// The smallest and the largest plausible value, both included.
    #[must_use]
    pub fn range(self) -> (f64, f64) {
        (self.quantity().min, self.quantity().max)
    }

    /// What it is, in words.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        self.quantity().meaning
    }
}

impl fmt::Debug for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Identifier {
    type Err = UnknownIdentifier;

    fn from_str(name: &str) -> Result<Self, UnknownIdentifier> {
        Self::from_name(name.as_bytes()).ok_or(UnknownIdentifier)
    }
}

impl Serialize for Identifier {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Identifier {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = std::borrow::Cow::<str>::deserialize(deserializer)?;
        name.parse().map_err(serde::de::Error::custom)
    }
}

// A perfect hash, found by the compiler: no two names share a slot, so a lookup is one hash and one comparison.

const SLOT_BITS: u32 = 10;
const N_SLOTS: usize = 1 << SLOT_BITS;
const NO_IDENTIFIER: u8 = u8::MAX;
/// Shortest name of the vocabulary is longer than the words the hash reads.
const WORD: usize = 8;
const SEEDS_MAX: u64 = 1_000;
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

const fn word(name: &[u8], at: usize) -> u64 {
    let mut word = 0;
    let mut i = 0;
    while i < WORD {
        word |= (name[at + i] as u64) << (8 * i);
        i += 1;
    }
    word
}

/// The slot of a name: its length, its last eight bytes and the eight before them tell all names apart.
#[inline]
const fn slot(name: &[u8], seed: u64) -> Option<usize> {
    if name.len() < WORD {
        return None;
    }
    let last = word(name, name.len() - WORD);
    let before = word(name, name.len().saturating_sub(2 * WORD));
    let mixed = (last ^ seed).wrapping_mul(MULTIPLIER) ^ before.rotate_left(29) ^ name.len() as u64;
    Some((mixed.wrapping_mul(MULTIPLIER) >> (64 - SLOT_BITS)) as usize)
}

const fn fill(seed: u64) -> Option<[u8; N_SLOTS]> {
    let mut slots = [NO_IDENTIFIER; N_SLOTS];
    let mut i = 0;
    while i < Identifier::COUNT {
        match slot(QUANTITIES[i].name.as_bytes(), seed) {
            Some(at) if slots[at] == NO_IDENTIFIER => slots[at] = i as u8,
            _ => return None,
        }
        i += 1;
    }
    Some(slots)
}

const SEARCHED: (u64, [u8; N_SLOTS]) = {
    let mut seed = 0;
    loop {
        if let Some(slots) = fill(seed) {
            break (seed, slots);
        }
        seed += 1;
        assert!(seed < SEEDS_MAX, "no seed gives a perfect hash of the names; make SLOT_BITS larger");
    }
};
const SEED: u64 = SEARCHED.0;
static SLOTS: [u8; N_SLOTS] = SEARCHED.1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_finds_its_identifier() {
        for (i, id) in Identifier::ALL.into_iter().enumerate() {
            assert_eq!(id.index(), i);
            assert_eq!(Identifier::from_index(i as u8), Some(id));
            assert_eq!(Identifier::from_name(id.name().as_bytes()), Some(id));
            assert_eq!(id.name().parse(), Ok(id));
            let (min, max) = id.range();
            assert!(min < max, "{id}");
        }
        assert_eq!(Identifier::from_index(82), None);
    }

    #[test]
    fn nothing_else_is_an_identifier() {
        for name in [
            "",
            "a",
            "electricity",
            "electricity.voltage.rms.l9",
            "electricity.voltage.rms.L1",
            " gas.volume",
            "gas.volume ",
            "gas",
        ] {
            assert_eq!(Identifier::from_name(name.as_bytes()), None, "{name:?}");
            assert_eq!(name.parse::<Identifier>(), Err(UnknownIdentifier));
        }
        for id in Identifier::ALL {
            let mut name = id.name().as_bytes().to_vec();
            for i in 0..name.len() {
                name[i] ^= 0x20;
                assert_eq!(Identifier::from_name(&name), None);
                name[i] ^= 0x20;
            }
        }
    }

    #[test]
    fn the_vocabulary_is_the_published_table() {
        use std::io::Write as _;

        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/identifiers.csv");
        let Ok(csv) = std::fs::read_to_string(path) else {
            // past the test runner, which swallows what a passing test prints
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED the_vocabulary_is_the_published_table: {path} is not there"
            );
            return;
        };
        let mut n_rows = 0;
        for (line, quantity) in csv.lines().skip(1).zip(&QUANTITIES) {
            let fields: Vec<&str> = line.splitn(5, ',').collect();
            assert_eq!(fields[..2], [quantity.name, quantity.unit]);
            assert_eq!(
                [fields[2].parse(), fields[3].parse()],
                [Ok(quantity.min), Ok(quantity.max)],
                "{line}"
            );
            assert_eq!(fields[4], quantity.meaning);
            n_rows += 1;
        }
        assert_eq!((n_rows, csv.lines().count()), (Identifier::COUNT, Identifier::COUNT + 1));
    }
}
