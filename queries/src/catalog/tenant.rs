//! One tenant's tables, for one query.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::datasource::TableType;
use datafusion::error::Result;
use flexmeter_model::TenantId;
use flexmeter_tables::{TABLES, TableDef, TableKind, alerts, table};
use hashbrown::HashMap;
use parking_lot::Mutex;

use super::grid;
use super::history::{HistoryTable, LiveAndPast};
use super::latest::LatestTable;
use super::operations;
use super::profile;
use super::switch_history;
use super::{HistorySource, HistoryView};
use crate::live::LiveSnapshot;

/// Tables are made when the query names them, and only once.
#[derive(Debug)]
pub(super) struct TenantSchema {
    tenant: TenantId,
    live: Arc<LiveSnapshot>,
    history: Arc<dyn HistorySource>,
    made: Mutex<HashMap<&'static str, Arc<dyn TableProvider>>>,
}

impl TenantSchema {
    pub(super) fn new(tenant: TenantId, live: Arc<LiveSnapshot>, history: Arc<dyn HistorySource>) -> Self {
        Self {
            tenant,
            live,
            history,
            made: Mutex::default(),
        }
    }

    fn view(&self, table: &TableDef) -> HistoryView {
        self.history.view(&self.tenant, table.name)
    }

    fn make(&self, table: &TableDef) -> Result<Option<Arc<dyn TableProvider>>> {
        Ok(match table.kind {
            TableKind::History => Some(Arc::new(HistoryTable::new(table.columns, self.view(table)))),
            TableKind::Live if table.name == "latest" => Some(Arc::new(LatestTable::new(self.live.clone()))),
            TableKind::LiveAndHistory if table.name == profile::NAME => Some(profile::merged(self.live.clone(), self.view(table))?),
            TableKind::LiveAndHistory if operations::is_one(table) => Some(operations::merged(table, self.live.grid(), self.view(table))?),
            TableKind::View => Some(switch_history::provider(self.live.grid(), self.view(&alerts::TABLE))?),
            // A table whose definition has come before its view has no provider there either.
            TableKind::Live | TableKind::Reference => grid::provider(table, self.live.grid())?,
            TableKind::LiveAndHistory => grid::provider(table, self.live.grid())?.map(|live| {
                let past = HistoryTable::new(table.columns, self.view(table));
                Arc::new(LiveAndPast { live, past }) as Arc<dyn TableProvider>
            }),
        })
    }
}

#[async_trait]
impl SchemaProvider for TenantSchema {
    fn table_names(&self) -> Vec<String> {
        TABLES.iter().map(|table| table.name.to_owned()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let Some(table) = table(name) else { return Ok(None) };
        let mut made = self.made.lock();
        if let Some(provider) = made.get(table.name) {
            return Ok(Some(provider.clone()));
        }
        let provider = self.make(table)?;
        if let Some(provider) = &provider {
            made.insert(table.name, provider.clone());
        }
        Ok(provider)
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>> {
        Ok(table(name).map(|_| TableType::Base))
    }

    fn table_exist(&self, name: &str) -> bool {
        table(name).is_some()
    }
}
