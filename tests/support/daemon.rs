//! A program that runs beside a test, and never longer than it.
//!
//! Each runs in a process group of its own, which is killed when the [`Daemon`] is dropped; should the test run itself
//! be killed, the kernel ends the program. What it prints goes to a file, whose end is shown when the test fails.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::wait::{eventually, eventually_some};

/// Lines of a program's log that a failing test shows.
const LOG_LINES_SHOWN: usize = 60;

/// For starting and stopping: ample for a machine that is busy with a build beside the tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A command that ends with this process. Environment, arguments and directory are the caller's to add.
pub(crate) fn command(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program.as_ref());
    command
}

/// A running program, its process group and its log.
pub(crate) struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Daemon {
    /// Starts a command made by [`command`]; what it prints is appended to the file `log`.
    pub(crate) fn spawn(name: &str, mut command: Command, log: &Path) -> Self {
        use std::os::unix::process::CommandExt as _;

        let printed = File::options()
            .create(true)
            .append(true)
            .open(log)
            .unwrap_or_else(|error| panic!("open {}: {error}", log.display()));
        let also = printed.try_clone().expect("a file handle can be doubled");
        command.stdin(Stdio::null()).stdout(printed).stderr(also).process_group(0);
        let child = spawn_from_lasting_thread(command).unwrap_or_else(|error| panic!("start {name}: {error}"));
        Self { name: name.to_owned(), child, log: log.to_owned(), ended: None }
    }

    /// Waits until `ready` holds; panics at once when the program ends instead.
    #[track_caller]
    pub(crate) fn wait_until(&mut self, what: &str, mut ready: impl FnMut() -> bool) {
        let started = Instant::now();
        eventually(PATIENCE, &format!("{} {what}", self.name), || {
            if let Some(status) = self.poll_exit() {
                panic!("{} ended with {status} after {:?} and never {what}", self.name, started.elapsed());
            }
            // Asked after the answer too: it must have come from this program, not from another on its port.
            ready() && self.poll_exit().is_none()
        });
    }

    /// The process id.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// How the program ended, if it did.
    pub(crate) fn poll_exit(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("the child is ours to wait for");
            if self.ended.is_some() {
                self.signal_group(Signal::KILL);
            }
        }
        self.ended
    }

    /// Asks the program (not its whole group) to end and waits for that.
    #[track_caller]
    pub(crate) fn terminate(&mut self, within: Duration) -> ExitStatus {
        if self.ended.is_none() {
            // It may have ended by itself in between, which the wait below finds out.
            let _ = kill_process(self.pid(), Signal::TERM);
        }
        self.wait_for_exit(within)
    }

    /// Sends a signal to the program, not to its whole group.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the child is ours to signal");
    }

    /// Waits for the program to end by itself.
    #[track_caller]
    pub(crate) fn wait_for_exit(&mut self, within: Duration) -> ExitStatus {
        let name = self.name.clone();
        eventually_some(within, &format!("{name} ends"), || self.poll_exit())
    }

    /// SIGKILL to the whole group, as a power cut would.
    pub(crate) fn kill9(&mut self) {
        if self.ended.is_none() {
            self.signal_group(Signal::KILL);
            self.ended = Some(self.child.wait().expect("the child is ours to wait for"));
        }
    }

    /// All that the program has printed since the test began.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    fn signal_group(&self, signal: Signal) {
        // Nobody left in the group is as good as killed.
        let _ = kill_process_group(self.pid(), signal);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill9();
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
            eprintln!(
                "--- end of the log of {} ({} of {} lines) ---\n{}\n---",
                self.name,
                shown.len(),
                lines.len(),
                shown.join("\n"),
            );
        }
    }
}

/// Whether somebody accepts connections there.
pub(crate) fn listens(address: SocketAddr) -> bool {
    std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

/// The kernel ends the child when the *thread* that started it does, and a test's thread may end before its daemon is
/// meant to; so one thread, which lasts as long as the process, starts them all.
fn spawn_from_lasting_thread(command: Command) -> io::Result<Child> {
    type Order = (Command, mpsc::Sender<io::Result<Child>>);
    static ORDERS: LazyLock<mpsc::Sender<Order>> = LazyLock::new(|| {
        let (orders, received) = mpsc::channel::<Order>();
        thread::Builder::new()
            .name("spawner".to_owned())
            .spawn(move || {
                for (mut command, answer) in received {
                    // Whoever ordered waits for it right below.
                    let _ = answer.send(command.spawn());
                }
            })
            .expect("a test process may start a thread");
        orders
    });
    let (answer, answered) = mpsc::channel();
    ORDERS.send((command, answer)).expect("the spawner never ends");
    answered.recv().expect("the spawner answers every order")
}
