//! Python with boto3, for looking at a server through AWS's own client.

use std::process::Stdio;

use serde_json::Value;

use super::counterpart::program;
use super::daemon::command;

/// Runs a script with arguments and returns what it printed, one JSON value per line; panics with its traceback when it
/// fails. It finds credentials that no real account has, and none of the machine's own settings for AWS.
#[track_caller]
pub(crate) fn python(script: &str, arguments: &[&str]) -> Vec<Value> {
    python_with("python", script, arguments)
}

/// The same with another counterpart's Python, which has more libraries.
#[track_caller]
pub(crate) fn python_with(interpreter: &str, script: &str, arguments: &[&str]) -> Vec<Value> {
    let mut run = command(program(interpreter));
    run.arg("-c").arg(script).args(arguments).stdin(Stdio::null());
    without_aws_settings(&mut run);
    let output = run.output().expect("python can be started");
    assert!(
        output.status.success(),
        "python ended with {} for {arguments:?}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr),
    );
    String::from_utf8(output.stdout)
        .expect("the scripts print JSON, which is UTF-8")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in the line {line:?}")))
        .collect()
}

/// Takes the machine's own AWS settings away and gives credentials that open nothing.
pub(crate) fn without_aws_settings(command: &mut std::process::Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("AWS_") {
            command.env_remove(name);
        }
    }
    command
        .env("AWS_ACCESS_KEY_ID", "test-key")
        .env("AWS_SECRET_ACCESS_KEY", "test-secret")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
}
