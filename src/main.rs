//! The `flexmeter` binary.
fn main() {}
