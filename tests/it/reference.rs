//! `docs/reference/` is what the code says. These tests render the pages and compare them; `cargo xtask docs` runs them with a variable
//! set that makes them write instead.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use flexmeter_model::Identifier;
use flexmeter_model::outcome::ReasonCode;
use flexmeter_tables::TABLES;
use serde_json::Value;

use crate::server::{FLEXMETER, Server};

const WRITE_VARIABLE: &str = "FLEXMETER_WRITE_REFERENCE";
const NOTE: &str = "<!-- Generated from code by `cargo xtask docs`; edits here are lost. -->\n";

fn check(page: &str, rendered: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference").join(page);
    if std::env::var_os(WRITE_VARIABLE).is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, rendered).unwrap();
        return;
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    let stale = written
        .lines()
        .zip(rendered.lines())
        .find(|(written, rendered)| written != rendered);
    assert!(
        written == rendered,
        "docs/reference/{page} is not what the code says; run `cargo xtask docs` ({stale:?})"
    );
}

/// A text inside a Markdown table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[test]
fn the_tables_page_is_current() {
    let mut page = format!(
        "{NOTE}\n# Tables\n\nEvery session sees these in the schema of its tenant; `SHOW TABLES` and `information_schema` say the same.\n"
    );
    for table in TABLES {
        write!(
            page,
            "\n## `{}`\n\n{}. Kind: {}.\n\n",
            table.name,
            table.comment,
            table.kind.as_str()
        )
        .unwrap();
        page.push_str("| column | type | null | meaning |\n|---|---|---|---|\n");
        for column in table.columns {
            let null = if column.nullable { "yes" } else { "" };
            writeln!(
                page,
                "| `{}` | {} | {null} | {} |",
                column.name,
                column.column_type.arrow(),
                cell(column.comment)
            )
            .unwrap();
        }
        if table.in_lake() && !table.lake_columns.is_empty() {
            let columns: Vec<String> = table
                .lake_columns
                .iter()
                .map(|column| format!("`{}` ({})", column.name, cell(column.comment)))
                .collect();
            write!(page, "\nOnly in the lake: {}.\n", columns.join(", ")).unwrap();
        }
    }
    page.push_str("\nEvery table of the lake is partitioned by `day` (UTC).\n\n## Codes of `rejections.reason`\n\n");
    for code in ReasonCode::ALL {
        writeln!(page, "- `{}`", code.as_str()).unwrap();
    }
    check("tables.md", &page);
}

#[test]
fn the_identifiers_page_is_current() {
    let mut page = format!(
        "{NOTE}\n# Measurement identifiers\n\nThe {} names of D4.6, Table 2. A value outside its range is rejected as `out_of_range`, any other name as `unknown_identifier`.\n\n",
        Identifier::COUNT
    );
    page.push_str("| identifier | unit | least | greatest | meaning |\n|---|---|---|---|---|\n");
    for identifier in Identifier::ALL {
        let (least, greatest) = identifier.range();
        writeln!(
            page,
            "| `{}` | {} | {least} | {greatest} | {} |",
            identifier.name(),
            cell(identifier.unit()),
            cell(identifier.meaning())
        )
        .unwrap();
    }
    check("identifiers.md", &page);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_page_is_current() {
    let server = Server::insecure();
    let (status, document) = server.get("/api/openapi.json").await;
    assert_eq!(status, 200, "{document}");
    let document: Value = serde_json::from_str(&document).unwrap();
    assert!(
        document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")),
        "{}",
        document["openapi"]
    );
    let mut page = format!(
        "{NOTE}\n# REST\n\nThe whole contract is served at `/api/openapi.json` (OpenAPI 3.1). Errors are RFC 9457 problem details.\n\n"
    );
    page.push_str("| request | what it does | parameters |\n|---|---|---|\n");
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap().iter().filter(|(method, _)| is_method(method)) {
            let parameters: Vec<&str> = operation["parameters"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|parameter| parameter["name"].as_str())
                .collect();
            let parameters = if parameters.is_empty() {
                String::new()
            } else {
                format!("`{}`", parameters.join("`, `"))
            };
            let summary = operation["summary"].as_str().unwrap_or_default();
            writeln!(page, "| `{} {path}` | {} | {parameters} |", method.to_uppercase(), cell(summary)).unwrap();
        }
    }
    check("rest.md", &page);
}

fn is_method(name: &str) -> bool {
    matches!(name, "get" | "put" | "post" | "delete" | "patch" | "head" | "options")
}

#[test]
fn the_example_configuration_holds_every_key_with_its_default() {
    let folder = tempfile::tempdir().unwrap();
    let print = |arguments: &[&str]| {
        let output = Command::new(FLEXMETER)
            .args(["config", "print"])
            .args(arguments)
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        toml::from_str::<toml::Table>(&String::from_utf8(output.stdout).unwrap()).unwrap()
    };
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("flexmeter.example.toml");
    let text = std::fs::read_to_string(&example).unwrap();
    let defaults = print(&[]);
    assert_eq!(
        print(&["--config", example.to_str().unwrap()]),
        defaults,
        "the example does not show the defaults"
    );
    // keys without a default (file names and addresses) stand in the example as comments
    let mut missing = Vec::new();
    collect_keys("", &toml::Value::Table(defaults), &mut missing);
    missing.retain(|key| !has_key(&text, key));
    assert!(missing.is_empty(), "flexmeter.example.toml does not mention {missing:?}");
}

fn collect_keys(section: &str, value: &toml::Value, keys: &mut Vec<String>) {
    let toml::Value::Table(table) = value else { return };
    for (key, value) in table {
        let path = if section.is_empty() {
            key.clone()
        } else {
            format!("{section}.{key}")
        };
        if value.is_table() {
            collect_keys(&path, value, keys)
        } else {
            keys.push(path)
        }
    }
}

/// Whether a line of the file, perhaps a comment, sets a key in its section.
fn has_key(text: &str, path: &str) -> bool {
    let (section, key) = path.rsplit_once('.').unwrap_or(("", path));
    let mut here = "";
    for line in text.lines() {
        let line = line.trim_start_matches(['#', ' ']);
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            here = name;
        } else if here == section && line.split('=').next().is_some_and(|name| name.trim() == key) {
            return true;
        }
    }
    false
}
