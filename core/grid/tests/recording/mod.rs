//! The files of a recording, for the tests of this crate and of the street.

#![allow(dead_code, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use flexmeter_grid::bundle::Bundle;

/// Names another folder of recordings; the default is beside the repository.
const FOLDER_VARIABLE: &str = "FLEXMETER_TEST_DATA";

/// The folder of a recording; says on stderr, past the test runner, when it is not there. `root` leads from the crate to the repository.
pub(crate) fn folder(root: &str, name: &str, test: &str) -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join(root).join("../shared/data");
    let path = std::env::var_os(FOLDER_VARIABLE).map_or_else(beside, PathBuf::from).join(name);
    if path.join("network.json").exists() {
        return Some(path);
    }
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {} is not there", path.display());
    None
}

pub(crate) fn text(folder: &Path, file: &str) -> String {
    std::fs::read_to_string(folder.join(file)).unwrap()
}

pub(crate) fn gunzip(folder: &Path, file: &str) -> String {
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(folder.join(file)).unwrap())
        .read_to_string(&mut text)
        .unwrap();
    text
}

pub(crate) fn bundle(folder: &Path) -> Bundle {
    let [areas, meters, switches] = ["areas.csv", "meters.csv", "switches.csv"].map(|file| text(folder, file));
    Bundle::from_texts(&text(folder, "network.json"), &areas, &meters, &switches).unwrap()
}
