//! What operators decide about an outage.

use super::Micros;
use super::life_cycle::Closed;
use super::monitor::OutageMonitor;
use super::record::{CloseReason, OutageId};
use super::supply::PointId;

impl OutageMonitor {
    /// An operator has taken note of an outage, or takes that back. Returns whether there is such an outage.
    pub fn acknowledge(&mut self, id: OutageId, acknowledged: bool) -> bool {
        let Some((&serial, incident)) = self.incidents.iter_mut().find(|(_, incident)| incident.id == id) else {
            return false;
        };
        incident.acknowledged = acknowledged;
        self.touched.insert(serial);
        self.tell();
        true
    }

    /// An operator says that an outage is over. What was heard of its points up to this log time is explained: the same gasps and the same
    /// silence do not open it again, newer gasps do, and missing readings once the meter has been heard again. Returns whether there is
    /// such an outage and it was open.
    pub fn close(&mut self, id: OutageId, log_time: Micros) -> bool {
        self.enter(log_time);
        let Some((&serial, incident)) = self.incidents.iter_mut().find(|(_, i)| i.id == id && i.is_open()) else {
            return false;
        };
        incident.closed = Some(Closed {
            reason: CloseReason::Operator,
            at: log_time,
            log: log_time,
        });
        self.touched.insert(serial);
        let behind = incident.place.map_or(0..0, |place| place.start..place.end);
        let mut points: Vec<PointId> = incident.members.keys().copied().collect();
        points.extend(behind.filter_map(|position| Some(self.inference.sections().points.get(position)?.point)));
        points.sort_unstable();
        points.dedup();
        for point in points {
            self.unmark(point);
            let Some(record) = self.records.get_mut(&point) else { continue };
            record.explained_until = record.explained_until.max(Some(log_time));
            record.explained_log = Some(log_time);
            record.is_missed = false;
            if record.owner == Some(serial) {
                record.owner = None;
            }
            self.refresh(point, log_time);
        }
        self.tell();
        true
    }
}
