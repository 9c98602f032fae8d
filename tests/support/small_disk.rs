//! A file system of a few megabytes, in which a data directory meets the end of its disk.
//!
//! It lives in memory and in a mount namespace of its own, so that nobody else ever sees it; a plain user gets it through a
//! user namespace. What runs on it is started through [`SmallDisk::enter`].

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::daemon::{Daemon, PATIENCE, command};
use super::wait::eventually;

/// A mounted file system; gone when dropped.
pub(crate) struct SmallDisk {
    holder: Daemon,
    mount_point: PathBuf,
    _dir: TempDir,
}

impl SmallDisk {
    /// Mounts an empty one.
    #[track_caller]
    pub(crate) fn new(bytes: u64) -> Self {
        let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("the build directory can be written");
        let mount_point = dir.path().join("disk");
        fs::create_dir(&mount_point).expect("a temporary directory takes a directory");
        let mut start = command("unshare");
        start.arg("--mount");
        if !is_root() {
            start.arg("--map-root-user");
        }
        let mount = format!("mount -t tmpfs -o size={bytes} small \"$1\" && echo mounted && exec sleep infinity");
        start.args(["sh", "-c", &mount, "sh"]).arg(&mount_point);
        let mut holder = Daemon::spawn("mount namespace", start, &dir.path().join("log"));
        let log = dir.path().join("log");
        holder.wait_until("has mounted", || fs::read_to_string(&log).is_ok_and(|log| log == "mounted\n"));
        Self { holder, mount_point, _dir: dir }
    }

    /// Where those who run on it see it.
    pub(crate) fn mount_point(&self) -> &Path {
        &self.mount_point
    }

    /// Where the test sees it.
    pub(crate) fn outside_path(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.pid()));
        root.join(self.mount_point.strip_prefix("/").expect("an absolute path"))
    }

    /// The command line in front of a program that is to run on it.
    pub(crate) fn enter(&self) -> Vec<String> {
        let mut enter = vec!["nsenter".to_owned(), format!("--target={}", self.holder.pid()), "--mount".to_owned()];
        if !is_root() {
            enter.extend(["--user".to_owned(), "--preserve-credentials".to_owned()]);
        }
        enter
    }

    /// Mounts it again with other options, such as `ro`.
    #[track_caller]
    pub(crate) fn remount(&self, options: &str) {
        let enter = self.enter();
        let mut remount = Command::new(&enter[0]);
        remount.args(&enter[1..]).args(["mount", "-o", &format!("remount,{options}")]).arg(&self.mount_point);
        let output = remount.stdin(Stdio::null()).output().expect("nsenter can be started");
        assert!(output.status.success(), "remount: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Bytes that can still be written.
    pub(crate) fn free_bytes(&self) -> u64 {
        let disk = rustix::fs::statvfs(self.outside_path()).expect("a mounted file system tells");
        disk.f_bavail * disk.f_frsize
    }

    /// Takes room away with a file of this many bytes.
    pub(crate) fn put_ballast(&self, bytes: u64) {
        let ballast = fs::File::create(self.ballast()).expect("a new file");
        rustix::fs::fallocate(&ballast, rustix::fs::FallocateFlags::empty(), 0, bytes).expect("there is so much room");
    }

    /// Gives that room back.
    pub(crate) fn drop_ballast(&self) {
        fs::remove_file(self.ballast()).expect("it was put there");
        eventually(PATIENCE, "the room is there again", || self.free_bytes() > 0);
    }

    fn ballast(&self) -> PathBuf {
        self.outside_path().join("ballast")
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
