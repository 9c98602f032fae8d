//! Data directories that cannot be used as they are. One that is in use, or of a newer version, is in `lifecycle`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use crate::support::daemon::PATIENCE;
use crate::support::device::Version;
use crate::support::forebay::Home;
use crate::support::{Device, Forebay, Gateway, SmallDisk, Upstream};

/// The agent says in one line what is wrong with which path, and ends with 1.
#[track_caller]
fn cannot_start(home: &Home, path: &str, reason: &str) {
    let (code, said) = Forebay::start_and_fail(home);
    assert_eq!(code, Some(1), "{said}");
    let failed: Vec<_> = said.lines().filter(|line| line.starts_with("failed to ")).collect();
    assert!(failed.len() == 1 && !said.contains("panicked"), "{said}");
    assert!(failed[0].contains(path) && failed[0].contains(reason), "{said}");
}

#[test]
fn one_that_cannot_be_written_is_named_with_the_reason() {
    let upstream = Upstream::start();
    let gateway = Gateway::to(&upstream.endpoint());
    // Root may write anywhere unless its capabilities are taken away.
    let powerless = ["setpriv", "--inh-caps=-all", "--bounding-set=-all", "--"];
    let home = Home::new(&gateway.configuration());
    let home = if rustix::process::geteuid().is_root() { home.through(&powerless) } else { home };
    let data = home.path().join("data");

    fs::create_dir(&data).expect("a temporary directory takes a directory");
    fs::set_permissions(&data, Permissions::from_mode(0o500)).expect("it is ours");
    cannot_start(&home, "data", "Permission denied");
    assert_eq!(fs::read_dir(&data).expect("it can be read").count(), 0);

    fs::set_permissions(&data, Permissions::from_mode(0o700)).expect("it is ours");
    let _agent = Forebay::start_in(home, &[]);
    Device::connect(gateway.mqtt, Version::V311, "device").publish("plant/a", b"stored");
    upstream.wait_for(1, PATIENCE);
}

#[test]
fn a_log_on_a_read_only_file_system_is_left_alone() {
    let (upstream, disk) = (Upstream::start(), SmallDisk::new(32 << 20));
    upstream.link_down();
    let data_dir = disk.mount_point().join("data").display().to_string();
    let gateway = Gateway { data_dir: data_dir.clone(), ..Gateway::to(&upstream.endpoint()) };
    let mut agent = Forebay::start_in(Home::new(&gateway.configuration()).through(&disk.enter()), &[]);
    Device::connect(gateway.mqtt, Version::V311, "device").publish("plant/a", b"stored");
    assert!(agent.terminate().success(), "{}", agent.log());

    disk.remount("ro");
    cannot_start(agent.home(), &data_dir, "Read-only file system");

    disk.remount("rw");
    agent.start_again();
    upstream.link_up();
    upstream.wait_for(1, PATIENCE);
    assert_eq!(upstream.accepted()[0].data, b"stored");
}
