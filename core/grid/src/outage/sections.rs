//! What can be told apart: sections of a grid, each the set of devices whose failure cuts off exactly the same metering points.
//!
//! A single failure cuts something off only if the branch is a bridge (no loop goes over it), so a loop belongs to the section that
//! feeds it. Branches in a row without a metering point between them are one section: any of them may have failed. What has no
//! metering point below it is in no section of its own.
//!
//! Points are numbered so that those below a section are one range, sections so that those above have smaller numbers. Wide sections
//! get unreal ones in between (they cannot fail), so that each has at most [`FAN_OUT_MAX`] parts and a change costs the depth of the
//! tree, not its width.

use serde::{Deserialize, Serialize};

use std::collections::HashMap;
use std::ops::Range;

use super::supply::{MeteringPoint, PointId, SupplyMap};
use crate::error::GridError;
use crate::network::ComponentId;

/// Most parts (sections and points) directly below a section.
pub(crate) const FAN_OUT_MAX: usize = 16;

/// What can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Device {
    /// A branch, by id.
    Branch(ComponentId),
    /// The source's own node: everything is dark.
    Node(ComponentId),
    /// The connection of a single metering point that shares its node with others.
    Point(PointId),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Section {
    pub(crate) parent: Option<u32>,
    /// First section after those below.
    pub(crate) end: u32,
    /// Positions of the points below.
    pub(crate) points: Range<u32>,
    /// Positions of the points not below another section: the first of `points`.
    pub(crate) own: Range<u32>,
    /// Range of `Sections::child_list`.
    pub(crate) children: Range<u32>,
    /// Devices, the one to report first; none for an unreal section.
    pub(crate) devices: Vec<Device>,
    /// How often one of them fails, in units of a single branch.
    pub(crate) failure_weight: u64,
    /// The node behind the reported device.
    pub(crate) node: ComponentId,
    pub(crate) feeder: Option<ComponentId>,
    /// Customers without meter behind the reported device.
    pub(crate) n_unmetered: u32,
}

/// A grid's sections.
#[derive(Debug, Clone, PartialEq)]
pub struct Sections {
    pub(crate) sections: Vec<Section>,
    pub(crate) child_list: Vec<u32>,
    /// Points by position.
    pub(crate) points: Vec<MeteringPoint>,
    /// Section that holds a position as its own.
    pub(crate) section_of: Vec<u32>,
    /// Position of each point that has supply.
    position_of: HashMap<PointId, u32>,
    section_of_device: HashMap<Device, u32>,
}

/// Nodes that hang together by more than one way, and what feeds them.
struct Group {
    parent: Option<usize>,
    device: Option<Device>,
    weight: u64,
    node: ComponentId,
    feeder: Option<ComponentId>,
    points: Vec<MeteringPoint>,
    n_points: u32,
    n_unmetered: u32,
}

struct Draft {
    devices: Vec<(Device, u64, ComponentId, u32)>,
    feeder: Option<ComponentId>,
    points: Vec<MeteringPoint>,
    children: Vec<usize>,
}

impl Sections {
    /// Finds the sections of a grid as it is supplied now.
    ///
    /// # Errors
    /// [`GridError::Supply`] for a node or point that comes twice, and for a node whose parent is not supplied or not nearer to the source.
    pub fn new(map: &SupplyMap) -> Result<Self, GridError> {
        let groups = groups(map)?;
        let (drafts, roots) = drafts(groups);
        Ok(number(drafts, roots))
    }

    /// How many sections there are, unreal ones included.
    pub fn n_sections(&self) -> usize {
        self.sections.len()
    }

    /// How many points have supply.
    pub fn n_points(&self) -> usize {
        self.points.len()
    }

    /// Position of a point; `None` if it has no supply in this topology.
    pub fn position(&self, point: PointId) -> Option<usize> {
        self.position_of.get(&point).map(|&position| position as usize)
    }

    /// The devices whose failure looks like that of this one, this one included; empty if no metering point is behind it.
    pub fn same_customers(&self, device: Device) -> &[Device] {
        self.section_of_device
            .get(&device)
            .and_then(|&section| self.sections.get(section as usize))
            .map_or(&[], |section| &section.devices)
    }

    /// Every real section: its devices and its points.
    pub fn all_devices(&self) -> impl Iterator<Item = (&[Device], &[MeteringPoint])> {
        self.sections.iter().filter(|section| !section.devices.is_empty()).map(|section| {
            let range = section.points.start as usize..section.points.end as usize;
            (section.devices.as_slice(), self.points.get(range).unwrap_or(&[]))
        })
    }

    pub(crate) fn section_of_device(&self, device: Device) -> Option<u32> {
        self.section_of_device.get(&device).copied()
    }
}

/// Joins nodes over loops and counts what is below.
fn groups(map: &SupplyMap) -> Result<Vec<Group>, GridError> {
    let refused = |what, id, reason| GridError::Supply { what, id, reason };
    let mut nodes = map.nodes.clone();
    nodes.sort_unstable_by_key(|node| (node.depth, node.node));
    let mut place: HashMap<ComponentId, usize> = HashMap::with_capacity(nodes.len());
    let mut above: Vec<Option<usize>> = Vec::with_capacity(nodes.len());
    for (index, node) in nodes.iter().enumerate() {
        let parent = match node.parent {
            None => None,
            Some((_, parent)) => {
                let found = place.get(&parent).copied().filter(|&at| nodes[at].depth < node.depth);
                Some(found.ok_or_else(|| refused("node", node.node, "is fed from a node that is not supplied before it"))?)
            }
        };
        above.push(parent);
        if place.insert(node.node, index).is_some() {
            return Err(refused("node", node.node, "is supplied twice; give one parent"));
        }
    }
    // a branch on a loop cuts nothing off
    let mut is_on_loop = vec![false; nodes.len()];
    for &(from, to) in &map.chords {
        let (Some(&from), Some(&to)) = (place.get(&from), place.get(&to)) else {
            return Err(refused(
                "node",
                if place.contains_key(&from) { to } else { from },
                "ends a loop and has no supply",
            ));
        };
        let (mut a, mut b) = (from, to);
        while a != b {
            // nodes are in the order of their depth, so the deeper one has the larger index
            let (deeper, other) = (a.max(b), a.min(b));
            is_on_loop[deeper] = true;
            if let Some(parent) = above[deeper] {
                (a, b) = (parent, other);
                continue;
            }
            // two sources hold each other up
            let mut at = Some(other);
            while let Some(node) = at {
                is_on_loop[node] = true;
                at = above[node];
            }
            break;
        }
    }
    let weights: HashMap<ComponentId, u32> = map.failure_weights.iter().copied().collect();
    let mut groups: Vec<Group> = Vec::new();
    let mut group_of: Vec<usize> = Vec::with_capacity(nodes.len());
    for (index, node) in nodes.iter().enumerate() {
        let parent = above[index].map(|at| group_of[at]);
        if let (Some(group), true) = (parent, is_on_loop[index]) {
            group_of.push(group);
            continue;
        }
        let (device, weight) = match node.parent {
            Some((branch, _)) => (Some(Device::Branch(branch)), u64::from(weights.get(&branch).copied().unwrap_or(1))),
            None => ((!is_on_loop[index]).then_some(Device::Node(node.node)), 0),
        };
        group_of.push(groups.len());
        groups.push(Group {
            parent,
            device,
            weight,
            node: node.node,
            feeder: node.feeder,
            points: Vec::new(),
            n_points: 0,
            n_unmetered: 0,
        });
    }
    let mut points = map.points.clone();
    points.sort_unstable();
    let mut last = None;
    let mut by_id: Vec<PointId> = points.iter().map(|point| point.point).collect();
    by_id.sort_unstable();
    for id in by_id {
        if last.replace(id) == Some(id) {
            return Err(refused("point", ComponentId::from(id), "comes twice; number the points uniquely"));
        }
    }
    for point in points {
        if let Some(&at) = place.get(&point.node) {
            let group = &mut groups[group_of[at]];
            group.points.push(point);
            group.n_points += 1;
        }
    }
    for &(node, n) in &map.unmetered {
        if let Some(&at) = place.get(&node) {
            let group = &mut groups[group_of[at]];
            group.n_unmetered = group.n_unmetered.saturating_add(n);
        }
    }
    for index in (0..groups.len()).rev() {
        let (n_points, n_unmetered) = (groups[index].n_points, groups[index].n_unmetered);
        if let Some(parent) = groups[index].parent {
            groups[parent].n_points += n_points;
            groups[parent].n_unmetered = groups[parent].n_unmetered.saturating_add(n_unmetered);
        }
    }
    Ok(groups)
}

/// Makes one draft of groups in a row with the same points; gives the drafts and those at the top.
fn drafts(groups: Vec<Group>) -> (Vec<Draft>, Vec<usize>) {
    let mut drafts: Vec<Draft> = Vec::new();
    let mut roots = Vec::new();
    let mut draft_of: Vec<Option<usize>> = Vec::with_capacity(groups.len());
    let n_points: Vec<u32> = groups.iter().map(|group| group.n_points).collect();
    for group in groups {
        if group.n_points == 0 {
            draft_of.push(None);
            continue;
        }
        let parent = group.parent.and_then(|at| draft_of[at].map(|draft| (draft, n_points[at])));
        let device = group.device.map(|device| (device, group.weight, group.node, group.n_unmetered));
        if let Some((draft, n)) = parent
            && n == group.n_points
        {
            // the feeder is that of the lowest: the source's own node has none
            let joined = &mut drafts[draft];
            joined.feeder = group.feeder.or(joined.feeder);
            joined.devices.extend(device);
            joined.points.extend(group.points);
            draft_of.push(Some(draft));
            continue;
        }
        let draft = drafts.len();
        draft_of.push(Some(draft));
        match parent {
            Some((parent, _)) => drafts[parent].children.push(draft),
            None => roots.push(draft),
        }
        drafts.push(Draft {
            devices: device.into_iter().collect(),
            feeder: group.feeder,
            points: group.points,
            children: Vec::new(),
        });
    }
    (drafts, roots)
}

impl Draft {
    fn unreal(feeder: Option<ComponentId>, points: Vec<MeteringPoint>, children: Vec<usize>) -> Self {
        Self {
            devices: Vec::new(),
            feeder,
            points,
            children,
        }
    }
}

/// Puts unreal drafts below a wide one until it has few parts.
fn narrow(drafts: &mut Vec<Draft>, index: usize) {
    let feeder = drafts[index].feeder;
    if drafts[index].points.len() + drafts[index].children.len() <= FAN_OUT_MAX {
        return;
    }
    let points = std::mem::take(&mut drafts[index].points);
    let mut parts = std::mem::take(&mut drafts[index].children);
    for chunk in points.chunks(FAN_OUT_MAX) {
        parts.push(drafts.len());
        drafts.push(Draft::unreal(feeder, chunk.to_vec(), Vec::new()));
    }
    while parts.len() > FAN_OUT_MAX {
        let chunks: Vec<Vec<usize>> = parts.chunks(FAN_OUT_MAX).map(<[usize]>::to_vec).collect();
        parts.clear();
        for chunk in chunks {
            parts.push(drafts.len());
            drafts.push(Draft::unreal(feeder, Vec::new(), chunk));
        }
    }
    drafts[index].children = parts;
}

/// Numbers sections from above to below and points along.
fn number(mut drafts: Vec<Draft>, roots: Vec<usize>) -> Sections {
    let root = match roots.as_slice() {
        [one] => *one,
        _ => {
            drafts.push(Draft::unreal(None, Vec::new(), roots));
            drafts.len() - 1
        }
    };
    for index in 0..drafts.len() {
        narrow(&mut drafts, index);
    }
    let mut this = Sections {
        sections: Vec::with_capacity(drafts.len()),
        child_list: Vec::new(),
        points: Vec::new(),
        section_of: Vec::new(),
        position_of: HashMap::new(),
        section_of_device: HashMap::new(),
    };
    let mut to_visit: Vec<(usize, Option<u32>)> = vec![(root, None)];
    while let Some((index, parent)) = to_visit.pop() {
        let draft = &mut drafts[index];
        let number = this.sections.len() as u32;
        let start = this.points.len() as u32;
        for point in std::mem::take(&mut draft.points) {
            this.position_of.insert(point.point, this.points.len() as u32);
            this.section_of.push(number);
            this.points.push(point);
        }
        let end = this.points.len() as u32;
        to_visit.extend(draft.children.iter().rev().map(|&child| (child, Some(number))));
        this.sections.push(section(draft, parent, start..end));
    }
    // from below: where each part ends, and which parts are directly below
    let mut children: Vec<Vec<u32>> = vec![Vec::new(); this.sections.len()];
    for index in (0..this.sections.len()).rev() {
        let (end, points_end) = (this.sections[index].end, this.sections[index].points.end);
        if let Some(parent) = this.sections[index].parent {
            let above = &mut this.sections[parent as usize];
            above.end = above.end.max(end.max(index as u32 + 1));
            above.points.end = above.points.end.max(points_end);
            children[parent as usize].push(index as u32);
        }
    }
    for (index, mut below) in children.into_iter().enumerate() {
        below.reverse();
        let start = this.child_list.len() as u32;
        this.child_list.extend(below);
        let section = &mut this.sections[index];
        section.children = start..this.child_list.len() as u32;
        section.end = section.end.max(index as u32 + 1);
        for &device in &section.devices {
            this.section_of_device.insert(device, index as u32);
        }
    }
    this
}

fn section(draft: &Draft, parent: Option<u32>, own: Range<u32>) -> Section {
    // of those that fail most often, the one nearest to the source: that is where the crew begins
    let first = draft.devices.iter().rev().max_by_key(|(_, weight, ..)| *weight).copied();
    let mut devices: Vec<Device> = draft.devices.iter().map(|(device, ..)| *device).collect();
    if let Some((device, ..)) = first {
        devices.retain(|other| *other != device);
        devices.insert(0, device);
    }
    Section {
        parent,
        end: 0,
        points: own.clone(),
        own,
        children: 0..0,
        devices,
        failure_weight: draft.devices.iter().map(|(_, weight, ..)| *weight).sum::<u64>().max(1),
        node: first.map_or(0, |(_, _, node, _)| node),
        feeder: draft.feeder,
        n_unmetered: first.map_or(0, |(.., n)| n),
    }
}

#[cfg(test)]
mod tests {
    use super::super::supply::GridBranch;
    use super::*;

    fn point(point: PointId, node: ComponentId) -> MeteringPoint {
        MeteringPoint {
            point,
            node,
            n_customers: 1,
            sends_gasps: true,
            reading_interval_us: None,
        }
    }

    fn map(branches: &[(ComponentId, ComponentId)], points: &[ComponentId]) -> SupplyMap {
        let branches: Vec<GridBranch> = branches
            .iter()
            .enumerate()
            .map(|(k, &(from, to))| GridBranch {
                branch: 100 + k as ComponentId,
                from,
                to,
                is_closed: true,
            })
            .collect();
        let mut map = SupplyMap::trace(&branches, &[0]);
        map.points = points.iter().enumerate().map(|(k, &node)| point(k as PointId, node)).collect();
        map
    }

    fn branch(id: ComponentId) -> Device {
        Device::Branch(id)
    }

    #[test]
    fn branches_in_a_row_are_one_section_and_the_nearest_to_the_source_is_reported() {
        // 0 ─100─ 1 ─101─ 2 ─102─ 3 (two points), 2 ─103─ 4 (a point), 2 ─104─ 5 (nobody)
        let sections = Sections::new(&map(&[(0, 1), (1, 2), (2, 3), (2, 4), (2, 5)], &[3, 3, 4])).unwrap();
        assert_eq!(sections.same_customers(branch(101)), [branch(100), Device::Node(0), branch(101)]);
        assert_eq!(sections.same_customers(branch(102)), [branch(102)]);
        assert!(sections.same_customers(branch(104)).is_empty());
        assert_eq!((sections.n_sections(), sections.n_points()), (3, 3));
    }

    #[test]
    fn a_branch_on_a_loop_cuts_nothing_off() {
        // the ring 1 2 3 hangs on 100; 3 ─104─ 4 hangs on the ring
        let sections = Sections::new(&map(&[(0, 1), (1, 2), (2, 3), (3, 1), (3, 4)], &[2, 3, 4])).unwrap();
        for on_loop in [101, 102, 103] {
            assert!(sections.same_customers(branch(on_loop)).is_empty(), "{on_loop}");
        }
        assert_eq!(sections.same_customers(branch(104)), [branch(104)]);
        assert_eq!(sections.same_customers(branch(100)), [branch(100), Device::Node(0)]);
    }

    #[test]
    fn two_sources_on_one_line_cannot_fail_by_themselves() {
        let line = [(0, 1), (1, 2), (1, 3)].map(|(from, to)| GridBranch {
            branch: 100 + to,
            from,
            to,
            is_closed: true,
        });
        let mut map = SupplyMap::trace(&line, &[0, 2]);
        map.points = vec![point(0, 1), point(1, 3), point(2, 3)];
        let sections = Sections::new(&map).unwrap();
        assert!(sections.same_customers(Device::Node(0)).is_empty() && sections.same_customers(branch(101)).is_empty());
        assert_eq!(sections.same_customers(branch(103)), [branch(103)]);
    }

    #[test]
    fn wide_and_deep_grids_keep_every_section_narrow_and_every_range_closed() {
        let wide: Vec<(ComponentId, ComponentId)> = (1..2_000).map(|node| (node % 3, node + 3)).collect();
        let at: Vec<ComponentId> = (4..2_000).flat_map(|node| [node, node]).collect();
        let mut branches = vec![(0, 1), (0, 2)];
        branches.extend(wide);
        let sections = Sections::new(&map(&branches, &at)).unwrap();
        assert_eq!(sections.n_points(), at.len());
        for (index, section) in sections.sections.iter().enumerate() {
            assert!(section.children.len() + section.own.len() <= FAN_OUT_MAX);
            let children = &sections.child_list[section.children.start as usize..section.children.end as usize];
            let mut at = section.own.end;
            for &child in children {
                let child = &sections.sections[child as usize];
                assert_eq!((child.parent, child.points.start), (Some(index as u32), at));
                at = child.points.end;
            }
            assert_eq!(at, section.points.end);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let mut twice = map(&[(0, 1)], &[1, 1]);
        twice.points[1].point = 0;
        assert!(Sections::new(&twice).unwrap_err().to_string().contains("point 0 comes twice"));
        let mut orphan = map(&[(0, 1), (1, 2)], &[2]);
        orphan.nodes.remove(1);
        assert!(Sections::new(&orphan).unwrap_err().to_string().contains("node 2 is fed from"));
        let mut double = map(&[(0, 1)], &[1]);
        double.nodes.push(double.nodes[1]);
        assert!(Sections::new(&double).unwrap_err().to_string().contains("node 1 is supplied twice"));
        let mut loose = map(&[(0, 1)], &[1]);
        loose.chords.push((1, 9));
        assert!(Sections::new(&loose).unwrap_err().to_string().contains("node 9 ends a loop"));
        assert_eq!(Sections::new(&SupplyMap::default()).unwrap().n_points(), 0);
    }
}
