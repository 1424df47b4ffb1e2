//! `flexmeter sql`: one statement over Flight SQL, printed as a table, CSV, JSON lines or Arrow.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use arrow::record_batch::RecordBatch;
use clap::{Args, ValueEnum};
use flexmeter_queries::flight::client::Client;

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// With a header line.
    Csv,
    /// One object a line.
    Json,
    /// An Arrow IPC stream.
    Arrow,
}

/// Arguments of `sql`.
#[derive(Debug, Args)]
pub(crate) struct SqlArgs {
    /// The statement.
    statement: String,
    /// Flight SQL address.
    #[arg(long, default_value = "http://127.0.0.1:50051", value_name = "URL")]
    url: String,
    /// User.
    #[arg(long, default_value = crate::secrets::ADMIN)]
    user: String,
    /// Password; better in a file or in the environment.
    #[arg(long, env = "FLEXMETER_PASSWORD", hide_env_values = true, default_value = "")]
    password: String,
    /// File with the password.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// How to print; a table on a terminal, CSV elsewhere.
    #[arg(long, value_enum)]
    format: Option<Format>,
}

/// Runs `sql`.
pub(crate) fn run(args: &SqlArgs) -> anyhow::Result<ExitCode> {
    let password = match &args.password_file {
        Some(file) => std::fs::read_to_string(file)
            .with_context(|| format!("--password-file {}", file.display()))?
            .trim_end()
            .to_owned(),
        None => args.password.clone(),
    };
    let runtime = tokio::runtime::Runtime::new()?;
    let started = Instant::now();
    let batches = runtime.block_on(async {
        let mut client = Client::connect(&args.url, &args.user, &password).await?;
        Ok::<_, anyhow::Error>(client.query(&args.statement).await?.batches)
    })?;
    let format = args.format.unwrap_or(if std::io::stdout().is_terminal() {
        Format::Table
    } else {
        Format::Csv
    });
    print(&batches, format)?;
    if format == Format::Table {
        let n_rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        eprintln!("{n_rows} rows in {:.3} s", started.elapsed().as_secs_f64());
    }
    Ok(ExitCode::SUCCESS)
}

fn print(batches: &[RecordBatch], format: Format) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match format {
        Format::Table => writeln!(out, "{}", arrow::util::pretty::pretty_format_batches(batches)?)?,
        Format::Csv => {
            let mut writer = arrow::csv::Writer::new(&mut out);
            for batch in batches {
                writer.write(batch)?;
            }
        }
        Format::Json => {
            let mut writer = arrow::json::LineDelimitedWriter::new(&mut out);
            for batch in batches {
                writer.write(batch)?;
            }
            writer.finish()?;
        }
        Format::Arrow => {
            if let Some(first) = batches.first() {
                let mut writer = arrow::ipc::writer::StreamWriter::try_new(&mut out, &first.schema())?;
                for batch in batches {
                    writer.write(batch)?;
                }
                writer.finish()?;
            }
        }
    }
    out.flush()?;
    Ok(())
}
