use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type};
use arrow::util::pretty::pretty_format_batches;
use datafusion::scalar::ScalarValue;
use flexmeter_model::TenantId;

use super::fixture::{principal, service, service_with};
use super::*;
use crate::auth::Role;
use crate::catalog::NoHistory;
use crate::live::test_rows::{Rows, identifier};

async fn run(service: &SqlService, sql: &str, parameters: &[ScalarValue]) -> Result<Vec<RecordBatch>, SqlError> {
    let rows = service.execute(&principal(), sql, parameters).await?;
    let schema = rows.schema().clone();
    let batches = rows.collect().await?;
    for batch in &batches {
        assert_eq!(batch.schema(), schema, "the announced schema is the streamed one: {sql}");
    }
    Ok(batches)
}

async fn number(service: &SqlService, sql: &str, parameters: &[ScalarValue]) -> i64 {
    let batches = run(service, sql, parameters).await.unwrap();
    batches[0].column(0).as_primitive::<Int64Type>().value(0)
}

async fn refused(sql: &str) -> SqlError {
    run(&service(), sql, &[]).await.unwrap_err()
}

#[tokio::test]
async fn lake_and_tail_are_one_table_and_each_row_is_there_once() {
    let service = service();
    assert_eq!(number(&service, "SELECT count(*) FROM measurements", &[]).await, 32);
    let steps = "SELECT count(DISTINCT event_time) FROM measurements WHERE hardware_id = 'm-2'";
    assert_eq!(number(&service, steps, &[]).await, 4);
    let tail = "SELECT count(*) FROM measurements WHERE event_time >= TIMESTAMPTZ '2026-11-17 00:12:00Z' AND identifier LIKE '%voltage%'";
    assert_eq!(number(&service, tail, &[]).await, 4);
}

#[tokio::test]
async fn parameters_are_written_both_ways() {
    let service = service();
    let one = [ScalarValue::from("m-1")];
    for sql in [
        "SELECT count(*) FROM measurements WHERE hardware_id = ?",
        "SELECT count(*) FROM measurements WHERE hardware_id = $1",
    ] {
        assert_eq!(number(&service, sql, &one).await, 8, "{sql}");
    }
    let prepared = service
        .prepare(&principal(), "SELECT value, ? AS a FROM latest WHERE hardware_id = ? AND value > ?")
        .await
        .unwrap();
    let limit = service
        .prepare(&principal(), "SELECT * FROM latest LIMIT ? OFFSET ?")
        .await
        .unwrap();
    assert!(limit.parameters.fields().iter().all(|f| *f.data_type() == DataType::Int64));
    let types: Vec<_> = prepared
        .parameters
        .fields()
        .iter()
        .map(|f| (f.name().as_str(), f.data_type().clone()))
        .collect();
    assert_eq!(types, [("$1", DataType::Utf8), ("$2", DataType::Utf8), ("$3", DataType::Float64)]);
    assert!(matches!(run(&service, "SELECT $1", &[]).await, Err(SqlError::Parameters { .. })));
    assert!(matches!(run(&service, "SELECT 1", &one).await, Err(SqlError::Parameters { .. })));
    assert!(matches!(run(&service, "SELECT $2", &one).await, Err(SqlError::Parameters { .. })));
}

#[tokio::test]
async fn a_time_may_be_given_as_text_and_a_whole_number_for_a_float() {
    let service = service();
    let sql = "SELECT count(*) FROM measurements WHERE event_time < ? AND value > ?";
    let values = [ScalarValue::from("2026-11-17T00:05:00Z"), ScalarValue::from(100_i64)];
    assert_eq!(number(&service, sql, &values).await, 4);
}

#[tokio::test]
async fn nothing_can_be_written_or_looked_into() {
    for sql in [
        "INSERT INTO measurements VALUES ('x')",
        "DELETE FROM measurements",
        "UPDATE latest SET value = 0",
        "CREATE TABLE t AS SELECT 1 AS a",
        "CREATE VIEW v AS SELECT 1 AS a",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "DROP TABLE measurements",
        "TRUNCATE TABLE measurements",
        "COPY (SELECT 1) TO '/tmp/x.csv'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '/tmp/x.csv'",
        "SET datafusion.execution.batch_size = 1",
        "PREPARE p AS SELECT 1",
        "BEGIN",
    ] {
        let error = refused(sql).await;
        assert!(matches!(error, SqlError::ReadOnly { .. }), "{sql}: {error:?}");
    }
    for sql in [
        "SHOW ALL",
        "SELECT * FROM information_schema.df_settings",
        "SELECT * FROM '/etc/passwd'",
        "SELECT 1; SELECT 2",
        "SELECT * FROM other.latest",
        "",
    ] {
        assert!(matches!(refused(sql).await, SqlError::Invalid { .. }), "{sql}");
    }
}

#[tokio::test]
async fn another_tenant_sees_nothing_of_ours() {
    let other = Principal {
        user: "admin".into(),
        tenant: TenantId::new("other").unwrap(),
        role: Role::Admin,
    };
    let service = service();
    for table in ["measurements", "latest", "load_profile_15m", "default.latest"] {
        let rows = service.execute(&other, &format!("SELECT * FROM {table}"), &[]).await;
        match rows {
            Ok(rows) => assert!(rows.collect().await.unwrap().iter().all(|b| b.num_rows() == 0), "{table}"),
            Err(error) => assert!(matches!(error, SqlError::Invalid { .. }) && table.contains('.'), "{table}: {error}"),
        }
    }
}

#[tokio::test]
async fn limits_end_a_statement_with_a_sentence() {
    let long = format!("SELECT '{}'", "x".repeat(SQL_LEN_MAX));
    assert!(matches!(refused(&long).await, SqlError::TooLong { .. }));

    let capped = service_with(SqlLimits {
        rows: Some(10),
        ..SqlLimits::default()
    });
    assert_eq!(
        run(&capped, "SELECT * FROM measurements", &[]).await,
        Err(SqlError::TooManyRows { limit: 10 })
    );
    assert!(run(&capped, "SELECT * FROM measurements LIMIT 10", &[]).await.is_ok());

    let small = service_with(SqlLimits {
        memory_bytes: 200_000,
        ..SqlLimits::default()
    });
    let sort = "SELECT count(*) FROM (SELECT value AS a, count(*) FROM generate_series(1, 3000000) GROUP BY value)";
    assert!(matches!(run(&small, sort, &[]).await, Err(SqlError::Memory { .. })));

    let hasty = service_with(SqlLimits {
        statement_time: Duration::from_millis(300),
        ..SqlLimits::default()
    });
    let endless = "SELECT count(*) FROM generate_series(1, 1000000000000)";
    assert!(matches!(run(&hasty, endless, &[]).await, Err(SqlError::Deadline { .. })));
}

#[tokio::test]
async fn a_statement_waits_for_a_slot_and_dropping_rows_frees_it() {
    let service = service_with(SqlLimits {
        concurrent: 1,
        ..SqlLimits::default()
    });
    let endless = service
        .execute(&principal(), "SELECT * FROM generate_series(1, 1000000000000)", &[])
        .await
        .unwrap();
    {
        let second = run(&service, "SELECT count(*) FROM latest", &[]);
        assert!(
            tokio::time::timeout(Duration::from_millis(200), second).await.is_err(),
            "the slot is taken"
        );
    }
    drop(endless);
    let answer = tokio::time::timeout(Duration::from_secs(10), number(&service, "SELECT count(*) FROM latest", &[])).await;
    assert_eq!(answer, Ok(8));
}

#[tokio::test]
async fn a_reader_that_does_not_read_loses_its_slot_at_the_deadline() {
    let limits = SqlLimits {
        concurrent: 1,
        statement_time: Duration::from_millis(500),
        ..SqlLimits::default()
    };
    let service = service_with(limits);
    let idle = service
        .execute(&principal(), "SELECT * FROM generate_series(1, 1000000000000)", &[])
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    let second = service.execute(&principal(), "SELECT count(*) FROM latest", &[]).await.unwrap();
    assert_eq!(second.collect().await.unwrap().len(), 1);
    assert!(matches!(idle.collect().await, Err(SqlError::Deadline { .. })));
}

#[tokio::test]
async fn an_error_while_running_reaches_the_reader() {
    let error = refused("SELECT CAST(hardware_id AS BIGINT) FROM latest").await;
    assert!(
        matches!(&error, SqlError::Invalid { detail } if detail.contains("Cannot cast string 'm-")),
        "{error:?}"
    );
}

/// The views of one statement are at one epoch, while a writer goes on: `latest` has value e everywhere and the profile n = e.
#[tokio::test]
async fn live_tables_show_one_epoch_while_epochs_are_applied() {
    let live = Arc::new(LiveStore::new());
    let service = SqlService::new(live.clone(), Arc::new(NoHistory), SqlLimits::default()).unwrap();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writer = std::thread::spawn({
        let (live, stop) = (live.clone(), stop.clone());
        move || {
            let mut rows = Rows::new("default", 500);
            let mut epoch = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                epoch += 1;
                let mut closed = rows.epoch(|_| vec![(identifier(0), epoch, epoch as f64)]);
                closed.partitions.extend(rows.profile_epoch(0, Some(epoch as u64)).partitions);
                live.apply(&closed);
            }
            epoch
        }
    });
    let mut epochs = live.epochs();
    epochs.wait_for(|epoch| *epoch > 0).await.unwrap();
    let sql = "SELECT min(l.value), max(l.value), CAST(min(p.n) AS DOUBLE), CAST(max(p.n) AS DOUBLE) \
               FROM latest l JOIN load_profile_15m p ON l.hardware_id = p.hardware_id";
    let mut seen = Vec::new();
    for _ in 0..20 {
        let batches = run(&service, sql, &[]).await.unwrap();
        let values: Vec<f64> = batches[0]
            .columns()
            .iter()
            .map(|c| c.as_primitive::<Float64Type>().value(0))
            .collect();
        assert!(values.iter().all(|v| *v == values[0]), "two epochs in one answer: {values:?}");
        seen.push(values[0]);
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    writer.join().unwrap();
    assert!(seen[0] < seen[seen.len() - 1], "the writer went on meanwhile: {seen:?}");
}

#[tokio::test]
async fn questions_of_meter_data_run() {
    let service = service();
    for sql in [
        "SELECT hardware_id, identifier, max(event_time) AS event_time, last_value(value ORDER BY event_time) AS value FROM measurements GROUP BY 1, 2",
        "SELECT date_bin(INTERVAL '15 minutes', event_time) AS w, avg(value) FROM measurements GROUP BY 1 ORDER BY 1",
        "SELECT hardware_id, date_trunc('day', event_time) AS day, max(value) - min(value) FROM measurements GROUP BY 1, 2",
        "SELECT type, count(*) AS n, sum(count(*)) OVER (ORDER BY type) FROM alerts GROUP BY type",
        "SELECT approx_percentile_cont((CAST(received_at AS BIGINT) - CAST(event_time AS BIGINT)) / 1e6, 0.99) FROM measurements",
        "SELECT hardware_id, t.event_time, last_value(value) IGNORE NULLS OVER (PARTITION BY hardware_id ORDER BY t.event_time) FROM measurements m \
         RIGHT JOIN (SELECT unnest(generate_series(TIMESTAMPTZ '2026-11-17 00:00:00+00', TIMESTAMPTZ '2026-11-17 00:10:00+00', INTERVAL '5 minutes')) AS event_time) t \
         ON m.event_time = t.event_time",
        "SELECT round(avg(value), 2), stddev(value), abs(min(value)) FROM measurements",
        "SELECT now() AS a WHERE now() > TIMESTAMP '2020-01-01'",
        "SELECT count(*) FROM latest WHERE event_time < now() - INTERVAL '1 hour'",
        "SHOW TABLES",
        "SHOW FUNCTIONS LIKE 'date_bin'",
        "DESCRIBE latest",
        "EXPLAIN SELECT * FROM measurements WHERE hardware_id = 'm-0'",
    ] {
        let batches = run(&service, sql, &[]).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
        assert!(
            batches.iter().any(|b| b.num_rows() > 0),
            "{sql}: {}",
            pretty_format_batches(&batches).unwrap()
        );
    }
}

/// `test_data/*.slt`: one file a table.
mod slt {
    use super::*;
    use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Runner};

    struct Database(SqlService);

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Failure(String);

    #[async_trait::async_trait]
    impl AsyncDB for Database {
        type Error = Failure;
        type ColumnType = DefaultColumnType;

        async fn run(&mut self, sql: &str) -> Result<DBOutput<Self::ColumnType>, Failure> {
            let fail = |e: &dyn std::fmt::Display| Failure(e.to_string());
            let rows = self.0.execute(&principal(), sql, &[]).await.map_err(|e| fail(&e))?;
            let types = rows.schema().fields().iter().map(|f| column_type(f.data_type())).collect();
            let mut table = Vec::new();
            let options = arrow::util::display::FormatOptions::default().with_null("NULL");
            for batch in rows.collect().await.map_err(|e| fail(&e))? {
                let columns: Result<Vec<_>, _> = batch
                    .columns()
                    .iter()
                    .map(|c| arrow::util::display::ArrayFormatter::try_new(c, &options))
                    .collect();
                let columns = columns.map_err(|e| fail(&e))?;
                table.extend((0..batch.num_rows()).map(|row| columns.iter().map(|c| c.value(row).to_string()).collect()));
            }
            Ok(DBOutput::Rows { types, rows: table })
        }

        async fn shutdown(&mut self) {}
    }

    fn column_type(data_type: &DataType) -> DefaultColumnType {
        match data_type {
            t if t.is_integer() => DefaultColumnType::Integer,
            t if t.is_floating() => DefaultColumnType::FloatingPoint,
            _ => DefaultColumnType::Text,
        }
    }

    #[tokio::test]
    async fn tables_answer_as_written_down() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/test_data");
        let mut n_files = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "slt") {
                let mut runner = Runner::new(|| async { Ok(Database(service())) });
                runner
                    .run_file_async(&path)
                    .await
                    .unwrap_or_else(|e| panic!("{}: {}", path.display(), e.display(false)));
                n_files += 1;
            }
        }
        assert!(n_files >= 6, "{n_files} files");
    }
}
