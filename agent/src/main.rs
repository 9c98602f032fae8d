//! The `forebay` binary; see the library for everything.

use std::process::ExitCode;

fn main() -> ExitCode {
    forebay::cli::main()
}
