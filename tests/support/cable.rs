//! A serial cable: two pseudo-terminals that socat holds together. The agent has one end, the test the other.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use rustix::fs::OFlags;
use tempfile::TempDir;

use super::counterpart::program;
use super::daemon::{Daemon, command};

/// A cable that can be unplugged.
pub(crate) struct Cable {
    dir: TempDir,
    plugged: Option<(Daemon, File)>,
}

impl Cable {
    /// One that is plugged in.
    #[track_caller]
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().expect("a temporary directory can be made");
        let mut cable = Self { dir, plugged: None };
        cable.plug_in();
        cable
    }

    /// The agent's end: what `device` says.
    pub(crate) fn agent_end(&self) -> PathBuf {
        self.dir.path().join("agent")
    }

    /// The device's end.
    pub(crate) fn device_end(&self) -> PathBuf {
        self.dir.path().join("device")
    }

    /// Ends it without notice: both ends are gone, as when an adapter is pulled out.
    pub(crate) fn unplug(&mut self) {
        self.plugged = None;
        for end in [self.agent_end(), self.device_end()] {
            fs::remove_file(end).expect("the link is there");
        }
    }

    /// Plugs it in (again).
    #[track_caller]
    pub(crate) fn plug_in(&mut self) {
        let (agent, device) = (self.agent_end(), self.device_end());
        let mut start = command(program("socat"));
        for end in [&agent, &device] {
            start.arg(format!("pty,raw,echo=0,link={}", end.display()));
        }
        let mut socat = Daemon::spawn("socat", start, &self.dir.path().join("log"));
        socat.wait_until("makes both ends", || agent.exists() && device.exists());
        // It ends once an end that was open is closed: so ours stays open.
        let opened = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlags::NOCTTY.bits() as i32)
            .open(&device)
            .expect("the end is ours");
        self.plugged = Some((socat, opened));
    }

    /// The device says something.
    #[track_caller]
    pub(crate) fn say(&self, bytes: &[u8]) {
        let (_, device) = self.plugged.as_ref().expect("it is plugged in");
        (&*device).write_all(bytes).expect("the cable takes it");
    }

    /// The device hears as many bytes; for ever if they do not come.
    pub(crate) fn hear(&self, bytes: usize) -> Vec<u8> {
        let (_, device) = self.plugged.as_ref().expect("it is plugged in");
        let mut heard = vec![0; bytes];
        (&*device).read_exact(&mut heard).expect("the cable brings it");
        heard
    }
}
