//! What the server says about itself: GetSqlInfo and GetXdbcTypeInfo.

use arrow_flight::error::FlightError;
use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder, XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::{
    Nullable, Searchable, SqlInfo, SqlNullOrdering, SqlOuterJoinsSupportLevel, SqlSupportedCaseSensitivity, SqlSupportedElementActions,
    SqlSupportedGroupBy, SqlSupportedResultSetConcurrency, SqlSupportedResultSetType, SqlSupportedSubqueries, SqlSupportedTransaction,
    SqlSupportedUnions, SqlSupportsConvert, SqlTransactionIsolationLevel, SupportedSqlGrammar, XdbcDataType, XdbcDatetimeSubcode,
};
use std::collections::HashMap;

use super::statements::{PREPARED_IDLE, PREPARED_MAX};
use crate::session::{SQL_LEN_MAX, STATEMENTS_CONCURRENT_MAX};

/// Name the server gives itself.
pub const SERVER_NAME: &str = "Flexmeter";
/// The Arrow release our columns come from.
const ARROW_VERSION: &str = "59.3";

/// Words SQL:2003 does not reserve but our grammar does not take as plain names.
const KEYWORDS: &[&str] = &[
    "ANTI",
    "ASOF",
    "EXPLAIN",
    "ILIKE",
    "LIMIT",
    "MATCH_RECOGNIZE",
    "OFFSET",
    "PIVOT",
    "QUALIFY",
    "SEMI",
    "SHOW",
    "TABLESAMPLE",
    "TOP",
    "UNNEST",
    "UNPIVOT",
];
const NUMERIC_FUNCTIONS: &[&str] = &[
    "ABS", "ACOS", "ASIN", "ATAN", "ATAN2", "CEIL", "COS", "COT", "DEGREES", "EXP", "FLOOR", "LN", "LOG", "LOG10", "LOG2", "PI", "POWER",
    "RADIANS", "ROUND", "SIGN", "SIN", "SQRT", "TAN", "TRUNC",
];
const STRING_FUNCTIONS: &[&str] = &[
    "ASCII",
    "BTRIM",
    "CHAR_LENGTH",
    "CHARACTER_LENGTH",
    "CHR",
    "CONCAT",
    "INITCAP",
    "LEFT",
    "LENGTH",
    "LOWER",
    "LPAD",
    "LTRIM",
    "OCTET_LENGTH",
    "POSITION",
    "REPEAT",
    "REPLACE",
    "REVERSE",
    "RIGHT",
    "RPAD",
    "RTRIM",
    "SPLIT_PART",
    "STARTS_WITH",
    "STRPOS",
    "SUBSTR",
    "SUBSTRING",
    "TRANSLATE",
    "TRIM",
    "UPPER",
];
const SYSTEM_FUNCTIONS: &[&str] = &["COALESCE", "NULLIF", "NVL", "VERSION"];
const DATETIME_FUNCTIONS: &[&str] = &[
    "CURRENT_DATE",
    "CURRENT_TIME",
    "DATE_BIN",
    "DATE_PART",
    "DATE_TRUNC",
    "EXTRACT",
    "FROM_UNIXTIME",
    "MAKE_DATE",
    "NOW",
    "TO_CHAR",
    "TO_DATE",
    "TO_TIMESTAMP",
];

/// Bits of a bitmask, by their numbers.
fn bits(numbers: impl IntoIterator<Item = i32>) -> i32 {
    numbers.into_iter().fold(0, |mask, number| mask | 1 << number)
}

/// Everything GetSqlInfo can be asked for.
pub(super) fn sql_info() -> Result<SqlInfoData, FlightError> {
    let mut info = SqlInfoDataBuilder::new();
    server(&mut info);
    syntax(&mut info);
    abilities(&mut info);
    limits(&mut info);
    info.build()
}

fn server(info: &mut SqlInfoDataBuilder) {
    info.append(SqlInfo::FlightSqlServerName, SERVER_NAME);
    info.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    info.append(SqlInfo::FlightSqlServerArrowVersion, ARROW_VERSION);
    info.append(SqlInfo::FlightSqlServerReadOnly, true);
    info.append(SqlInfo::FlightSqlServerSql, true);
    info.append(SqlInfo::FlightSqlServerSubstrait, false);
    info.append(SqlInfo::FlightSqlServerSubstraitMinVersion, "");
    info.append(SqlInfo::FlightSqlServerSubstraitMaxVersion, "");
    info.append(SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::None as i32);
    info.append(SqlInfo::FlightSqlServerCancel, true);
    info.append(SqlInfo::FlightSqlServerBulkIngestion, false);
    info.append(SqlInfo::FlightSqlServerIngestTransactionsSupported, false);
    info.append(
        SqlInfo::FlightSqlServerStatementTimeout,
        i32::try_from(PREPARED_IDLE.as_millis()).unwrap_or(i32::MAX),
    );
    info.append(SqlInfo::FlightSqlServerTransactionTimeout, 0_i32);
}

fn syntax(info: &mut SqlInfoDataBuilder) {
    info.append(
        SqlInfo::SqlIdentifierCase,
        SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i32,
    );
    info.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    info.append(
        SqlInfo::SqlQuotedIdentifierCase,
        SqlSupportedCaseSensitivity::SqlCaseSensitivityUnknown as i32,
    );
    info.append(SqlInfo::SqlNullOrdering, SqlNullOrdering::SqlNullsSortedHigh as i32);
    info.append(SqlInfo::SqlKeywords, KEYWORDS);
    info.append(SqlInfo::SqlNumericFunctions, NUMERIC_FUNCTIONS);
    info.append(SqlInfo::SqlStringFunctions, STRING_FUNCTIONS);
    info.append(SqlInfo::SqlSystemFunctions, SYSTEM_FUNCTIONS);
    info.append(SqlInfo::SqlDatetimeFunctions, DATETIME_FUNCTIONS);
    info.append(SqlInfo::SqlSearchStringEscape, "\\");
    info.append(SqlInfo::SqlExtraNameCharacters, "");
    info.append(SqlInfo::SqlSchemaTerm, "schema");
    info.append(SqlInfo::SqlProcedureTerm, "procedure");
    info.append(SqlInfo::SqlCatalogTerm, "catalog");
    info.append(SqlInfo::SqlCatalogAtStart, true);
    info.append(
        SqlInfo::SqlSupportedGrammar,
        bits([
            SupportedSqlGrammar::SqlMinimumGrammar as i32,
            SupportedSqlGrammar::SqlCoreGrammar as i32,
        ]),
    );
    // entry level of ANSI SQL-92
    info.append(SqlInfo::SqlAnsi92SupportedLevel, bits([0]));
}

fn abilities(info: &mut SqlInfoDataBuilder) {
    for id in [
        SqlInfo::SqlAllTablesAreSelectable,
        SqlInfo::SqlSupportsColumnAliasing,
        SqlInfo::SqlNullPlusNullIsNull,
        SqlInfo::SqlSupportsTableCorrelationNames,
        SqlInfo::SqlSupportsExpressionsInOrderBy,
        SqlInfo::SqlSupportsOrderByUnrelated,
        SqlInfo::SqlSupportsLikeEscapeClause,
        SqlInfo::SqlSupportsNonNullableColumns,
        SqlInfo::SqlCorrelatedSubqueriesSupported,
    ] {
        info.append(id, true);
    }
    for id in [
        SqlInfo::SqlDdlCatalog,
        SqlInfo::SqlDdlSchema,
        SqlInfo::SqlDdlTable,
        SqlInfo::SqlSupportsDifferentTableCorrelationNames,
        SqlInfo::SqlSupportsIntegrityEnhancementFacility,
        SqlInfo::SqlSelectForUpdateSupported,
        SqlInfo::SqlStoredProceduresSupported,
        SqlInfo::SqlMaxRowSizeIncludesBlobs,
        SqlInfo::SqlTransactionsSupported,
        SqlInfo::SqlDataDefinitionCausesTransactionCommit,
        SqlInfo::SqlDataDefinitionsInTransactionsIgnored,
        SqlInfo::SqlBatchUpdatesSupported,
        SqlInfo::SqlSavepointsSupported,
        SqlInfo::SqlNamedParametersSupported,
        SqlInfo::SqlLocatorsUpdateCopy,
        SqlInfo::SqlStoredFunctionsUsingCallSyntaxSupported,
    ] {
        info.append(id, false);
    }
    info.append(SqlInfo::SqlSupportsConvert, conversions());
    info.append(
        SqlInfo::SqlSupportedGroupBy,
        bits([
            SqlSupportedGroupBy::SqlGroupByUnrelated as i32,
            SqlSupportedGroupBy::SqlGroupByBeyondSelect as i32,
        ]),
    );
    info.append(
        SqlInfo::SqlOuterJoinsSupportLevel,
        SqlOuterJoinsSupportLevel::SqlFullOuterJoins as i32,
    );
    let qualified_names = 0; // a schema or catalog may qualify a table, but there are no procedures, indices or privileges
    debug_assert_eq!(SqlSupportedElementActions::SqlElementInProcedureCalls as i32, 0);
    info.append(SqlInfo::SqlSchemasSupportedActions, qualified_names);
    info.append(SqlInfo::SqlCatalogsSupportedActions, qualified_names);
    info.append(SqlInfo::SqlSupportedPositionedCommands, 0_i32);
    let subqueries = [
        SqlSupportedSubqueries::SqlSubqueriesInComparisons,
        SqlSupportedSubqueries::SqlSubqueriesInExists,
        SqlSupportedSubqueries::SqlSubqueriesInIns,
    ];
    info.append(SqlInfo::SqlSupportedSubqueries, bits(subqueries.map(|s| s as i32)));
    info.append(
        SqlInfo::SqlSupportedUnions,
        bits([SqlSupportedUnions::SqlUnion as i32, SqlSupportedUnions::SqlUnionAll as i32]),
    );
    // the protocol says int32 here, the JDBC driver reads an int64 and fails on anything else
    info.append(
        SqlInfo::SqlDefaultTransactionIsolation,
        i64::from(SqlTransactionIsolationLevel::SqlTransactionNone as i32),
    );
    info.append(
        SqlInfo::SqlSupportedTransactionsIsolationLevels,
        bits([SqlTransactionIsolationLevel::SqlTransactionNone as i32]),
    );
    info.append(
        SqlInfo::SqlSupportedResultSetTypes,
        bits([SqlSupportedResultSetType::SqlResultSetTypeForwardOnly as i32]),
    );
    let read_only = bits([SqlSupportedResultSetConcurrency::SqlResultSetConcurrencyReadOnly as i32]);
    info.append(SqlInfo::SqlSupportedConcurrenciesForResultSetUnspecified, 0_i32);
    info.append(SqlInfo::SqlSupportedConcurrenciesForResultSetForwardOnly, read_only);
    info.append(SqlInfo::SqlSupportedConcurrenciesForResultSetScrollSensitive, 0_i32);
    info.append(SqlInfo::SqlSupportedConcurrenciesForResultSetScrollInsensitive, 0_i32);
}

/// Zero says: no limit, or none that is known.
fn limits(info: &mut SqlInfoDataBuilder) {
    for id in [
        SqlInfo::SqlMaxBinaryLiteralLength,
        SqlInfo::SqlMaxCharLiteralLength,
        SqlInfo::SqlMaxColumnNameLength,
        SqlInfo::SqlMaxColumnsInGroupBy,
        SqlInfo::SqlMaxColumnsInIndex,
        SqlInfo::SqlMaxColumnsInOrderBy,
        SqlInfo::SqlMaxColumnsInSelect,
        SqlInfo::SqlMaxColumnsInTable,
        SqlInfo::SqlMaxConnections,
        SqlInfo::SqlMaxCursorNameLength,
        SqlInfo::SqlMaxIndexLength,
        SqlInfo::SqlDbSchemaNameLength,
        SqlInfo::SqlMaxProcedureNameLength,
        SqlInfo::SqlMaxCatalogNameLength,
        SqlInfo::SqlMaxRowSize,
        SqlInfo::SqlMaxTableNameLength,
        SqlInfo::SqlMaxTablesInSelect,
        SqlInfo::SqlMaxUsernameLength,
    ] {
        info.append(id, 0_i64);
    }
    info.append(SqlInfo::SqlMaxStatementLength, SQL_LEN_MAX as i64);
    info.append(SqlInfo::SqlMaxStatements, PREPARED_MAX.max(STATEMENTS_CONCURRENT_MAX) as i64);
}

/// What CAST turns into what.
fn conversions() -> HashMap<i32, Vec<i32>> {
    use SqlSupportsConvert as C;
    let numbers = [
        C::SqlConvertBigint,
        C::SqlConvertInteger,
        C::SqlConvertSmallint,
        C::SqlConvertTinyint,
        C::SqlConvertFloat,
        C::SqlConvertReal,
        C::SqlConvertDecimal,
    ];
    let numbers_and_text: Vec<i32> = numbers.into_iter().chain([C::SqlConvertVarchar]).map(|c| c as i32).collect();
    let mut map: HashMap<i32, Vec<i32>> = numbers.into_iter().map(|from| (from as i32, numbers_and_text.clone())).collect();
    let times = [C::SqlConvertDate, C::SqlConvertTimestamp];
    map.insert(
        C::SqlConvertVarchar as i32,
        numbers
            .into_iter()
            .chain(times)
            .chain([C::SqlConvertVarchar])
            .map(|c| c as i32)
            .collect(),
    );
    for from in times {
        map.insert(
            from as i32,
            times.into_iter().chain([C::SqlConvertVarchar]).map(|c| c as i32).collect(),
        );
    }
    map
}

/// The types columns have.
pub(super) fn type_info() -> Result<XdbcTypeInfoData, FlightError> {
    let plain = |name: &str, data_type: XdbcDataType, size: i32| XdbcTypeInfo {
        type_name: name.to_owned(),
        data_type,
        column_size: Some(size),
        nullable: Nullable::NullabilityNullable,
        searchable: Searchable::Full,
        fixed_prec_scale: false,
        auto_increment: Some(false),
        local_type_name: Some(name.to_owned()),
        sql_data_type: data_type,
        ..XdbcTypeInfo::default()
    };
    let number = |name: &str, data_type: XdbcDataType, digits: i32, radix: i32| XdbcTypeInfo {
        unsigned_attribute: Some(false),
        num_prec_radix: Some(radix),
        ..plain(name, data_type, digits)
    };
    let quoted = |info: XdbcTypeInfo, prefix: &str| XdbcTypeInfo {
        literal_prefix: Some(prefix.to_owned()),
        literal_suffix: Some("'".to_owned()),
        ..info
    };
    let mut types = XdbcTypeInfoDataBuilder::new();
    types.append(plain("BOOLEAN", XdbcDataType::XdbcBit, 1));
    types.append(number("INTEGER", XdbcDataType::XdbcInteger, 10, 10));
    types.append(number("BIGINT", XdbcDataType::XdbcBigint, 19, 10));
    types.append(number("DOUBLE", XdbcDataType::XdbcDouble, 53, 2));
    types.append(XdbcTypeInfo {
        case_sensitive: true,
        ..quoted(plain("VARCHAR", XdbcDataType::XdbcVarchar, i32::MAX), "'")
    });
    types.append(quoted(plain("VARBINARY", XdbcDataType::XdbcVarbinary, i32::MAX), "X'"));
    types.append(XdbcTypeInfo {
        // ODBC gives DATE the number that the protocol calls YEAR
        datetime_subcode: Some(XdbcDatetimeSubcode::XdbcSubcodeYear),
        sql_data_type: XdbcDataType::XdbcDatetime,
        ..quoted(plain("DATE", XdbcDataType::XdbcDate, 10), "DATE '")
    });
    types.append(XdbcTypeInfo {
        datetime_subcode: Some(XdbcDatetimeSubcode::XdbcSubcodeTimestampWithTimezone),
        sql_data_type: XdbcDataType::XdbcDatetime,
        maximum_scale: Some(6),
        ..quoted(plain("TIMESTAMP", XdbcDataType::XdbcTimestamp, 32), "TIMESTAMP '")
    });
    types.build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, RecordBatch};
    use arrow::datatypes::UInt32Type;

    #[test]
    fn every_id_of_the_protocol_has_an_answer() {
        let batch: RecordBatch = sql_info().unwrap().record_batch(std::iter::empty()).unwrap();
        let ids: Vec<u32> = batch.column(0).as_primitive::<UInt32Type>().values().to_vec();
        let missing: Vec<u32> = (0..=11).chain(100..=101).chain(500..=576).filter(|id| !ids.contains(id)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn types_can_be_asked_for_one_by_one() {
        let types = type_info().unwrap();
        assert_eq!(types.record_batch(None).unwrap().num_rows(), 8);
        assert_eq!(types.record_batch(XdbcDataType::XdbcVarchar as i32).unwrap().num_rows(), 1);
    }
}
