//! Programs that run beside a test.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::daemon::{Daemon, PATIENCE, command, listens};
use crate::support::http;
use crate::support::{Kinesalite, eventually, eventually_some, free_port};

#[test]
fn a_daemon_and_its_children_are_gone_after_it_is_dropped() {
    let dir = TempDir::new().unwrap();
    let mut start = command("sh");
    start.args(["-c", "sleep 1000 & echo child $!; wait"]);
    let daemon = Daemon::spawn("sh", start, &dir.path().join("log"));
    let child = eventually_some(PATIENCE, "the child is told", || {
        let log = daemon.log();
        log.strip_prefix("child ").and_then(|id| id.trim().parse::<u32>().ok())
    });
    let parent = daemon.pid().to_string();
    assert!(runs(&parent) && runs(&child.to_string()));

    drop(daemon);
    assert!(!runs(&parent));
    eventually(PATIENCE, "the child ends too", || !runs(&child.to_string()));
}

#[test]
fn a_daemon_that_ends_instead_of_getting_ready_is_told_at_once() {
    let dir = TempDir::new().unwrap();
    let mut start = command("sh");
    start.args(["-c", "echo no such file >&2; exit 3"]);
    let mut daemon = Daemon::spawn("broken", start, &dir.path().join("log"));
    let panic = catch_unwind(AssertUnwindSafe(|| daemon.wait_until("is ready", || false))).unwrap_err();
    let said = panic.downcast_ref::<String>().unwrap();
    assert!(said.contains("broken ended with exit status: 3") && said.contains("is ready"), "{said}");
    assert_eq!(daemon.log(), "no such file\n");
}

#[test]
fn a_terminated_daemon_gives_its_exit_status() {
    let dir = TempDir::new().unwrap();
    let mut start = command("sh");
    start.args(["-c", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done"]);
    let mut daemon = Daemon::spawn("sh", start, &dir.path().join("log"));
    eventually(PATIENCE, "it is ready", || daemon.log() == "ready\n");
    assert_eq!(daemon.terminate(PATIENCE).code(), Some(5));
}

#[test]
fn a_condition_that_never_holds_is_named_at_the_deadline() {
    let panic = catch_unwind(|| eventually(Duration::from_millis(30), "pigs fly", || false)).unwrap_err();
    assert_eq!(panic.downcast_ref::<String>().unwrap(), "not within 30ms: pigs fly");
}

#[test]
fn ports_are_handed_out_once() {
    let mut ports: Vec<u16> = (0..200).map(|_| free_port()).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 200);
}

#[test]
fn a_killed_server_no_longer_listens() {
    let mut server = Kinesalite::start();
    let address: SocketAddr = server.endpoint().trim_start_matches("http://").parse().unwrap();
    assert!(listens(address) && http::get(address, "/").is_ok());
    server.kill9();
    assert!(!listens(address) && http::get(address, "/").is_err());
}

fn runs(pid: &str) -> bool {
    Path::new("/proc").join(pid).exists()
}
