//! Where the real programs are that the tests run against.

use std::path::{Path, PathBuf};

/// The path of an installed counterpart; panics with what to do when it is not there.
#[track_caller]
pub(crate) fn program(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.counterparts/bin").join(name);
    assert!(
        path.exists(),
        "{name} is not installed in .counterparts: run tests/run, or tests/counterparts/install, once",
    );
    path
}
