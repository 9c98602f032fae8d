//! Programs: shells that print, fail, complain, linger and leave others behind.

use std::time::{Duration, Instant};

use super::{SOON, agent, refused, texts, until_refused, until_stored};
use crate::support::eventually;

/// A source that runs this shell program, and more keys.
fn shell(program: &str, more: &str) -> String {
    format!("type = \"exec\"\ncommand = [\"sh\", \"-c\", '''{program}''']\n{more}")
}

#[test]
fn a_program_that_crashes_is_started_again() {
    let program =
        "echo \"$NAME in $PWD, run $(cat runs 2>/dev/null)\"; echo x >>runs; echo 'it hurts' >&2; kill -SEGV $$";
    let agent = agent(&shell(program, "env = { NAME = 'probe' }\nmax-backoff = \"200ms\""));
    until_stored(&agent, 3);
    until_refused(&agent, "program-failed", 3);
    let texts = texts(&agent);
    assert!(texts[0].starts_with("probe in /") && texts[0].ends_with("run "), "{texts:?}");
    assert!(texts[1].contains("run x"), "{texts:?}");
    let log = agent.log();
    assert!(log.contains("stderr: it hurts") && log.contains("`sh` ended with signal: 11 (SIGSEGV)"), "{log}");
}

#[test]
fn whether_it_is_started_again_is_configured() {
    for (restart, status, runs) in [("never", 3, 1), ("on-failure", 0, 1), ("on-failure", 3, 2), ("always", 0, 2)] {
        let program = format!("echo run; exit {status}");
        let agent = agent(&shell(&program, &format!("restart = \"{restart}\"\nmax-backoff = \"100ms\"")));
        until_stored(&agent, runs);
        if runs == 1 {
            eventually(SOON, "it is not started again", || agent.log().contains("is not started again"));
            assert_eq!(texts(&agent), ["run"], "{restart} {status}");
        }
        assert_eq!(refused(&agent, "program-failed") > 0, status != 0, "{restart} {status}");
    }
}

#[test]
fn it_is_run_at_intervals_and_ended_when_it_takes_too_long() {
    let program = "echo tick; if [ $(wc -l <ticks) = 3 ]; then sleep 1000; fi; echo >>ticks";
    let agent = agent(&shell(&format!("touch ticks; {program}"), "interval = \"200ms\"\ntimeout = \"1s\""));
    until_stored(&agent, 5);
    until_refused(&agent, "timeout", 1);
    assert!(texts(&agent).iter().all(|text| text == "tick"));
    assert!(agent.log().contains("`sh` took longer than 1s; ended"), "{}", agent.log());
}

#[test]
fn a_program_that_is_not_there_is_tried_again() {
    let agent = agent("type = \"exec\"\ncommand = [\"./probe\"]\nmax-backoff = \"200ms\"");
    until_refused(&agent, "cannot-start", 1);
    assert!(agent.log().contains("cannot start `./probe`: No such file or directory"), "{}", agent.log());
    let probe = agent.home().path().join("probe");
    std::fs::write(&probe, "#!/bin/sh\necho recovered\nexec sleep 1000\n").expect("written");
    // Without the right to run it at first.
    eventually(SOON, "it may not", || {
        agent.status().to_string().contains("Permission denied") || refused(&agent, "cannot-start") > 8
    });
    std::fs::set_permissions(&probe, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("its mode is set");
    until_stored(&agent, 1);
    assert_eq!(texts(&agent), ["recovered"]);
}

/// Processes whose command line has this in it.
fn running(mark: &str) -> usize {
    let processes = std::fs::read_dir("/proc").expect("procfs").flatten();
    let command_lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    command_lines.filter(|line| String::from_utf8_lossy(line).contains(mark)).count()
}

#[test]
fn a_stop_ends_the_whole_group_and_keeps_last_words() {
    // Its own sleeping time is its mark.
    let mark = format!("1000.{}", std::process::id());
    let program =
        format!("trap 'echo last words; exit 0' TERM; echo begun; sleep {mark} & (trap '' TERM; sleep {mark}) & wait");
    let mut agent = agent(&shell(&program, ""));
    until_stored(&agent, 1);
    eventually(SOON, "all of them run", || running(&mark) >= 2);
    let began = Instant::now();
    assert!(agent.terminate().success(), "{}", agent.log());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    eventually(SOON, "none of them is left", || running(&format!("sleep\0{mark}")) == 0);
    assert_eq!(texts(&agent), ["begun", "last words"]);
}

#[test]
fn a_flood_is_held_back_and_complaints_are_bounded() {
    let program = "i=0; while [ $i -lt 5000 ]; do echo complaint $i >&2; i=$((i+1)); done; \
                   head -c 10000000 /dev/zero | tr '\\0' x; echo; seq 1 20000; exec sleep 1000";
    let agent = agent(&shell(program, "max-frame = \"1KiB\""));
    until_stored(&agent, 20_000);
    assert_eq!(texts(&agent), (1..=20_000).map(|number| number.to_string()).collect::<Vec<_>>());
    assert_eq!(refused(&agent, "oversize"), 1);
    let told = agent.log().matches("stderr: complaint").count();
    assert!((1..=60).contains(&told), "{told} lines");
}

#[test]
fn garbage_and_half_a_frame_are_counted_and_what_is_whole_is_stored() {
    let program = r"printf '\004one\000\011no\000\377\376\000\004tw'; exec sleep 0.1";
    let agent = agent(&shell(program, "framing = \"cobs\"\nrestart = \"never\""));
    until_refused(&agent, "half-frame", 1);
    until_refused(&agent, "malformed", 2);
    assert_eq!(texts(&agent), ["one"]);
    assert!(agent.log().contains("a frame cannot be decoded; from ear"), "{}", agent.log());
}

#[test]
fn what_is_left_behind_does_not_hold_it_up() {
    let mark = format!("2000.{}", std::process::id());
    let agent = agent(&shell(&format!("sleep {mark} & echo done; exit 3"), "restart = \"never\""));
    until_stored(&agent, 1);
    until_refused(&agent, "program-failed", 1);
    eventually(SOON, "it is ended with its group", || running(&format!("sleep\0{mark}")) == 0);
}
