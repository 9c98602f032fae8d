//! The `sensor` source: a tree of files that stands in for sysfs, and the machine's own.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;

use crate::serial_source::{configuration, status, stored, wait_records, wait_refused};
use crate::support::daemon::PATIENCE;
use crate::support::forebay::Home;
use crate::support::{Forebay, eventually};

/// Nothing is connected to, so nothing is tried again.
fn polled(name: &str, keys: String) -> String {
    configuration(&[(name, keys)]).replace("max-backoff = \"200ms\"", "")
}

/// The last values that were stored of a sensor, and how many records there are of it.
fn newest(agent: &Forebay, sensor: &str) -> (usize, Value) {
    let records = stored(agent).remove(sensor).unwrap_or_default();
    let newest = records.last().map_or(Value::Null, |data| serde_json::from_slice(data).expect("JSON"));
    (records.len(), newest)
}

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("one")).expect("made");
    // Replaced in one step: it may be read at this moment.
    let new = path.with_extension("new");
    fs::write(&new, text).and_then(|()| fs::rename(&new, &path)).expect("written");
}

#[test]
fn a_tree_of_files_is_read_changes_are_reported_and_what_breaks_holds_up_nothing() {
    let tree = tempfile::TempDir::new().expect("a temporary directory can be made");
    let root = tree.path();
    for (path, text) in [
        ("sys/class/hwmon/hwmon0/name", "cpu_thermal\n"),
        ("sys/class/hwmon/hwmon0/temp1_input", "48312\n"),
        ("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n"),
        ("sys/class/thermal/thermal_zone0/temp", "48312\n"),
        ("sys/bus/iio/devices/iio:device0/name", "bme280\n"),
        ("sys/bus/iio/devices/iio:device0/in_temp_input", "21500\n"),
        ("sys/bus/iio/devices/iio:device0/in_humidityrelative_input", "45250\n"),
        ("sys/bus/w1/devices/28-000005e2fdc3/w1_slave", "4b : crc=57 YES\n4b t=4125\n"),
        ("sys/bus/w1/devices/28-000005e2fdc4/w1_slave", "4b : crc=57 NO\n4b t=85000\n"),
        ("proc/loadavg", "0.50 0.25 0.10 1/100 4242\n"),
    ] {
        write(root, path, text);
    }
    let source = format!(
        "type = \"sensor\"\nroot = \"{}\"\nread = [\"hwmon\", \"thermal\", \"iio\", \"one-wire\", \"load\"]\ninterval = \"100ms\"\n\
         report = \"changed\"\ndead-band = {{ \"°C\" = 0.5 }}\nexclude = [\"thermal:*\"]",
        root.display()
    );
    let agent = Forebay::start(&polled("box", source));
    wait_records(&agent, "box", 4);
    wait_refused(&agent, "box", "unreadable", 5);
    let (count, climate) = newest(&agent, "iio:bme280");
    let wanted = serde_json::json!({
        "sensor": "iio:bme280",
        "values": {"temp": 21.5, "humidityrelative": 45.25},
        "units": {"temp": "°C", "humidityrelative": "%RH"},
    });
    assert_eq!((count, climate), (1, wanted));
    assert_eq!(newest(&agent, "one-wire:28-000005e2fdc3").1["values"]["temp"], 4.125);
    assert_eq!(newest(&agent, "hwmon:cpu_thermal").1["values"]["temp1"], 48.312);
    assert_eq!(newest(&agent, "load").1["values"]["load1"], 0.5);

    // Within the dead band nothing is stored, beyond it one record.
    write(root, "sys/bus/iio/devices/iio:device0/in_temp_input", "21900\n");
    let polls = status(&agent, "box")["refused"]["unreadable"].as_u64().expect("a number");
    wait_refused(&agent, "box", "unreadable", polls + 5);
    assert_eq!(status(&agent, "box")["records"], 4);
    write(root, "sys/bus/iio/devices/iio:device0/in_temp_input", "22000\n");
    wait_records(&agent, "box", 5);
    assert_eq!(newest(&agent, "iio:bme280").1["values"]["temp"], 22.0);

    // One is taken away, one is broken, one is mended: each is told once, and the others go on.
    fs::remove_dir_all(root.join("sys/class/hwmon/hwmon0")).expect("removed");
    wait_refused(&agent, "box", "vanished", 1);
    write(root, "sys/bus/w1/devices/28-000005e2fdc4/w1_slave", "4b : crc=57 YES\n4b t=-2000\n");
    wait_records(&agent, "box", 6);
    write(root, "proc/loadavg", "what\n");
    eventually(PATIENCE, "it is told", || agent.log().contains("not as expected"));
    write(root, "sys/bus/iio/devices/iio:device0/in_temp_input", "30000\n");
    wait_records(&agent, "box", 7);
    let log = agent.log();
    for text in ["checksum is wrong", "not as expected"] {
        assert_eq!(log.matches(text).count(), 1, "{text} in {log}");
    }
    assert!(newest(&agent, "thermal:cpu-thermal").1.is_null());
}

#[test]
fn what_may_not_be_read_and_what_is_no_number_is_told_and_read_once_it_can_be() {
    let tree = tempfile::TempDir::new().expect("a temporary directory can be made");
    let root = tree.path();
    let (forbidden, endless) = ("sys/class/hwmon/hwmon0/temp1_input", "sys/class/thermal/thermal_zone0/temp");
    let garbage = "sys/bus/iio/devices/iio:device0/in_temp_input";
    for (path, text) in [
        ("sys/class/hwmon/hwmon0/name", "cpu_thermal\n"),
        (forbidden, "48312\n"),
        ("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n"),
        (endless, &"x".repeat(10_000_000)),
        ("sys/bus/iio/devices/iio:device0/name", "bme280\n"),
        (garbage, "\u{0}\u{1b}[31m\n"),
        ("proc/loadavg", "0.5"),
    ] {
        write(root, path, text);
    }
    let source = format!(
        "type = \"sensor\"\nroot = \"{}\"\nread = [\"hwmon\", \"thermal\", \"iio\", \"load\"]\ninterval = \"100ms\"",
        root.display()
    );
    fs::set_permissions(root.join(forbidden), Permissions::from_mode(0o000)).expect("it is ours");
    // Root may open anything unless its capabilities are taken away.
    let powerless = ["setpriv", "--inh-caps=-all", "--bounding-set=-all", "--"];
    let home = Home::new(&polled("box", source));
    let home = if rustix::process::geteuid().is_root() { home.through(&powerless) } else { home };
    let agent = Forebay::start_in(home, &[]);
    let told = |sensor: &str, error: &str| {
        agent.log().lines().filter(|line| line.contains(sensor) && line.contains(error)).count()
    };
    eventually(PATIENCE, "all four are told", || {
        told("hwmon:cpu_thermal", "Permission denied") == 1
            && told("thermal:cpu-thermal", "no number") == 1
            && told("iio:bme280", "no number") == 1
            && told("load", "not as expected") == 1
    });
    wait_refused(&agent, "box", "unreadable", 12);
    assert_eq!((told("hwmon", "Permission denied"), status(&agent, "box")["records"].as_u64()), (1, Some(0)));
    fs::set_permissions(root.join(forbidden), Permissions::from_mode(0o600)).expect("it is ours");
    write(root, endless, "40000\n");
    write(root, garbage, "21500\n");
    write(root, "proc/loadavg", "0.50 0.25 0.10 1/100 4242\n");
    for sensor in ["hwmon:cpu_thermal", "thermal:cpu-thermal", "iio:bme280", "load"] {
        eventually(PATIENCE, &format!("{sensor} is read"), || newest(&agent, sensor).0 > 0);
    }
    assert!(agent.resident_bytes_peak() < 100 << 20, "{} bytes", agent.resident_bytes_peak());
}

#[test]
fn the_machine_itself_is_read() {
    let source = "type = \"sensor\"\ninterval = \"200ms\"".to_owned();
    let mut agent = Forebay::start(&polled("machine", source));
    eventually(PATIENCE, "the processor's share is known", || newest(&agent, "cpu").0 >= 2);
    let values = |sensor: &str| newest(&agent, sensor).1["values"].clone();
    let share = values("cpu")["usage"].as_f64().expect("a number");
    assert!((0.0..=100.0).contains(&share), "{share}");
    let meminfo = fs::read_to_string("/proc/meminfo").expect("readable");
    let total: u64 = meminfo.lines().next().and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).expect("kB");
    assert_eq!(values("memory")["total"], total * 1024);
    assert!(values("load")["uptime"].as_f64() > Some(0.0));
    let root = values("filesystem:/");
    assert!(root["total"].as_u64() > Some(0) && root["used"].as_f64() <= Some(100.0), "{root}");
    assert!(agent.terminate().success());
}
