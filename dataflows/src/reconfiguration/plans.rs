//! The life of a tenant's proposals, without any dataflow: events in the order of the log, moments at which something better is looked for,
//! deadlines; and what that changes in the views.
//!
//! Nothing here depends on how the log is cut into epochs or partitions but the estimates themselves, and they only suggest: a proposal
//! begins with its record in the log. An event takes effect when the whole log has come past it ([`super::clock`]), and what time alone does
//! happens at its own moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flexmeter_grid::reconfiguration::{Actor, Change, Operation, ProposalState, Reason, Trigger, Watch};
use flexmeter_model::operator::plan_of;
use flexmeter_model::outcome::{GridOutcome, ProposalTerms, RowChange, Suggestion, SwitchOperation};
use flexmeter_model::{HardwareId, TenantId};
use xxhash_rust::xxh3::Xxh3Default;

use super::case::Case;
use super::clock::last_check;
use super::evaluation::{Evaluation, Found, Snapshot};
use super::note::{Event, Place, Position};
use super::settings::ReconfigurationConfig;
use super::{KEPT_MAX, KEPT_US};
use crate::checkpoint::{CheckpointError, Reader, Writer};
use crate::grid::{Grid, GridNumber};

/// Most events that wait for the slowest partition; above it the oldest takes effect at once.
const WAITING_MAX: usize = 100_000;

/// State of one home partition.
#[derive(Debug, Default)]
pub(crate) struct Reconfigurations {
    pub(crate) tenants: BTreeMap<TenantId, Plans>,
}

/// A tenant's proposals and what leads to them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plans {
    /// At most one at a time: plans for a grid that another plan is changing are worth nothing.
    open: Option<Case>,
    /// Those that have come to an end, by id.
    ended: BTreeMap<u64, Case>,
    /// By path of the area.
    triggers: BTreeMap<String, Trigger>,
    /// Where the switches stand after the events so far, by id of the branch.
    known: BTreeMap<i64, Position>,
    /// Events that wait until every partition has come so far.
    waiting: BTreeMap<Place, Event>,
    /// Which grid all of this is about; 0 before the first.
    grid_mark: u64,
    /// Nothing is proposed before.
    paused_until: i64,
    /// Up to here everything has had its effect; not this moment itself.
    clock: i64,
    /// The last moment at which something better was looked for.
    checked: i64,
    live: Live,
}

/// What is not in a checkpoint, because the estimation tells it anew.
#[derive(Debug, Clone, Default)]
struct Live {
    grid: Option<(GridNumber, Arc<Grid>)>,
    /// By index of a top area: what its nodes draw.
    drawn: BTreeMap<u32, Vec<(u32, f64, f64)>>,
    /// What is worth a proposal and has not been told.
    suggestion: Option<Suggestion>,
    /// Proposals whose row has changed since it was told.
    changed: BTreeSet<u64>,
    /// The command that was told.
    told: Option<Arc<str>>,
}

impl Plans {
    /// The grid of the tenant now. Plans for another one are overtaken.
    pub(crate) fn set_grid(&mut self, grid: Option<(GridNumber, &Arc<Grid>)>) {
        if self.live.grid.as_ref().map(|(id, _)| *id) == grid.map(|(id, _)| id) {
            return;
        }
        // a grid may have been replaced while nobody was running
        let mark = grid.map_or(0, |(_, grid)| grid.mark());
        if self.grid_mark != 0 && (self.live.grid.is_some() || mark != self.grid_mark) {
            self.change(Change::NetworkChanged, self.clock);
            self.known.clear();
            self.triggers.clear();
        }
        self.grid_mark = mark;
        self.live.grid = grid.map(|(id, grid)| (id, grid.clone()));
        self.live.drawn.clear();
    }

    /// Where a switch stands for the estimation. The first word of it is where all events begin.
    pub(crate) fn set_position(&mut self, branch_id: i64, position: Position) {
        self.known.entry(branch_id).or_insert(position);
    }

    /// What an area draws.
    pub(crate) fn set_drawn(&mut self, grid: GridNumber, area: u32, drawn: Vec<(u32, f64, f64)>) {
        if self.live.grid.as_ref().is_some_and(|(id, _)| *id == grid) {
            self.live.drawn.insert(area, drawn);
        }
    }

    pub(crate) fn wait(&mut self, place: Place, event: Event) {
        self.waiting.insert(place, event);
    }

    /// Goes on to a moment; stops where it has to know what would be better. Then [`Self::observe`] is next, and this again.
    pub(crate) fn advance(&mut self, reached: i64, config: &ReconfigurationConfig) -> Option<Snapshot> {
        loop {
            let deadline = self.open.as_ref().and_then(|case| case.proposal.deadline_us());
            let check = Some(last_check(reached, config.check_us)).filter(|at| *at > self.checked);
            let event = self.waiting.first_key_value().map(|(&(at, ..), _)| at);
            let is_full = self.waiting.len() > WAITING_MAX;
            // of one moment, time has its effect first, then what the log says, then a look at both
            let steps = [(deadline, Step::Deadline), (event, Step::Event), (check, Step::Check)];
            let first = steps.into_iter().filter_map(|(at, step)| Some((at?, step))).min();
            match first.filter(|(at, step)| *at < reached || is_full && *step == Step::Event) {
                Some((at, Step::Deadline)) => self.change(Change::Clock, at),
                Some((at, Step::Event)) => {
                    if let Some((_, event)) = self.waiting.pop_first() {
                        // what comes late has its effect now
                        self.take(event, at.max(self.clock));
                    }
                }
                Some((at, Step::Check)) => {
                    self.checked = at;
                    if self.open.is_none() && at >= self.paused_until {
                        let snapshot = self.snapshot(config);
                        if snapshot.is_some() {
                            return snapshot;
                        }
                    }
                }
                None => break,
            }
        }
        self.clock = self.clock.max(reached);
        self.forget();
        None
    }

    fn snapshot(&self, config: &ReconfigurationConfig) -> Option<Snapshot> {
        let (_, grid) = self.live.grid.as_ref()?;
        let snapshot = Snapshot {
            grid: grid.clone(),
            // as the events so far say: in a replay the estimation may be further
            closed: self.known.iter().map(|(&id, position)| (id, position.closed)).collect(),
            drawn: self.live.drawn.clone(),
            options: config.search(),
        };
        (!snapshot.drawn.is_empty()).then_some(snapshot)
    }

    /// Takes what was found at the moment where [`Self::advance`] has stopped. The area that saves most is first.
    pub(crate) fn observe(&mut self, evaluation: Evaluation, is_automatic: bool, config: &ReconfigurationConfig) {
        let at = self.checked;
        let mut best = None;
        for (area, found) in evaluation {
            let saving_w = found.as_ref().map_or(f64::NAN, |found| found.saving_w());
            if !self.triggers.contains_key(&area) {
                self.triggers
                    .extend(Trigger::new(config.trigger()).ok().map(|new| (area.clone(), new)));
            }
            let fires = self.triggers.get_mut(&area).is_some_and(|trigger| trigger.observe(at, saving_w));
            if fires && best.as_ref().is_none_or(|(most_w, _)| saving_w > *most_w) {
                best = found.map(|found| (saving_w, found));
            }
        }
        self.live.suggestion = best.and_then(|(_, found)| self.suggest(found, is_automatic, config));
    }

    /// `None` for a moment before 1970.
    fn suggest(&self, found: Found, is_automatic: bool, config: &ReconfigurationConfig) -> Option<Suggestion> {
        let operation = |(operation, hardware_id): (Operation, HardwareId)| SwitchOperation {
            branch_id: operation.branch,
            hardware_id,
            close: operation.close,
        };
        Some(Suggestion {
            id: u64::try_from(self.checked).ok()?,
            grid_mark: self.grid_mark,
            positions_mark: self.positions_mark(&found.area),
            area: found.area.into(),
            operations: found.operations.into_iter().map(operation).collect(),
            loss_before_w: found.loss_before_w,
            loss_after_w: found.loss_after_w,
            loss_d4_6_w: found.loss_d4_6_w,
            voltage_min_pu: found.voltage_min_pu,
            terms: ProposalTerms {
                expires_us: config.expires_us,
                confirmation_us: config.confirmation_us,
                pause_us: config.pause_us,
                is_automatic,
            },
        })
    }

    /// The positions of the switches in an area, as a number.
    pub(crate) fn positions_mark(&self, area: &str) -> u64 {
        let mut hash = Xxh3Default::new();
        for (branch_id, position) in self.known.iter().filter(|(id, _)| self.is_near(**id, area)) {
            hash.update(&branch_id.to_le_bytes());
            hash.update(&[u8::from(position.closed)]);
        }
        hash.digest()
    }

    /// A plan has been read in its place in the log; whether it is a proposal.
    fn propose(&mut self, plan: Suggestion, at: i64) -> Option<()> {
        let is_automatic = plan.terms.is_automatic;
        let case = Case::new(plan, at).filter(|case| self.is_timely(&case.plan, at))?;
        self.live.changed.insert(case.plan.id);
        self.live.suggestion = None;
        self.triggers.clear();
        self.open = Some(case);
        if is_automatic {
            self.accept(Actor::Automatic, at);
        }
        Some(())
    }

    /// Whether a plan is about the grid as it stands, and nothing has come between. One that is read a second time, or after another one,
    /// is not.
    fn is_timely(&self, plan: &Suggestion, at: i64) -> bool {
        let made_at = i64::try_from(plan.id).unwrap_or(i64::MAX);
        let has_seen = |case: &Case| plan.id > case.plan.id && made_at >= case.changed_at;
        self.open.is_none()
            && at >= self.paused_until
            && at.saturating_sub(made_at) < plan.terms.expires_us
            && plan.grid_mark == self.grid_mark
            && self.ended.last_key_value().is_none_or(|(_, case)| has_seen(case))
            && plan.positions_mark == self.positions_mark(&plan.area)
    }

    fn accept(&mut self, by: Actor, at: i64) {
        self.change(Change::Accept(by), at);
        self.change(Change::Start, at);
    }

    fn take(&mut self, event: Event, at: i64) {
        match event {
            Event::Position { branch_id, position } => self.take_position(branch_id, position, at),
            Event::Proposed(metadata) => {
                plan_of(&metadata).and_then(|plan| self.propose(plan, at));
            }
            Event::Decided { accepts, proposal, by } => {
                if self.open.as_ref().is_some_and(|case| *case.key() == *proposal) {
                    let by = Actor::Operator(by);
                    match accepts {
                        true => self.accept(by, at),
                        false => self.change(Change::Reject(by), at),
                    }
                }
            }
            Event::Refused { command, by } => {
                let in_hand = self.open.as_ref().and_then(Case::command);
                if in_hand.is_some_and(|(key, waiting)| *key == *command && waiting.operation.hardware_id.as_str() == by) {
                    self.change(Change::Refused, at);
                }
            }
        }
    }

    fn take_position(&mut self, branch_id: i64, position: Position, at: i64) {
        let before = self.known.get(&branch_id).copied();
        if before.is_some_and(|before| position.since < before.since) {
            return;
        }
        self.known.insert(branch_id, position);
        let has_moved = before.is_none_or(|before| before.closed != position.closed);
        if has_moved {
            self.triggers.clear();
        }
        let Some(case) = &self.open else { return };
        let is_executing = case.proposal.in_hand().is_some();
        let is_planned = case.proposal.operations().iter().any(|operation| operation.branch == branch_id);
        let is_near = self.is_near(branch_id, &case.plan.area);
        if is_executing && is_planned {
            let closed = position.closed;
            let change = Change::Position { branch: branch_id, closed };
            if self.try_change(change, at).is_some() || !has_moved {
                return;
            }
        }
        if has_moved && (is_planned || is_near) {
            self.change(Change::NetworkChanged, at);
        }
    }

    /// Whether a branch has an end in an area. What is switched further below changes only what is drawn there.
    fn is_near(&self, branch_id: i64, path: &str) -> bool {
        let Some((_, grid)) = &self.live.grid else { return false };
        let network = &grid.bundle().network;
        let Some(branch) = network.branch_index(branch_id).and_then(|index| network.branches().get(index)) else {
            return false;
        };
        let area = |node| grid.layout().area_of_node(node).and_then(|area| grid.layout().paths().get(area));
        [branch.from, branch.to]
            .into_iter()
            .any(|node| area(node).is_some_and(|area| area == path))
    }

    fn change(&mut self, change: Change, at: i64) {
        self.try_change(change, at);
    }

    /// Applies a change to the open proposal; `None` where its state does not allow it, and then nothing has changed.
    fn try_change(&mut self, change: Change, at: i64) -> Option<()> {
        let case = self.open.as_mut()?;
        let before = case.proposal.state().clone();
        let by = match &change {
            Change::Accept(by) | Change::Reject(by) => Some(by.clone()),
            _ => None,
        };
        case.proposal.apply(change, at).ok()?;
        if *case.proposal.state() == before {
            return Some(());
        }
        case.changed_at = at;
        by.iter().for_each(|by| case.decided(by));
        self.live.changed.insert(case.proposal.id());
        if case.proposal.state().is_final() {
            self.end(at);
        }
        Some(())
    }

    fn end(&mut self, at: i64) {
        let Some(case) = self.open.take() else { return };
        let has_failed = match case.proposal.state() {
            ProposalState::Rejected { .. } | ProposalState::Failed { .. } => true,
            ProposalState::Expired { reason, .. } => *reason == Reason::TimeOut,
            _ => false,
        };
        if has_failed {
            self.paused_until = at.saturating_add(case.plan.terms.pause_us);
        }
        self.triggers.clear();
        self.ended.insert(case.proposal.id(), case);
    }

    fn forget(&mut self) {
        let clock = self.clock;
        let is_old = |case: &Case| case.changed_at.saturating_add(KEPT_US) < clock;
        while let Some((id, _)) = self.ended.first_key_value()
            && (self.ended.len() > KEPT_MAX || self.ended.values().next().is_some_and(is_old))
        {
            self.live.changed.insert(*id);
            self.ended.pop_first();
        }
    }

    /// What has changed since the last time.
    pub(crate) fn outcome(&mut self, tenant: &TenantId, out: &mut GridOutcome) {
        for id in std::mem::take(&mut self.live.changed) {
            let case = self.ended.get(&id).or(self.open.as_ref().filter(|case| case.proposal.id() == id));
            out.reconfigurations.push(RowChange {
                tenant: tenant.clone(),
                key: id.to_string().into(),
                new: case.map(|case| Arc::new(case.row())),
            });
        }
        let suggestion = self.live.suggestion.take();
        out.suggestions
            .extend(suggestion.map(|suggestion| (tenant.clone(), Arc::new(suggestion))));
        let command = self.open.as_ref().and_then(Case::command);
        let key = command.as_ref().map(|(key, _)| key.clone());
        if key == self.live.told {
            return;
        }
        let gone = std::mem::replace(&mut self.live.told, key);
        out.commands.extend(gone.map(|key| RowChange {
            tenant: tenant.clone(),
            key,
            new: None,
        }));
        out.commands.extend(command.map(|(key, command)| RowChange {
            tenant: tenant.clone(),
            key,
            new: Some(Arc::new(command)),
        }));
    }

    fn write(&self, out: &mut Writer) {
        out.len(self.ended.len() + usize::from(self.open.is_some()));
        self.ended.values().chain(&self.open).for_each(|case| case.write(out));
        out.len(self.triggers.len());
        for (area, trigger) in &self.triggers {
            out.text(area);
            write_watch(trigger.watch(), out);
        }
        out.len(self.known.len());
        for (&branch_id, position) in &self.known {
            out.i64(branch_id);
            write_position(*position, out);
        }
        out.len(self.waiting.len());
        for (&(at, partition, offset), event) in &self.waiting {
            out.i64(at);
            out.u32(partition);
            out.u64(offset);
            write_event(event, out);
        }
        [self.paused_until, self.clock, self.checked].iter().for_each(|&time| out.i64(time));
        out.u64(self.grid_mark);
    }

    fn read(input: &mut Reader<'_>, config: &ReconfigurationConfig) -> Result<Self, CheckpointError> {
        let wrong = |what| CheckpointError::Value { what };
        let mut this = Self::default();
        for _ in 0..input.len(40)? {
            let case = Case::read(input)?;
            this.live.changed.insert(case.proposal.id());
            match case.proposal.state().is_final() {
                true => drop(this.ended.insert(case.proposal.id(), case)),
                false if this.open.is_none() => this.open = Some(case),
                false => return Err(wrong("number of open proposals")),
            }
        }
        for _ in 0..input.len(2)? {
            let area = input.text()?.to_owned();
            let trigger = Trigger::restore(config.trigger(), read_watch(input)?).map_err(|_| wrong("trigger of an area"))?;
            this.triggers.insert(area, trigger);
        }
        for _ in 0..input.len(17)? {
            this.known.insert(input.i64()?, read_position(input)?);
        }
        for _ in 0..input.len(21)? {
            let place = (input.i64()?, input.u32()?, input.u64()?);
            this.waiting.insert(place, read_event(input)?);
        }
        (this.paused_until, this.clock, this.checked) = (input.i64()?, input.i64()?, input.i64()?);
        this.grid_mark = input.u64()?;
        Ok(this)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Deadline,
    Event,
    Check,
}

impl Reconfigurations {
    pub(crate) fn write(&self, out: &mut Writer) {
        out.len(self.tenants.len());
        for (tenant, plans) in &self.tenants {
            out.text(tenant.as_str());
            plans.write(out);
        }
    }

    pub(crate) fn read(input: &mut Reader<'_>, config: &ReconfigurationConfig) -> Result<Self, CheckpointError> {
        let mut this = Self::default();
        for _ in 0..input.len(29)? {
            let tenant = TenantId::new(input.text()?).map_err(|_| CheckpointError::Value {
                what: "tenant of a proposal",
            })?;
            this.tenants.insert(tenant, Plans::read(input, config)?);
        }
        Ok(this)
    }
}

fn write_watch(watch: Watch, out: &mut Writer) {
    match watch {
        Watch::Idle => out.u8(0),
        Watch::Rising {
            since_us,
            first_w,
            last_us,
        } => {
            out.u8(1);
            out.i64(since_us);
            out.f64(first_w);
            out.i64(last_us);
        }
    }
}

fn read_watch(input: &mut Reader<'_>) -> Result<Watch, CheckpointError> {
    Ok(match input.u8()? {
        0 => Watch::Idle,
        1 => Watch::Rising {
            since_us: input.i64()?,
            first_w: input.f64()?,
            last_us: input.i64()?,
        },
        _ => {
            return Err(CheckpointError::Value {
                what: "trigger of an area",
            });
        }
    })
}

fn write_position(position: Position, out: &mut Writer) {
    out.u8(u8::from(position.closed));
    out.i64(position.since);
}

fn read_position(input: &mut Reader<'_>) -> Result<Position, CheckpointError> {
    Ok(Position {
        closed: input.u8()? != 0,
        since: input.i64()?,
    })
}

fn write_event(event: &Event, out: &mut Writer) {
    match event {
        Event::Position { branch_id, position } => {
            out.u8(0);
            out.i64(*branch_id);
            write_position(*position, out);
        }
        Event::Decided { accepts, proposal, by } => {
            out.u8(1 + u8::from(*accepts));
            out.text(proposal);
            out.text(by);
        }
        Event::Refused { command, by } => {
            out.u8(3);
            out.text(command);
            out.text(by);
        }
        Event::Proposed(metadata) => {
            out.u8(4);
            out.pairs(metadata);
        }
    }
}

fn read_event(input: &mut Reader<'_>) -> Result<Event, CheckpointError> {
    Ok(match input.u8()? {
        0 => Event::Position {
            branch_id: input.i64()?,
            position: read_position(input)?,
        },
        tag @ (1 | 2) => Event::Decided {
            accepts: tag == 2,
            proposal: input.text()?.to_owned(),
            by: input.text()?.to_owned(),
        },
        3 => Event::Refused {
            command: input.text()?.to_owned(),
            by: input.text()?.to_owned(),
        },
        4 => Event::Proposed(input.pairs()?),
        _ => return Err(CheckpointError::Value { what: "event that waits" }),
    })
}
