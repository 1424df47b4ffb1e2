//! Which catalogs, schemas, tables and keys there are.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::sql::{CommandGetCatalogs, CommandGetDbSchemas, CommandGetTableTypes, CommandGetTables};
use tonic::Status;

use crate::auth::Principal;
use crate::catalog::{CATALOG, INFORMATION_SCHEMA};
use crate::session::SqlService;

const TABLE: &str = "TABLE";
const VIEW: &str = "VIEW";

fn failed(error: impl std::fmt::Display) -> Status {
    tracing::error!(%error, "the catalog cannot be described");
    Status::internal("the catalog cannot be described; the server's log has the details")
}

pub(super) fn catalogs(query: CommandGetCatalogs) -> Result<RecordBatch, Status> {
    let mut rows = query.into_builder();
    rows.append(CATALOG);
    rows.build().map_err(failed)
}

pub(super) fn schemas(principal: &Principal, query: CommandGetDbSchemas) -> Result<RecordBatch, Status> {
    let mut rows = query.into_builder();
    for schema in [principal.tenant.as_str(), INFORMATION_SCHEMA] {
        rows.append(CATALOG, schema);
    }
    rows.build().map_err(failed)
}

pub(super) fn table_types() -> Result<RecordBatch, Status> {
    let mut rows = CommandGetTableTypes {}.into_builder();
    rows.append(TABLE);
    rows.append(VIEW);
    rows.build().map_err(failed)
}

pub(super) async fn tables(sql: &SqlService, principal: &Principal, query: CommandGetTables) -> Result<RecordBatch, Status> {
    let mut rows = query.into_builder();
    for table in sql.tables(principal).await.map_err(failed)? {
        let kind = if table.schema_name == INFORMATION_SCHEMA { VIEW } else { TABLE };
        let schema = described(&table.schema, &table.schema_name, &table.name);
        rows.append(CATALOG, &table.schema_name, &table.name, kind, &schema)
            .map_err(failed)?;
    }
    rows.build().map_err(failed)
}

/// A table's schema with what Flight SQL clients look for in column metadata.
fn described(schema: &SchemaRef, schema_name: &str, table: &str) -> Schema {
    let fields = schema.fields().iter().map(|field| {
        let mut metadata = field.metadata().clone();
        let mut put = |key: &str, value: &str| metadata.insert(format!("ARROW:FLIGHT:SQL:{key}"), value.to_owned());
        put("CATALOG_NAME", CATALOG);
        put("SCHEMA_NAME", schema_name);
        put("TABLE_NAME", table);
        put("TYPE_NAME", type_name(field.data_type()));
        put("IS_AUTO_INCREMENT", "0");
        put("IS_CASE_SENSITIVE", if field.data_type() == &DataType::Utf8 { "1" } else { "0" });
        put("IS_READ_ONLY", "1");
        put("IS_SEARCHABLE", "1");
        if let Some(comment) = field.metadata().get(flexmeter_tables::definition::COMMENT_KEY) {
            put("REMARKS", comment);
        }
        Arc::new(field.as_ref().clone().with_metadata(metadata))
    });
    Schema::new_with_metadata(fields.collect::<Vec<_>>(), HashMap::new())
}

/// The name GetXdbcTypeInfo gives a type.
fn type_name(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => "INTEGER",
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => "BIGINT",
        DataType::Float16 | DataType::Float32 | DataType::Float64 => "DOUBLE",
        DataType::Date32 | DataType::Date64 => "DATE",
        DataType::Timestamp(..) => "TIMESTAMP",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "VARBINARY",
        _ => "VARCHAR",
    }
}

/// There are no primary keys; this is how an empty answer looks.
pub(super) fn primary_keys() -> RecordBatch {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    RecordBatch::new_empty(Arc::new(Schema::new(vec![
        text("catalog_name", true),
        text("db_schema_name", true),
        text("table_name", false),
        text("column_name", false),
        Field::new("key_sequence", DataType::Int32, false),
        text("key_name", true),
    ])))
}

/// There are no foreign keys; this is how an empty answer to imported, exported and cross-reference keys looks.
pub(super) fn foreign_keys() -> RecordBatch {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    RecordBatch::new_empty(Arc::new(Schema::new(vec![
        text("pk_catalog_name", true),
        text("pk_db_schema_name", true),
        text("pk_table_name", false),
        text("pk_column_name", false),
        text("fk_catalog_name", true),
        text("fk_db_schema_name", true),
        text("fk_table_name", false),
        text("fk_column_name", false),
        Field::new("key_sequence", DataType::Int32, false),
        text("fk_key_name", true),
        text("pk_key_name", true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ])))
}
