//! Dictionaries: the text columns with few distinct values, kept as small numbers until somebody needs text.

use std::sync::Arc;

use arrow::array::{ArrayRef, DictionaryArray, StringArray};
use arrow::datatypes::{Int32Type, UInt8Type};
use arrow::error::ArrowError;
use flexmeter_model::Identifier;
use flexmeter_model::outcome::{Device, Quality};
use rustc_hash::FxHashMap;

/// The words that never change: identifiers, their units, qualities. Made once and shared by all batches, so that batches with the same
/// words have the same dictionary and can be joined without comparing text.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    identifiers: Arc<StringArray>,
    units: Arc<StringArray>,
    qualities: Arc<StringArray>,
}

impl Default for Vocabulary {
    fn default() -> Self {
        Self::new()
    }
}

impl Vocabulary {
    /// The vocabulary of D4.6's Table 2.
    #[must_use]
    pub fn new() -> Self {
        // key = Identifier::index(); `units` repeats words, which lets one column of keys serve both
        Self {
            identifiers: Arc::new(StringArray::from_iter_values(
                Identifier::ALL.iter().map(|identifier| identifier.name()),
            )),
            units: Arc::new(StringArray::from_iter_values(
                Identifier::ALL.iter().map(|identifier| identifier.unit()),
            )),
            qualities: Arc::new(StringArray::from_iter_values(
                [Quality::Good, Quality::Suspect, Quality::Substituted].map(Quality::as_str),
            )),
        }
    }

    /// Identifiers by index.
    pub(crate) fn identifiers(&self, keys: Vec<u8>) -> Result<ArrayRef, ArrowError> {
        small(keys, &self.identifiers)
    }

    /// Identifiers by index, and their units.
    pub(crate) fn identifiers_and_units(&self, keys: Vec<u8>) -> Result<(ArrayRef, ArrayRef), ArrowError> {
        let keys = arrow::array::UInt8Array::from(keys);
        let identifiers = DictionaryArray::<UInt8Type>::try_new(keys.clone(), self.identifiers.clone())?;
        let units = DictionaryArray::<UInt8Type>::try_new(keys, self.units.clone())?;
        Ok((Arc::new(identifiers), Arc::new(units)))
    }

    /// Qualities by number.
    pub(crate) fn qualities(&self, keys: Vec<u8>) -> Result<ArrayRef, ArrowError> {
        small(keys, &self.qualities)
    }
}

fn small(keys: Vec<u8>, words: &Arc<StringArray>) -> Result<ArrayRef, ArrowError> {
    Ok(Arc::new(DictionaryArray::<UInt8Type>::try_new(keys.into(), words.clone())?))
}

/// The devices of one batch, each hardware id once.
#[derive(Debug, Default)]
pub(crate) struct DeviceDictionary {
    keys: FxHashMap<u64, i32>,
    devices: Vec<Arc<Device>>,
    /// The device of the last row: rows of one message follow each other.
    last: Option<(u64, i32)>,
}

impl DeviceDictionary {
    /// The device's key in this batch.
    pub(crate) fn key(&mut self, device: &Arc<Device>) -> i32 {
        let place = u64::from(device.partition) << 32 | u64::from(device.index);
        if let Some((last, key)) = self.last
            && last == place
        {
            return key;
        }
        let key = *self.keys.entry(place).or_insert_with(|| {
            self.devices.push(Arc::clone(device));
            self.devices.len() as i32 - 1
        });
        self.last = Some((place, key));
        key
    }

    /// The column with these keys; empties the dictionary.
    pub(crate) fn column(&mut self, keys: Vec<i32>) -> Result<ArrayRef, ArrowError> {
        let words = StringArray::from_iter_values(self.devices.drain(..).map(|device| device.hardware_id.clone()).map(Word));
        self.keys.clear();
        self.last = None;
        Ok(Arc::new(DictionaryArray::<Int32Type>::try_new(keys.into(), Arc::new(words))?))
    }
}

/// A hardware id as `StringArray` wants it.
struct Word(flexmeter_model::HardwareId);

impl AsRef<str> for Word {
    fn as_ref(&self) -> &str {
        self.0.as_str()
    }
}
