//! Data directories that cannot be opened, and say why.

use std::fs;

use super::{ByHand, close_in_time, open_in_time, store_config, stream_config};
use crate::{
    catalogue::{Catalogue, open_sled},
    clock::manual::ManualClock,
    error::Error,
    inspect::{Depth, FindingKind, dump, repair, stats, verify},
    record::NewRecord,
    segment::FORMAT_VERSION,
    sequence::SequenceNumber,
};

#[test]
fn a_data_directory_in_use_is_refused_and_free_again_after_the_close() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let first = open_in_time(store_config(dir.path()), stream_config("telemetry")).expect("opens");
    let Err(error) = open_in_time(store_config(dir.path()), stream_config("telemetry")) else { panic!("two at once") };
    assert!(matches!(&error, Error::InUse { path } if path == dir.path()), "{error}");
    assert!(error.to_string().contains(&dir.path().display().to_string()), "{error}");
    let error = repair(dir.path(), None, false).expect_err("it is open");
    assert!(matches!(&error, Error::InUse { path } if path == dir.path()), "{error}");
    // Looking at it needs no lock.
    assert_eq!(verify(dir.path(), None, Depth::Records).expect("readable").streams.len(), 1);
    drop(first.stream);
    close_in_time(first.store);
    let again = open_in_time(store_config(dir.path()), stream_config("telemetry")).expect("opens again");
    close_in_time(again.store);
}

#[test]
fn a_data_directory_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("file");
    fs::write(&file, b"").expect("written");
    // Not even root writes into /proc.
    for refused in [file.join("data"), "/proc/forebay".into()] {
        let Err(error) = open_in_time(store_config(&refused), stream_config("telemetry")) else { panic!("opened") };
        assert!(matches!(error, Error::Io { .. }), "{error}");
        assert!(error.to_string().contains(&refused.display().to_string()), "{error}");
    }
}

/// A closed data directory with one record.
fn small() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = ByHand::open(store_config(dir.path()), ManualClock::new());
    let stream = store.stream(stream_config("telemetry"));
    store.append(&stream, &[NewRecord::new("key", b"data")]);
    store.close();
    dir
}

#[test]
fn a_newer_segment_is_refused_and_left_alone() {
    let dir = small();
    let path = dir.path().join("streams/telemetry/00000000000000000001.seg");
    let mut bytes = fs::read(&path).expect("read");
    // As a newer program would write it, with its own checksum.
    bytes[4] = FORMAT_VERSION as u8 + 1;
    let definition_end = 56 + u32::from_le_bytes(bytes[8..12].try_into().expect("four bytes")) as usize;
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes[..52]);
    crc.update(&bytes[56..definition_end]);
    bytes[52..56].copy_from_slice(&crc.finalize().to_le_bytes());
    fs::write(&path, &bytes).expect("written");
    for catalogue in [true, false] {
        if !catalogue {
            fs::remove_dir_all(dir.path().join("catalogue")).expect("removed");
        }
        let Err(error) = open_in_time(store_config(dir.path()), stream_config("telemetry")) else { panic!("opened") };
        let Error::NewerFormat { found, known: FORMAT_VERSION, path: named } = &error else { panic!("{error}") };
        assert_eq!((*found, named), (FORMAT_VERSION + 1, &path));
        assert_eq!(fs::read(&path).expect("read"), bytes);
    }
    let report = verify(dir.path(), None, Depth::Records).expect("readable");
    assert!(!report.is_sound() && report.streams[0].findings[0].what.contains("newer"), "{report:?}");
}

#[test]
fn a_newer_catalogue_is_refused_and_left_alone() {
    let dir = small();
    // The way that the log opens it: whoever had it open just now may not have let go of its lock yet.
    let db = open_sled(&dir.path().join("catalogue")).expect("opens");
    db.put(b"format", &[Catalogue::FORMAT_VERSION as u8 + 1]).expect("taken");
    drop(db);
    let Err(error) = open_in_time(store_config(dir.path()), stream_config("telemetry")) else { panic!("opened") };
    assert!(matches!(error, Error::NewerFormat { known: Catalogue::FORMAT_VERSION, .. }), "{error}");
    assert!(error.to_string().contains("catalogue"), "{error}");
    let names: Vec<_> =
        fs::read_dir(dir.path()).expect("listed").map(|entry| entry.expect("listed").file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().contains("broken")), "{names:?}");
}

#[test]
fn what_is_no_data_directory_is_named_and_nothing_is_made_there() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let wrong_ones =
        [(dir.path().to_owned(), "it is no data directory"), (dir.path().join("nothing"), "it does not exist")];
    for (wrong, reason) in wrong_ones {
        let said = format!("{}: {reason}", wrong.display());
        let error = verify(&wrong, None, Depth::Records).expect_err("no data directory");
        assert!(error.to_string().contains(&said), "{error}");
        let error = repair(&wrong, None, false).expect_err("no data directory");
        assert!(error.to_string().contains(&said), "{error}");
        dump(&wrong, "telemetry", SequenceNumber::ZERO, None, |_| panic!("nothing to show"))
            .expect_err("no data directory");
    }
    assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 0);
    let small = small();
    let error = dump(small.path(), "other", SequenceNumber::ZERO, None, |_| panic!("nothing to show"));
    let error = error.expect_err("no such stream").to_string();
    assert!(error.contains("streams/other") && error.contains("no such stream"), "{error}");
}

#[test]
fn a_stream_that_is_not_there_is_named_by_every_look_and_repair() {
    let dir = small();
    let (dir, wanted) = (dir.path(), Some("telemetri"));
    let errors = [
        verify(dir, wanted, Depth::Records).map(drop),
        stats(dir, wanted).map(drop),
        repair(dir, wanted, true).map(drop),
        dump(dir, "telemetri", SequenceNumber::ZERO, None, |_| panic!("nothing to show")),
    ];
    for error in errors {
        let error = error.expect_err("there is none").to_string();
        assert!(error.contains("telemetri") && error.contains("there is no such stream"), "{error}");
    }
}

#[test]
fn what_is_no_regular_file_is_not_opened() {
    let dir = small();
    let stream = dir.path().join("streams/telemetry");
    let pipe = stream.join("00000000000000000009.seg");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).expect("made");
    fs::create_dir(stream.join("00000000000000000010.seg")).expect("made");
    let (tell, told) = std::sync::mpsc::channel();
    let looked = dir.path().to_owned();
    std::thread::spawn(move || {
        let found = verify(&looked, None, Depth::Checksums).expect("readable");
        let _ = tell.send((found, repair(&looked, None, false).expect("it is closed")));
    });
    let (found, done) = told.recv_timeout(super::DEADLINE).expect("it does not wait for the pipe");
    let unreadable = |findings: &[crate::inspect::Finding]| {
        findings.iter().filter(|f| f.kind == FindingKind::Unreadable && f.what.contains("no regular file")).count()
    };
    assert_eq!((found.is_sound(), found.streams[0].records), (false, 1));
    assert_eq!((unreadable(&found.streams[0].findings), unreadable(&done.left)), (2, 2), "{found:?}");
    assert!(pipe.exists());
}
