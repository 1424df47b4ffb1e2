//! `information_schema`: DataFusion's standard tables without the server's settings, and the comments (units!) of tables and columns.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use async_trait::async_trait;
use datafusion::catalog::information_schema::InformationSchemaProvider;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, MemTable, SchemaProvider, TableProvider};
use datafusion::datasource::TableType;
use datafusion::datasource::empty::EmptyTable;
use datafusion::error::Result;
use flexmeter_model::TenantId;
use flexmeter_tables::{TABLES, table};

use super::{CATALOG, INFORMATION_SCHEMA};

/// The tables of `information_schema`. DataFusion's `df_settings` is left out on purpose: it shows the server's inside.
pub const INFORMATION_SCHEMA_TABLES: &[&str] = &[
    TABLES_TABLE,
    "views",
    "columns",
    "schemata",
    "routines",
    "parameters",
    TABLE_COMMENTS,
    COLUMN_COMMENTS,
];

const TABLES_TABLE: &str = "tables";
const TABLE_COMMENTS: &str = "table_comments";
const COLUMN_COMMENTS: &str = "column_comments";

/// Describes the tables of one tenant.
#[derive(Debug)]
pub(super) struct InformationSchema {
    standard: InformationSchemaProvider,
    tenant: TenantId,
}

impl InformationSchema {
    pub(super) fn new(tenant: TenantId) -> Self {
        let described = Described { tenant: tenant.clone() };
        Self {
            standard: InformationSchemaProvider::new(Arc::new(described)),
            tenant,
        }
    }

    /// The standard table `tables`; DataFusion's own would list `df_settings`.
    fn tables(&self) -> Result<Arc<dyn TableProvider>> {
        let ours = TABLES.iter().map(|t| (self.tenant.as_str(), t.name, "BASE TABLE"));
        let standard = INFORMATION_SCHEMA_TABLES.iter().map(|&name| (INFORMATION_SCHEMA, name, "VIEW"));
        let rows: Vec<_> = ours.chain(standard).collect();
        let column =
            |text: fn(&(&str, &str, &str)) -> String| -> ArrayRef { Arc::new(StringArray::from_iter_values(rows.iter().map(text))) };
        memory_table(vec![
            ("table_catalog", column(|_| CATALOG.to_owned())),
            ("table_schema", column(|row| row.0.to_owned())),
            ("table_name", column(|row| row.1.to_owned())),
            ("table_type", column(|row| row.2.to_owned())),
        ])
    }

    fn table_comments(&self) -> Result<Arc<dyn TableProvider>> {
        let names = TABLES.iter().map(|t| t.name).collect();
        let kinds = TABLES.iter().map(|t| t.kind.as_str()).collect();
        let comments = TABLES.iter().map(|t| t.comment).collect();
        self.texts(vec![("table_name", names), ("kind", kinds), ("comment", comments)])
    }

    fn column_comments(&self) -> Result<Arc<dyn TableProvider>> {
        let columns = || TABLES.iter().flat_map(|t| t.columns.iter().map(move |c| (t.name, c)));
        let tables = columns().map(|(table, _)| table).collect();
        let names = columns().map(|(_, c)| c.name).collect();
        let comments = columns().map(|(_, c)| c.comment).collect();
        self.texts(vec![("table_name", tables), ("column_name", names), ("comment", comments)])
    }

    /// A table of texts behind the catalog's and the schema's name.
    fn texts(&self, columns: Vec<(&'static str, Vec<&'static str>)>) -> Result<Arc<dyn TableProvider>> {
        let n = columns.first().map_or(0, |(_, texts)| texts.len());
        let repeat = |text: &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(std::iter::repeat_n(text, n))) };
        let places = [("table_catalog", repeat(CATALOG)), ("table_schema", repeat(self.tenant.as_str()))];
        let texts = columns
            .into_iter()
            .map(|(name, texts)| (name, Arc::new(StringArray::from(texts)) as ArrayRef));
        memory_table(places.into_iter().chain(texts).collect())
    }
}

fn memory_table(columns: Vec<(&'static str, ArrayRef)>) -> Result<Arc<dyn TableProvider>> {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, false)))?;
    Ok(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?))
}

/// The tenant's tables as they are described: with the types clients get, and without opening any of them.
#[derive(Debug, Clone)]
struct Described {
    tenant: TenantId,
}

impl CatalogProviderList for Described {
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

impl CatalogProvider for Described {
    fn schema_names(&self) -> Vec<String> {
        vec![self.tenant.to_string()]
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        (name == self.tenant.as_str()).then(|| Arc::new(self.clone()) as _)
    }
}

#[async_trait]
impl SchemaProvider for Described {
    fn table_names(&self) -> Vec<String> {
        TABLES.iter().map(|t| t.name.to_owned()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        Ok(table(name).map(|t| Arc::new(EmptyTable::new(t.schema())) as _))
    }

    fn table_exist(&self, name: &str) -> bool {
        table(name).is_some()
    }
}

#[async_trait]
impl SchemaProvider for InformationSchema {
    fn table_names(&self) -> Vec<String> {
        INFORMATION_SCHEMA_TABLES.iter().map(|&name| name.to_owned()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        match name {
            TABLES_TABLE => self.tables().map(Some),
            TABLE_COMMENTS => self.table_comments().map(Some),
            COLUMN_COMMENTS => self.column_comments().map(Some),
            name if self.table_exist(name) => self.standard.table(name).await,
            _ => Ok(None),
        }
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>> {
        Ok(self.table_exist(name).then_some(TableType::View))
    }

    fn table_exist(&self, name: &str) -> bool {
        INFORMATION_SCHEMA_TABLES.contains(&name)
    }
}
