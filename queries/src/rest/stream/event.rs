//! What the events of the stream say.

use flexmeter_model::TenantId;
use flexmeter_model::outcome::LatestChange;
use serde::Serialize;

use crate::live::{EstimateChange, GridChange};
use crate::rest::changes::Position;
use crate::rest::grid::{FaultDocument, OutageDocument, QualityDocument, ReconfigurationDocument};

/// Names of the events that tell changes.
pub(super) const EVENTS: [&str; 5] = ["latest", "outage", "reconfiguration", "fault", "estimate"];

/// One change of an epoch.
#[derive(Debug, Clone, Copy)]
pub(in crate::rest) enum Row<'a> {
    /// Of a grid.
    Grid(&'a GridChange),
    /// Of `latest`.
    Latest(&'a LatestChange),
}

impl Row<'_> {
    pub(super) fn tenant(&self) -> &TenantId {
        match self {
            Self::Grid(change) => change.tenant(),
            Self::Latest(change) => &change.device.tenant,
        }
    }

    pub(super) fn event(&self) -> &'static str {
        match self {
            Self::Latest(_) => EVENTS[0],
            Self::Grid(GridChange::Outage(_)) => EVENTS[1],
            Self::Grid(GridChange::Reconfiguration(_)) => EVENTS[2],
            Self::Grid(GridChange::Fault(_)) => EVENTS[3],
            Self::Grid(GridChange::Estimate(_)) => EVENTS[4],
        }
    }
}

/// One changed value, the data of an event `latest`.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::rest) struct LatestEvent<'a> {
    /// The device.
    hardware_id: &'a str,
    /// What was measured.
    identifier: &'static str,
    /// The newest value; null when the device's row is gone.
    value: Option<f64>,
    /// Its unit.
    unit: &'static str,
    /// When it was measured, RFC 3339.
    #[schema(format = DateTime)]
    event_time: Option<String>,
}

/// A changed outage, the data of an event `outage`.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::rest) struct OutageEvent<'a> {
    /// The outage.
    outage_id: &'a str,
    /// How it is now; null when it is kept no longer.
    #[schema(required = true)]
    outage: Option<OutageDocument>,
}

/// A changed proposal, the data of an event `reconfiguration`.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::rest) struct ReconfigurationEvent<'a> {
    /// The proposal.
    proposal_id: &'a str,
    /// How it is now; null when it is kept no longer.
    #[schema(required = true)]
    reconfiguration: Option<ReconfigurationDocument>,
}

/// A located fault, the data of an event `fault`.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::rest) struct FaultEvent<'a> {
    /// The fault.
    fault_id: &'a str,
    /// Where it is; null when it is kept no longer.
    #[schema(required = true)]
    fault: Option<FaultDocument>,
}

/// An area that was estimated anew, the data of an event `estimate`. The state itself is at `GET /api/v1/grid/areas/{area}`.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::rest) struct EstimateEvent<'a> {
    /// Path of the area.
    area: &'a str,
    /// The newest reading in the estimate, RFC 3339; null while it is made of pseudo-measurements alone.
    #[schema(required = true, format = DateTime)]
    event_time: Option<String>,
    /// How far it can be trusted; null when the area is no more.
    #[schema(required = true)]
    quality: Option<QualityDocument>,
}

/// Writes a change as an event.
pub(super) fn write(chunk: &mut Vec<u8>, position: Position, row: Row<'_>) {
    chunk.extend_from_slice(format!("id: {position}\nevent: {}\ndata: ", row.event()).as_bytes());
    // Writing into memory cannot fail, and JSON has no line breaks of its own that could end the event early.
    let _ = match row {
        Row::Latest(change) => serde_json::to_writer(
            &mut *chunk,
            &LatestEvent {
                hardware_id: change.device.hardware_id.as_str(),
                identifier: change.identifier.name(),
                value: change.new.map(|reading| reading.value),
                unit: change.identifier.unit(),
                event_time: change.new.map(|reading| reading.event_time.to_string()),
            },
        ),
        Row::Grid(GridChange::Outage(change)) => serde_json::to_writer(
            &mut *chunk,
            &OutageEvent {
                outage_id: &change.key,
                outage: change.new.as_ref().map(|row| OutageDocument::new(&change.key, row)),
            },
        ),
        Row::Grid(GridChange::Reconfiguration(change)) => serde_json::to_writer(
            &mut *chunk,
            &ReconfigurationEvent {
                proposal_id: &change.key,
                reconfiguration: change.new.as_ref().map(|row| ReconfigurationDocument::new(&change.key, row)),
            },
        ),
        Row::Grid(GridChange::Fault(change)) => serde_json::to_writer(
            &mut *chunk,
            &FaultEvent {
                fault_id: &change.key,
                fault: change.new.as_ref().map(|row| FaultDocument::new(&change.key, row)),
            },
        ),
        Row::Grid(GridChange::Estimate(EstimateChange { area, new, .. })) => serde_json::to_writer(
            &mut *chunk,
            &EstimateEvent {
                area,
                event_time: new.as_ref().and_then(|(heard_at, _)| *heard_at).map(|time| time.to_string()),
                quality: new.as_ref().map(|(_, quality)| quality.into()),
            },
        ),
    };
    chunk.extend_from_slice(b"\n\n");
}
