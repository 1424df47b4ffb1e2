//! Every command in the README is run, so that a newcomer's first ten minutes work.
//!
//! A command is a line of a ```` ```sh ```` block (a trailing backslash continues it, a here-document belongs to it). It runs in bash with
//! the binary under test in place of `flexmeter` and `cargo run -p flexmeter --`, and with the ports of a server of its own.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::foreign;
use crate::server::{FLEXMETER, Server};
use crate::skipped;

/// Commands that would run these tests, or the CI, inside themselves; both are what runs this very test.
const RUNNING_NOW: [&str; 2] = ["cargo test", "cargo xtask"];
const APPLIED_DEADLINE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_readme_works() {
    let server = Server::with(&[("grid.bundle", concat!(env!("CARGO_MANIFEST_DIR"), "/examples/grid"))]);
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let commands = commands(&readme);
    assert!(commands.len() >= 6, "the README has lost its commands: {commands:#?}");
    for command in &commands {
        if RUNNING_NOW.iter().any(|prefix| command.starts_with(prefix)) {
            continue;
        }
        run(&server, command);
        if command.starts_with("mosquitto_pub") && foreign::has_program("mosquitto_pub", "--help") {
            server
                .wait_for_count(
                    "SELECT CASE WHEN count(*) > 0 THEN 1 ELSE 0 END FROM measurements",
                    1,
                    APPLIED_DEADLINE,
                )
                .await;
        }
    }
}

fn run(server: &Server, command: &str) {
    let program = command.split_whitespace().next().unwrap_or_default();
    let is_ours = matches!(program, "flexmeter" | "cargo");
    let is_there = is_ours
        || if program == "python3" {
            foreign::python().is_some()
        } else {
            foreign::has_program("which", program)
        };
    if !is_there {
        return skipped(command, &format!("no {program}"));
    }
    let output = Command::new("timeout")
        .args(["120", "bash", "-c", &adapt(server, command)])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success(),
        "README command failed ({}):\n{command}\n{stdout}\n{stderr}",
        output.status
    );
}

/// The command with this machine's binary, ports and Python.
fn adapt(server: &Server, command: &str) -> String {
    let addresses = server.addresses();
    let command = command.replace("cargo run -p flexmeter --", FLEXMETER);
    let command = match command.strip_prefix("flexmeter ") {
        Some(rest) => format!("{FLEXMETER} {rest}"),
        None => command,
    };
    let command = match (command.strip_prefix("python3 "), foreign::python()) {
        (Some(rest), Some(python)) => format!("{} {rest}", python.display()),
        _ => command,
    };
    // our own commands take the default address, so it is written out; a demo ends by itself
    let command = if command.contains(" sql ") {
        format!("{command} --url http://{}", addresses.flight)
    } else {
        command
    };
    let command = if command.ends_with(" demo") {
        format!("{command} --check")
    } else {
        command
    };
    command
        .replace("-p 1883", &format!("-p {}", addresses.mqtt.port()))
        .replace("127.0.0.1:1883", &addresses.mqtt.to_string())
        .replace("127.0.0.1:8080", &addresses.rest.to_string())
        .replace("127.0.0.1:50051", &addresses.flight.to_string())
}

fn commands(markdown: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut lines = markdown.lines();
    while let Some(line) = lines.next() {
        if line != "```sh" {
            continue;
        }
        let mut open: Option<String> = None;
        let mut end_word: Option<String> = None;
        for line in lines.by_ref().take_while(|line| *line != "```") {
            if open.is_none() && (line.is_empty() || line.starts_with('#')) {
                continue;
            }
            let command = open.get_or_insert_default();
            if !command.is_empty() {
                command.push('\n');
            }
            command.push_str(line);
            if end_word.is_none() {
                end_word = line.split_once("<<").map(|(_, word)| word.trim().trim_matches('\'').to_owned());
            } else if end_word.as_deref() == Some(line) {
                end_word = None;
            }
            if end_word.is_none() && !line.ends_with('\\') {
                commands.extend(open.take());
            }
        }
    }
    // a comment after a command is for the reader
    commands
        .into_iter()
        .map(|command| command.split("  #").next().unwrap_or_default().trim_end().to_owned())
        .collect()
}

#[test]
fn commands_are_lines_continued_lines_and_here_documents() {
    let markdown =
        "text\n```sh\n# a comment\nfirst one  # why\n\nsecond \\\n  line\npython3 - <<'END'\nprint(1)\nEND\nlast\n```\n```\nnot me\n```\n";
    assert_eq!(
        commands(markdown),
        ["first one", "second \\\n  line", "python3 - <<'END'\nprint(1)\nEND", "last"]
    );
}
