//! The `journald` source with systemd's own programs: one makes the journal, the other reads it for the agent.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use serde_json::Value;

use crate::support::counterpart::program;
use crate::support::daemon::PATIENCE;
use crate::support::{Forebay, eventually, head};
use crate::tail_source::{Logs, source_status, stored, stored_count, texts, wait_stored};

/// Who writes a journal, as systemd-journald does.
struct Journal {
    folder: PathBuf,
    input: Option<ChildStdin>,
    child: Child,
    next: u64,
}

impl Journal {
    fn start(folder: &Path) -> Self {
        fs::create_dir(folder).expect("it is ours");
        let mut command = Command::new(program("systemd-journal-remote"));
        command.arg("--output").arg(folder.join("remote.journal")).arg("-").stdin(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("systemd-journal-remote can be started");
        let input = child.stdin.take();
        Self { folder: folder.to_owned(), input, child, next: 0 }
    }

    /// <https://systemd.io/JOURNAL_EXPORT_FORMATS/>
    fn write(&mut self, unit: &str, priority: u8, message: &str) {
        self.next += 1;
        let number = self.next;
        let entry = format!(
            "__REALTIME_TIMESTAMP={}\n__MONOTONIC_TIMESTAMP={number}\n_BOOT_ID=0123456789abcdef0123456789abcdef\n\
             MESSAGE={message}\nPRIORITY={priority}\n_SYSTEMD_UNIT={unit}\n_HOSTNAME=gw\nNUMBER={number}\n\n",
            1_700_000_000_000_000 + number,
        );
        let input = self.input.as_mut().expect("it is open");
        input.write_all(entry.as_bytes()).and_then(|()| input.flush()).expect("it reads");
    }

    fn configuration(&self, source: &str) -> String {
        format!(
            r#"
            {}
            [sources.logs]
            type = "journald"
            directory = "{}"
            journalctl = "{}"
            stream = "telemetry"
            max-backoff = "200ms"
            {source}
            "#,
            head(),
            self.folder.display(),
            program("journalctl").display(),
        )
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // It ends with its input.
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

fn messages(agent: &Forebay) -> Vec<String> {
    let message = |text: &String| {
        let entry: Value = serde_json::from_str(text).expect("entries are JSON");
        entry["MESSAGE"].as_str().expect("these are texts").to_owned()
    };
    texts(agent).iter().map(message).collect()
}

#[test]
fn entries_are_stored_once_over_twenty_kills() {
    let logs = Logs::new();
    let mut journal = Journal::start(&logs.path("journal"));
    let mut agent = Forebay::start(&journal.configuration(""));
    for round in 0..20 {
        for _ in 0..50 {
            let number = journal.next;
            journal.write("app.service", 6, &number.to_string());
        }
        if round % 2 == 0 {
            wait_stored(&agent, round * 50 + fastrand::u64(1..50));
        }
        agent.kill9();
        agent.start_again();
    }
    wait_stored(&agent, 1000);
    assert_eq!(messages(&agent), (0..1000).map(|number| number.to_string()).collect::<Vec<_>>());
    assert!(stored(&agent).iter().all(|(key, _)| key == "app.service"));
    assert!(agent.terminate().success());
}

#[test]
fn only_what_is_asked_for_comes_and_what_is_too_large_is_counted() {
    let logs = Logs::new();
    let mut journal = Journal::start(&logs.path("journal"));
    journal.write("app.service", 3, "old");
    eventually(PATIENCE, "the journal is there", || {
        let found = Command::new(program("journalctl")).arg("-q").arg("-D").arg(&journal.folder).output();
        found.is_ok_and(|output| !output.stdout.is_empty())
    });
    let source =
        "units = [\"app.service\", \"b.service\"]\npriority = \"warning\"\nstart = \"end\"\nmax-record = \"64KiB\"";
    let agent = Forebay::start(&journal.configuration(source));
    eventually(PATIENCE, "journalctl runs", || source_status(&agent)["connections"] == 1);
    journal.write("other.service", 3, "of another unit");
    journal.write("app.service", 6, "not urgent");
    journal.write("app.service", 3, &"x".repeat(100_000));
    journal.write("b.service", 4, "wanted");
    wait_stored(&agent, 1);
    assert_eq!(messages(&agent), ["wanted"]);
    assert_eq!(source_status(&agent)["refused"]["oversize"], 1);
    assert!(agent.log().contains("cursor \"s="), "{}", agent.log());
}

#[test]
fn a_program_that_is_not_there_or_ends_is_told_and_started_again() {
    let logs = Logs::new();
    let mut journal = Journal::start(&logs.path("journal"));
    let missing = logs.path("journalctl");
    let configuration =
        journal.configuration("").replace(&program("journalctl").display().to_string(), &missing.display().to_string());
    let agent = Forebay::start(&configuration);
    let error = || source_status(&agent)["last_error"]["message"].as_str().unwrap_or_default().to_owned();
    eventually(PATIENCE, "it is missed", || error().contains("No such file"));
    fs::write(&missing, "#!/bin/sh\necho 'no permission' >&2\nexit 3\n").expect("it is ours");
    fs::set_permissions(&missing, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("it is ours");
    eventually(PATIENCE, "its complaint is told", || error().contains("exit status: 3: no permission"));
    fs::remove_file(&missing).expect("it is ours");
    std::os::unix::fs::symlink(program("journalctl"), &missing).expect("it is ours");
    journal.write("app.service", 6, "at last");
    wait_stored(&agent, 1);
    assert_eq!((messages(&agent), stored_count(&agent)), (vec!["at last".to_owned()], 1));
}

#[test]
fn a_program_that_talks_nonsense_is_counted_and_what_is_an_entry_is_stored() {
    let logs = Logs::new();
    let journal = Journal::start(&logs.path("journal"));
    let babbler = logs.path("journalctl");
    let entry = r#"{"__CURSOR":"s=1","MESSAGE":"an entry"}"#;
    let nonsense = "head -c 10000000 /dev/zero | tr '\\0' x; echo; head -c 20000 /dev/urandom; echo; echo '{\"half\":'";
    fs::write(&babbler, format!("#!/bin/sh\n{nonsense}\necho '{entry}'\nexec sleep 1000\n")).expect("it is ours");
    fs::set_permissions(&babbler, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("it is ours");
    let configuration =
        journal.configuration("").replace(&program("journalctl").display().to_string(), &babbler.display().to_string());
    let agent = Forebay::start(&configuration);
    wait_stored(&agent, 1);
    assert_eq!(messages(&agent), ["an entry"]);
    let refused = source_status(&agent)["refused"].clone();
    assert!(refused["oversize"] == 1 && refused["malformed"].as_u64() > Some(1), "{refused}");
    assert!(agent.resident_bytes_peak() < 100 << 20, "{} bytes", agent.resident_bytes_peak());
}
