//! A gateway's own network: a namespace with one cable to this machine, and a resolver of its own.
//!
//! It takes root. It lives as long as the process that holds it and leaves nothing behind, whatever becomes of the test.
//! Programs run in it through [`Network::enter`], and the test's own sockets are in it while [`Network::inside`].

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

use super::daemon::{Daemon, command};

/// Cables that may be plugged in at the same time.
const CABLES: u32 = 1 << 14;

/// A resolver that nobody hears, asked once and briefly.
const NOWHERE: &str = "nameserver 192.0.2.53\noptions timeout:1 attempts:1\n";

/// Its end of the cable, inside.
const INTERFACE: &str = "uplink";

/// The namespace; gone when dropped.
pub(crate) struct Network {
    holder: Daemon,
    /// This machine's end of the cable.
    cable: String,
    outside: Ipv4Addr,
    dir: TempDir,
}

impl Network {
    /// One that reaches this machine, and in which names lead nowhere.
    #[track_caller]
    pub(crate) fn new() -> Self {
        // Somebody's data directory lies there, so it is not in memory.
        let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("the build directory can be written");
        fs::write(dir.path().join("hosts"), "127.0.0.1 localhost\n").expect("a new directory takes a file");
        fs::write(dir.path().join("resolv.conf"), NOWHERE).expect("a new directory takes a file");
        let log = dir.path().join("log");
        let mut start = command("unshare");
        start.args(["--net", "--mount", "sh", "-c"]);
        start.arg(
            "ip link set lo up && for file in hosts resolv.conf; do mount --bind \"$1/$file\" \"/etc/$file\" || exit; done \
             && echo ready && exec sleep infinity",
        );
        start.arg("sh").arg(dir.path());
        let mut holder = Daemon::spawn("network namespace (which takes root)", start, &log);
        holder.wait_until("is ready", || fs::read_to_string(&log).is_ok_and(|log| log == "ready\n"));
        let (cable, outside, inside) = plug_in(&holder);
        let network = Self { holder, cable, outside, dir };
        for set in [
            format!("addr add {inside}/30 dev {INTERFACE}"),
            format!("link set {INTERFACE} up"),
            format!("route add default via {outside}"),
        ] {
            network.ip_inside(&set);
        }
        network
    }

    /// This machine, as it is seen from inside.
    pub(crate) fn outside(&self) -> Ipv4Addr {
        self.outside
    }

    /// A directory for what runs inside.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The command line in front of a program that is to run inside.
    pub(crate) fn enter(&self) -> Vec<String> {
        ["nsenter", &format!("--target={}", self.holder.pid()), "--net", "--mount"].map(str::to_owned).into()
    }

    /// Does something on a thread whose sockets, and those of its children, are inside.
    #[track_caller]
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = PathBuf::from(format!("/proc/{}/ns/net", self.holder.pid()));
        let namespace = File::open(path).expect("a living process has a network namespace");
        thread::scope(|scope| {
            // It has the test's name, which a panic tells.
            let named = thread::Builder::new().name(thread::current().name().unwrap_or("inside").to_owned());
            let inside = named.spawn_scoped(scope, || {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may enter");
                work()
            });
            let done = inside.expect("a test process may start a thread").join();
            done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Says that a name is this machine's; without that, nobody knows any.
    pub(crate) fn name(&self, name: &str) {
        // Written in place: what is mounted is this very file.
        let hosts = format!("127.0.0.1 localhost\n{} {name}\n", self.outside);
        fs::write(self.dir.path().join("hosts"), hosts).expect("a file of ours");
    }

    /// Forgets all names.
    pub(crate) fn forget_names(&self) {
        fs::write(self.dir.path().join("hosts"), "127.0.0.1 localhost\n").expect("a file of ours");
    }

    /// Takes the interface down: there is no route to anywhere.
    pub(crate) fn interface_down(&self) {
        self.ip_inside(&format!("link set {INTERFACE} down"));
    }

    /// Brings it up again, with its routes.
    pub(crate) fn interface_up(&self) {
        self.ip_inside(&format!("link set {INTERFACE} up"));
        self.ip_inside(&format!("route replace default via {}", self.outside));
    }

    /// Pulls the cable at the other end: what is sent is heard by nobody.
    pub(crate) fn unplug(&self) {
        ip(&["link", "set", &self.cable, "down"]);
    }

    /// Plugs it in again.
    pub(crate) fn plug(&self) {
        ip(&["link", "set", &self.cable, "up"]);
    }

    /// What `tc` does with what leaves the gateway, such as `tbf rate 20kbit burst 2kb latency 1s`.
    pub(crate) fn shape(&self, discipline: &str) {
        let arguments = format!("qdisc replace dev {INTERFACE} root {discipline}");
        self.run_inside("tc", &arguments);
    }

    /// The end of that.
    pub(crate) fn unshape(&self) {
        self.run_inside("tc", &format!("qdisc del dev {INTERFACE} root"));
    }

    fn ip_inside(&self, arguments: &str) {
        self.run_inside("ip", arguments);
    }

    fn run_inside(&self, program: &str, arguments: &str) {
        let enter = self.enter();
        let mut run = Command::new(&enter[0]);
        run.args(&enter[1..]).arg(program).args(arguments.split(' '));
        succeed(run);
    }
}

/// A cable between this machine and the holder's namespace; its name, and the addresses of both ends.
fn plug_in(holder: &Daemon) -> (String, Ipv4Addr, Ipv4Addr) {
    // Whoever else runs tests on this machine took a cable of another number: a name is given only once.
    let first = std::process::id().wrapping_mul(97);
    for number in (0..CABLES).map(|next| first.wrapping_add(next) % CABLES) {
        let cable = format!("forebay{number}");
        let mut add = Command::new("ip");
        add.args(["link", "add", &cable, "type", "veth", "peer", "name", INTERFACE]);
        add.arg("netns").arg(holder.pid().to_string());
        let output = add.output().expect("ip can be started");
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            assert!(said.contains("File exists"), "ip link add: {said}");
            continue;
        }
        // A network of four addresses each, in a range that hardly anybody uses.
        let address = |host: u32| Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 213, 0, 0)) + number * 4 + host);
        ip(&["addr", "add", &format!("{}/30", address(1)), "dev", &cable]);
        ip(&["link", "set", &cable, "up"]);
        return (cable, address(1), address(2));
    }
    panic!("all {CABLES} cables are in use");
}

/// On this machine, from wherever the calling thread is: the process's first thread never goes inside.
fn ip(arguments: &[&str]) {
    let mut run = Command::new("nsenter");
    run.arg(format!("--target={}", std::process::id())).args(["--net", "ip"]).args(arguments);
    succeed(run);
}

fn succeed(mut command: Command) {
    let output = command.output().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
