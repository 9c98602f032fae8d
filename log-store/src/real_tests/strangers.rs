//! Things in a data directory that are none of the log's: they keep nobody from opening it.

use std::fs;

use super::{ByHand, close_in_time, drain, open_in_time, store_config, stream_config};
use crate::{clock::manual::ManualClock, cursor::Start, event::Event, record::NewRecord};

#[test]
fn a_stray_file_among_the_streams_is_no_stream() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::create_dir_all(dir.path().join("streams")).expect("made");
    fs::write(dir.path().join("streams/junk"), b"junk").expect("written");
    let opened = open_in_time(store_config(dir.path()), stream_config("telemetry")).expect("opens");
    assert_eq!(opened.store.stream_names().expect("listed"), ["telemetry"]);
    assert_eq!(opened.store.note("junk").expect("looked for"), None);
    drop(opened.stream);
    close_in_time(opened.store);
    assert_eq!(fs::read(dir.path().join("streams/junk")).expect("left alone"), b"junk");
}

#[test]
fn what_has_a_segments_name_and_is_no_file_is_set_aside_and_never_opened() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = ByHand::open(store_config(dir.path()), ManualClock::new());
    let stream = store.stream(stream_config("telemetry"));
    store.append(&stream, &[NewRecord::new("key", b"one")]);
    drop(stream);
    store.close();
    let segments = dir.path().join("streams/telemetry");
    let [directory, pipe] = [77, 99].map(|number| segments.join(format!("{number:020}.seg")));
    fs::create_dir(&directory).expect("made");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).expect("made");
    for opening in 0..2 {
        let opened = open_in_time(store_config(dir.path()), stream_config("telemetry")).expect("opens");
        let damaged = |event: &&Event| matches!(event, Event::Damaged { records: None, .. });
        assert_eq!(opened.events.iter().filter(damaged).count(), if opening == 0 { 2 } else { 0 });
        assert_eq!(drain(opened.stream.cursor(Start::Oldest)).len(), 1);
        drop(opened.stream);
        close_in_time(opened.store);
    }
    assert!(directory.with_extension("broken").is_dir() && pipe.with_extension("broken").exists());
}
