//! The content hash: with device, type and event time it is a message's identity.
//!
//! It depends on what a message says, not on how it is written: neither key order nor white space nor the way a number is spelt
//! changes it. Checkpoints remember hashes for days, so a change here lets repeats through once after an upgrade.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Body;
use crate::boundary::PublishedBoundary;
use crate::outcome::ReasonCode;
use crate::quantity::Identifier;

/// What a summand stands for; the seed of its hash.
#[derive(Clone, Copy)]
enum Field {
    Measurements = 1,
    Alert,
    Acknowledge,
    Register,
    UpdateState,
    BadMeasurement,
    BadValue,
    AlertType,
    Level,
    Message,
    MetadataName,
    MetadataValue,
    OriginatingEventId,
    Response,
    ResponseEventId,
    SpecificationToken,
    SiteToken,
    Covariance,
}

/// Hash of everything a message says besides who and when. Fields are hashed one by one and added up, so their order is lost.
pub(super) fn content_hash(body: &Body<'_>, update_state: bool) -> u64 {
    let kind = match body {
        Body::Measurements { .. } => Field::Measurements,
        Body::Alert { .. } => Field::Alert,
        Body::Acknowledge { .. } => Field::Acknowledge,
        Body::Register { .. } => Field::Register,
    };
    let mut sum = mix(kind as u64, 0).wrapping_add(mix(Field::UpdateState as u64, u64::from(update_state)));
    let mut add = |hash: u64| sum = sum.wrapping_add(hash);
    match body {
        Body::Measurements { good, bad, boundary } => {
            good.iter().for_each(|(identifier, value)| add(measurement(*identifier, *value)));
            bad.iter().for_each(|bad| add(bad.content_hash));
            boundary.iter().for_each(|boundary| add(covariance(boundary)));
        }
        Body::Alert {
            alert_type,
            level,
            message,
            metadata,
        } => {
            add(text(Field::AlertType, alert_type));
            add(text(Field::Level, level.as_str()));
            add(text(Field::Message, message));
            for (name, value) in metadata {
                add(mix(text(Field::MetadataName, name), text(Field::MetadataValue, value)));
            }
        }
        Body::Acknowledge {
            originating_event_id,
            response,
            response_event_id,
        } => {
            add(text(Field::OriginatingEventId, originating_event_id));
            add(text(Field::Response, response));
            response_event_id.iter().for_each(|id| add(text(Field::ResponseEventId, id)));
        }
        Body::Register {
            specification_token,
            site_token,
        } => {
            add(text(Field::SpecificationToken, specification_token));
            site_token.iter().for_each(|token| add(text(Field::SiteToken, token)));
        }
    }
    sum
}

/// A rejected measurement's part of the hash: with it, a corrected message is a new one. `raw_value` is the value as written.
pub(super) fn bad_measurement(name: &str, reason: ReasonCode, raw_value: &[u8]) -> u64 {
    let value = xxh3_64_with_seed(raw_value, Field::BadValue as u64);
    mix(text(Field::BadMeasurement, name) ^ reason as u64, value)
}

/// The values are among the measurements; the order of names makes no difference here either.
fn covariance(boundary: &PublishedBoundary) -> u64 {
    let entries = boundary.covariance.iter().flatten().map(|entry| (entry + 0.0).to_bits());
    entries.fold(Field::Covariance as u64, mix)
}

fn measurement(identifier: Identifier, value: f64) -> u64 {
    // adding zero makes the negative zero positive: they are the same value
    mix(0x100 + identifier.index() as u64, (value + 0.0).to_bits())
}

fn text(field: Field, text: &str) -> u64 {
    xxh3_64_with_seed(text.as_bytes(), field as u64)
}

/// Two words into one, by the high and the low half of a product (as wyhash does).
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ 0xa076_1d64_78bd_642f) * u128::from(b ^ 0xe703_7ed1_a0b4_28db);
    (product as u64 ^ (product >> 64) as u64).wrapping_mul(0x8ebc_6af0_9c88_c6e3)
}
