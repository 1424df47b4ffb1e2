//! The catalog of one query: which tables a principal sees, and where their rows come from.
//!
//! A query gets a catalog of its own. It holds one [`LiveSnapshot`] and at most one [`HistoryView`] of each table, so everything a
//! statement reads of a table is one state of it, and all live tables are at one epoch. Only the principal's tenant is in it: what is
//! not in the catalog cannot be asked for.

mod columns;
mod conform;
mod grid;
mod history;
mod information_schema;
mod latest;
mod operations;
mod profile;
mod pushdown;
mod switch_history;
mod tenant;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::error::Result;
use flexmeter_model::TenantId;

use crate::live::LiveSnapshot;
use information_schema::InformationSchema;
use tenant::TenantSchema;

pub(crate) use conform::{conform_batch, plain_type};
pub use flexmeter_tables::{TABLES, TableDef, TableKind};
pub use information_schema::INFORMATION_SCHEMA_TABLES;

/// Name of the one catalog.
pub const CATALOG: &str = "flexmeter";
/// Name of the schema that describes the others.
pub const INFORMATION_SCHEMA: &str = "information_schema";

/// One state of a table's history: what the lake holds, and accepted rows it does not hold yet. Each row is in exactly one of them.
#[derive(Debug, Clone, Default)]
pub struct HistoryView {
    /// A snapshot of the lake's table; `None` while nothing was ever committed.
    pub committed: Option<Arc<dyn TableProvider>>,
    /// Accepted rows that are not in `committed`. Columns are found by name and cast, dictionaries are fine.
    pub tail: Vec<RecordBatch>,
}

/// Gives views of the history. `src` implements it over the lake sink and its tail.
pub trait HistorySource: Send + Sync + std::fmt::Debug {
    /// The newest state of a table of [`TABLES`] that the lake keeps. Called once for each table a query names; it must be quick.
    fn view(&self, tenant: &TenantId, table: &str) -> HistoryView;
}

/// A history that holds nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHistory;

impl HistorySource for NoHistory {
    fn view(&self, _tenant: &TenantId, _table: &str) -> HistoryView {
        HistoryView::default()
    }
}

/// A table as it is described to clients.
#[derive(Debug, Clone)]
pub struct TableListing {
    /// Its schema: the tenant, or `information_schema`.
    pub schema_name: String,
    /// Its name.
    pub name: String,
    /// Its columns, with comments in their metadata.
    pub schema: SchemaRef,
}

/// The catalog of one query, and the list that holds it alone.
#[derive(Debug, Clone)]
pub(crate) struct QueryCatalog {
    tenant: TenantId,
    tables: Arc<TenantSchema>,
}

impl QueryCatalog {
    /// The live snapshot is taken before any history view, see [`crate::live`].
    pub(crate) fn new(tenant: TenantId, live: Arc<LiveSnapshot>, history: Arc<dyn HistorySource>) -> Self {
        let tables = Arc::new(TenantSchema::new(tenant.clone(), live, history));
        Self { tenant, tables }
    }

    /// All tables. Those of the tenant are described by their definitions, so nothing is opened for it.
    pub(crate) async fn listing(&self) -> Result<Vec<TableListing>> {
        let ours = TABLES.iter().map(|t| TableListing {
            schema_name: self.tenant.to_string(),
            name: t.name.to_owned(),
            schema: t.schema(),
        });
        let mut tables: Vec<_> = ours.collect();
        if let Some(information) = self.schema(INFORMATION_SCHEMA) {
            for name in information.table_names() {
                if let Some(table) = information.table(&name).await? {
                    tables.push(TableListing {
                        schema_name: INFORMATION_SCHEMA.to_owned(),
                        name,
                        schema: table.schema(),
                    });
                }
            }
        }
        Ok(tables)
    }
}

impl CatalogProvider for QueryCatalog {
    fn schema_names(&self) -> Vec<String> {
        vec![self.tenant.to_string(), INFORMATION_SCHEMA.to_owned()]
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        if name == self.tenant.as_str() {
            Some(self.tables.clone())
        } else if name == INFORMATION_SCHEMA {
            Some(Arc::new(InformationSchema::new(self.tenant.clone())))
        } else {
            None
        }
    }
}

impl CatalogProviderList for QueryCatalog {
    fn register_catalog(&self, _name: String, _catalog: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![CATALOG.to_owned()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        (name == CATALOG).then(|| Arc::new(self.clone()) as _)
    }
}
