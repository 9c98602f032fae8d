//! The real `forebay` binary: started, killed, restarted and asked.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::Pid;
use serde_json::Value;
use tempfile::TempDir;

use super::daemon::{Daemon, PATIENCE, command};
use super::http;
use super::python::without_aws_settings;

const BINARY: &str = env!("CARGO_BIN_EXE_forebay");

/// A running agent with a directory of its own. Relative paths in its configuration are meant from there.
pub(crate) struct Forebay {
    api: SocketAddr,
    environment: Vec<(String, String)>,
    daemon: Daemon,
    home: Home,
}

impl Forebay {
    /// Starts an agent with this configuration, which must say where `api.listen` is, and waits until it is ready.
    #[track_caller]
    pub(crate) fn start(configuration: &str) -> Self {
        Self::start_with(configuration, &[])
    }

    /// As [`Forebay::start`], with variables added to its environment.
    #[track_caller]
    pub(crate) fn start_with(configuration: &str, environment: &[(&str, &str)]) -> Self {
        Self::start_in(Home::new(configuration), environment)
    }

    /// Starts an agent in a directory that was made before, perhaps with something in it.
    #[track_caller]
    pub(crate) fn start_in(home: Home, environment: &[(&str, &str)]) -> Self {
        let environment: Vec<_> =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let api = api_address(&home.configuration());
        let daemon = spawn(&home, api, &environment);
        Self { api, environment, daemon, home }
    }

    /// Runs an agent that cannot start, to its end; gives its exit code and all that it printed.
    #[track_caller]
    pub(crate) fn start_and_fail(home: &Home) -> (Option<i32>, String) {
        let mut start = home.command(&["run", "--config"]);
        start.arg(home.configuration_file());
        let mut daemon = Daemon::spawn("forebay", start, &home.path().join("failing.log"));
        let status = daemon.wait_for_exit(PATIENCE);
        (status.code(), daemon.log())
    }

    /// SIGKILL, as a power cut would (of the process; what it wrote stays with the kernel).
    pub(crate) fn kill9(&mut self) {
        self.daemon.kill9();
    }

    /// SIGTERM, and waits for the graceful end.
    #[track_caller]
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.daemon.terminate(PATIENCE)
    }

    /// Starts it again after [`Forebay::kill9`] or [`Forebay::terminate`], with the configuration as the file now is.
    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        self.begin_again();
        self.wait_until_ready();
    }

    /// As [`Forebay::start_again`], but does not wait until it is ready.
    #[track_caller]
    pub(crate) fn begin_again(&mut self) {
        self.daemon.kill9();
        self.api = api_address(&self.home.configuration());
        self.daemon = begin(&self.home, &self.environment);
    }

    /// Waits until it takes and gives records.
    #[track_caller]
    pub(crate) fn wait_until_ready(&mut self) {
        wait_until_ready(&mut self.daemon, self.api);
    }

    /// Ends it in good order and starts it again.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        let status = self.terminate();
        assert!(status.success(), "forebay ended with {status} when asked to end");
        self.start_again();
    }

    /// Waits for the agent to end by itself.
    #[track_caller]
    pub(crate) fn wait_for_exit(&mut self, within: Duration) -> ExitStatus {
        self.daemon.wait_for_exit(within)
    }

    /// Its directory, configuration file and command line.
    pub(crate) fn home(&self) -> &Home {
        &self.home
    }

    /// Where its API listens.
    pub(crate) fn api(&self) -> SocketAddr {
        self.api
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Pid {
        self.daemon.pid()
    }

    /// `GET /status`
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        let answer = http::get(self.api, "/status").expect("a running agent answers /status");
        assert_eq!(answer.status, 200, "GET /status: {}", answer.body);
        serde_json::from_str(&answer.body).expect("/status is JSON")
    }

    /// Everything it has logged, over all its starts.
    pub(crate) fn log(&self) -> String {
        self.daemon.log()
    }

    /// Memory in use now (`VmRSS`), in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most memory that this process has used (`VmHWM`), in bytes.
    pub(crate) fn resident_bytes_peak(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, line: &str) -> u64 {
        let path = format!("/proc/{}/status", self.daemon.pid());
        let status = fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {path}: {error}"));
        let kibibytes = status
            .lines()
            .find_map(|found| found.strip_prefix(line))
            .and_then(|rest| rest.trim().strip_suffix(" kB"))
            .and_then(|number| number.parse::<u64>().ok())
            .unwrap_or_else(|| panic!("no line {line} in {path}"));
        kibibytes * 1024
    }
}

/// A directory with a configuration file, in which `forebay` commands run. It lies on the project's own disk, as a
/// temporary directory may be memory, and is left there for looking at when the test fails.
pub(crate) struct Home {
    dir: TempDir,
    /// Command line in front of each command.
    through: Vec<String>,
}

impl Home {
    pub(crate) fn new(configuration: &str) -> Self {
        let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("the build directory can be written");
        let home = Self { dir, through: Vec::new() };
        home.configure(configuration);
        home
    }

    /// Commands run through another program, such as one that takes rights away, with these arguments. Their working
    /// directory may then be another one.
    pub(crate) fn through(mut self, program_and_arguments: &[impl AsRef<str>]) -> Self {
        self.through = program_and_arguments.iter().map(|argument| argument.as_ref().to_owned()).collect();
        self
    }

    /// Replaces the configuration file.
    pub(crate) fn configure(&self, configuration: &str) {
        fs::write(self.configuration_file(), configuration).expect("a temporary directory takes a file");
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn configuration_file(&self) -> PathBuf {
        self.dir.path().join("forebay.toml")
    }

    /// Runs `forebay ARGUMENTS` there to its end.
    pub(crate) fn forebay(&self, arguments: &[&str]) -> Output {
        self.command(arguments).stdin(Stdio::null()).output().expect("forebay can be started")
    }

    /// As [`Home::forebay`], with something on its standard input.
    pub(crate) fn forebay_with_input(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("forebay can be started");
        let mut stdin = child.stdin.take().expect("its input is a pipe");
        // A command that ends without reading closes the pipe; its output then tells the story.
        let _ = stdin.write_all(input);
        drop(stdin);
        child.wait_with_output().expect("forebay can be waited for")
    }

    /// `forebay ARGUMENTS` there, not yet started; ends with the test run.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match self.through.split_first() {
            None => command(BINARY),
            Some((program, its_arguments)) => {
                let mut through = command(program);
                // Said again, because what changes its rights is no longer ended with this process.
                through.args(its_arguments).args(["setpriv", "--pdeathsig", "KILL", "--", BINARY]);
                through
            }
        };
        command.args(arguments).current_dir(self.path());
        without_aws_settings(&mut command);
        command
    }

    fn configuration(&self) -> String {
        fs::read_to_string(self.configuration_file()).expect("the configuration file is there")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if thread::panicking() {
            self.dir.disable_cleanup(true);
            eprintln!("left for looking at: {}", self.dir.path().display());
        }
    }
}

#[track_caller]
fn spawn(home: &Home, api: SocketAddr, environment: &[(String, String)]) -> Daemon {
    let mut daemon = begin(home, environment);
    wait_until_ready(&mut daemon, api);
    daemon
}

#[track_caller]
fn begin(home: &Home, environment: &[(String, String)]) -> Daemon {
    let mut start = home.command(&["run", "--config"]);
    start.arg(home.configuration_file());
    for (name, value) in environment {
        start.env(name, value);
    }
    Daemon::spawn("forebay", start, &home.path().join("forebay.log"))
}

#[track_caller]
fn wait_until_ready(daemon: &mut Daemon, api: SocketAddr) {
    daemon.wait_until("answers /healthz", || http::get(api, "/healthz").is_ok_and(|answer| answer.status == 200));
}

/// Read from the file as any TOML would be, so that a test writes the address only once.
#[track_caller]
fn api_address(configuration: &str) -> SocketAddr {
    let table: toml::Table = configuration.parse().unwrap_or_else(|error| panic!("{error}"));
    table
        .get("api")
        .and_then(|api| api.get("listen"))
        .and_then(toml::Value::as_str)
        .and_then(|address| address.parse().ok())
        .expect("a configuration that a test runs has `listen = \"ADDRESS:PORT\"` in its `[api]`")
}
