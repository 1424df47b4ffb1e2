//! The devices of one partition: hardware id → dense index, without allocating for devices already met.

use std::sync::Arc;

use flexmeter_model::outcome::Device;
use flexmeter_model::{HardwareId, TenantId};
use hashbrown::{HashMap, HashTable};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::checkpoint::{CheckpointError, Reader, Writer};
use crate::config::UnknownDevices;

/// Device table of one partition.
#[derive(Debug, Default)]
pub(crate) struct DeviceTable {
    /// In the order they were met. Shared with the batches that name tenants by position.
    tenants: Arc<Vec<TenantId>>,
    tenant_index: HashMap<TenantId, u32>,
    devices: Vec<Entry>,
    index: HashTable<Slot>,
    /// Position of the tenant asked for last: the next record mostly has the same.
    last_tenant: u32,
}

#[derive(Debug)]
struct Entry {
    device: Arc<Device>,
    tenant: u32,
    known: bool,
}

/// The hash is kept beside the index so that a wrong candidate is refused without a look at the device.
#[derive(Debug, Clone, Copy)]
struct Slot {
    hash: u64,
    index: u32,
}

/// A device found in the table.
pub(crate) struct Met<'a> {
    pub(crate) device: &'a Arc<Device>,
    pub(crate) known: bool,
}

impl DeviceTable {
    pub(crate) fn tenants(&self) -> &Arc<Vec<TenantId>> {
        &self.tenants
    }

    pub(crate) fn len(&self) -> usize {
        self.devices.len()
    }

    /// Position of a tenant, which is added when it is new. `None` when the text is no tenant id.
    pub(crate) fn tenant(&mut self, name: &str) -> Option<u32> {
        if self
            .tenants
            .get(self.last_tenant as usize)
            .is_some_and(|tenant| tenant.as_str() == name)
        {
            return Some(self.last_tenant);
        }
        self.last_tenant = match self.tenant_index.get(name) {
            Some(&position) => position,
            None => {
                let tenant = TenantId::new(name).ok()?;
                let tenants = Arc::make_mut(&mut self.tenants);
                let position = tenants.len() as u32;
                self.tenant_index.insert(tenant.clone(), position);
                tenants.push(tenant);
                position
            }
        };
        Some(self.last_tenant)
    }

    pub(crate) fn find(&self, tenant: u32, hardware_id: &str) -> Option<Met<'_>> {
        let hash = hash(tenant, hardware_id);
        let slot = self.index.find(hash, |slot| {
            slot.hash == hash && {
                let entry = &self.devices[slot.index as usize];
                entry.tenant == tenant && entry.device.hardware_id.as_str() == hardware_id
            }
        })?;
        let entry = &self.devices[slot.index as usize];
        Some(Met {
            device: &entry.device,
            known: entry.known,
        })
    }

    /// Adds a device that [`Self::find`] did not find.
    pub(crate) fn add(&mut self, partition: u32, tenant: u32, hardware_id: HardwareId, known: bool) -> Met<'_> {
        let slot = Slot {
            hash: hash(tenant, hardware_id.as_str()),
            index: self.devices.len() as u32,
        };
        let device = Device {
            partition,
            index: slot.index,
            tenant: self.tenants[tenant as usize].clone(),
            hardware_id,
        };
        self.index.insert_unique(slot.hash, slot, |slot| slot.hash);
        self.devices.push(Entry {
            device: Arc::new(device),
            tenant,
            known,
        });
        let entry = &self.devices[slot.index as usize];
        Met {
            device: &entry.device,
            known,
        }
    }

    pub(crate) fn device(&self, index: u32) -> Option<&Arc<Device>> {
        self.devices.get(index as usize).map(|entry| &entry.device)
    }

    pub(crate) fn write(&self, out: &mut Writer) {
        out.len(self.tenants.len());
        self.tenants.iter().for_each(|tenant| out.text(tenant.as_str()));
        out.len(self.devices.len());
        for entry in &self.devices {
            out.u32(entry.tenant);
            out.text(entry.device.hardware_id.as_str());
        }
    }

    pub(crate) fn read(input: &mut Reader<'_>, partition: u32, policy: &UnknownDevices) -> Result<Self, CheckpointError> {
        let mut table = Self::default();
        for _ in 0..input.len(1)? {
            let text = input.text()?;
            let n_tenants = table.tenants.len();
            let position = table.tenant(text).ok_or(CheckpointError::Value { what: "tenant" })?;
            if position as usize != n_tenants {
                return Err(CheckpointError::Value { what: "tenant" });
            }
        }
        let n_devices = input.len(5)?;
        table.devices.reserve(n_devices);
        table.index.reserve(n_devices, |slot| slot.hash);
        for _ in 0..n_devices {
            let tenant = input.u32()?;
            let hardware_id = HardwareId::new(input.text()?).map_err(|_| CheckpointError::Value { what: "hardware id" })?;
            let Some(tenant_id) = table.tenants.get(tenant as usize) else {
                return Err(CheckpointError::Value {
                    what: "tenant of a device",
                });
            };
            let known = policy.knows(tenant_id.as_str(), hardware_id.as_str());
            table.add(partition, tenant, hardware_id, known);
        }
        Ok(table)
    }
}

impl UnknownDevices {
    /// Whether a device may send.
    pub(crate) fn knows(&self, tenant: &str, hardware_id: &str) -> bool {
        match self {
            Self::Accept => true,
            Self::Reject { known } => known.contains(&(tenant.to_owned(), hardware_id.to_owned())),
        }
    }
}

fn hash(tenant: u32, hardware_id: &str) -> u64 {
    xxh3_64_with_seed(hardware_id.as_bytes(), u64::from(tenant))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(table: &mut DeviceTable, tenant: &str, hardware_id: &str) -> u32 {
        let tenant = table.tenant(tenant).unwrap();
        table.add(7, tenant, HardwareId::new(hardware_id).unwrap(), true).device.index
    }

    #[test]
    fn the_same_id_in_two_tenants_is_two_devices() {
        let mut table = DeviceTable::default();
        assert_eq!(add(&mut table, "a", "m-1"), 0);
        assert_eq!(add(&mut table, "b", "m-1"), 1);
        let (a, b) = (table.tenant("a").unwrap(), table.tenant("b").unwrap());
        assert_eq!(table.find(a, "m-1").unwrap().device.index, 0);
        assert_eq!(table.find(b, "m-1").unwrap().device.index, 1);
        assert!(table.find(a, "m-2").is_none());
    }

    #[test]
    fn a_tenant_that_is_no_id_is_refused() {
        let mut table = DeviceTable::default();
        assert_eq!(table.tenant("a/b"), None);
        assert_eq!(table.tenant(""), None);
    }

    #[test]
    fn a_table_comes_back_with_the_same_indices() {
        let mut table = DeviceTable::default();
        for i in 0..100 {
            add(&mut table, if i % 3 == 0 { "a" } else { "b" }, &format!("m-{i}"));
        }
        let mut out = Writer::default();
        table.write(&mut out);
        let bytes = out.into_bytes();
        let back = DeviceTable::read(&mut Reader::new(&bytes), 7, &UnknownDevices::Accept).unwrap();
        assert_eq!(back.tenants, table.tenants);
        for entry in &table.devices {
            let met = back.find(entry.tenant, entry.device.hardware_id.as_str()).unwrap();
            assert_eq!(met.device, &entry.device);
        }
    }
}
