//! A status as an agent in some trouble would give it, for the tests of what is made of it.

use std::collections::BTreeMap;

use super::{
    CatchUpStatus, CertificateStatus, ClockStatus, DestinationStatus, Down, Dropped, ErrorStatus, Flow, LinkStatus,
    ShardStatus, SourceStatus, Status, StreamStatus, WireStatus,
};

pub(super) fn busy() -> Status {
    let flow = |records: u64| Flow {
        records,
        bytes: records * 1024,
        records_per_second: 12.34,
        bytes_per_second: 12.34 * 1024.0,
    };
    let error = |message: &str| Some(ErrorStatus { at_ms: 1_790_000_000_000, kind: None, message: message.into() });
    Status {
        version: "0.1.0".into(),
        pid: 4711,
        uptime_seconds: 90_061,
        healthy: false,
        reasons: vec!["stream `telemetry` takes no records: quota of 1.0 GiB is used up".into()],
        data_dir: "/var/lib/forebay".into(),
        clock: ClockStatus {
            now_ms: 1_790_000_000_000,
            trusted_since_ms: None,
            warning: Some("the machine's clock was not trusted since its start".into()),
        },
        log_events: BTreeMap::from([("full".into(), 1)]),
        sources: BTreeMap::from([(
            "devices".into(),
            SourceStatus {
                r#type: "mqtt-broker".into(),
                stream: "telemetry".into(),
                stored: flow(1200),
                connections: 3,
                refused: BTreeMap::from([("malformed".into(), 1), ("oversize".into(), 2)]),
                last_error: error("127.0.0.1:50122: malformed packet"),
            },
        )]),
        streams: BTreeMap::from([
            (
                "dead-letter.cloud".into(),
                StreamStatus { oldest: 1, next: 1, quota_bytes: 64 << 20, ..Default::default() },
            ),
            (
                "telemetry".into(),
                StreamStatus {
                    committed: flow(1200),
                    oldest: 6,
                    next: 1201,
                    disk_bytes: 1_300_000,
                    quota_bytes: 1 << 30,
                    untrusted_records: 3,
                    segments: 2,
                    unwritten: 0,
                    held_bytes: 0,
                    written_bytes: 1_351_680,
                    framing_bytes: 3_200,
                    catalogue_bytes: 700,
                    written_per_payload_byte: Some(1.1),
                    written_bytes_per_day: Some(1_296_733),
                    commits: 31,
                    shards: BTreeMap::from([
                        ("shardId-000000000000".into(), ShardStatus { committed: flow(700), throttled: 0 }),
                        ("shardId-000000000001".into(), ShardStatus { committed: flow(500), throttled: 4 }),
                    ]),
                    dropped: Dropped { retention: 0, quota: 5, damage: 0 },
                    lost: Dropped { retention: 0, quota: 5, damage: 0 },
                    stopped: Some("quota of 1.0 GiB is used up".into()),
                },
            ),
        ]),
        links: BTreeMap::from([(
            "lte".into(),
            LinkStatus { metered: true, budget_bytes: Some(50_000_000), spent_bytes: 12_000_000 },
        )]),
        destinations: BTreeMap::from([(
            "cloud".into(),
            DestinationStatus {
                r#type: "kinesis".into(),
                from: "telemetry".into(),
                delivered: flow(1000),
                checkpoint: 1000,
                backlog_records: 200,
                backlog_bytes: 217_000,
                lag_seconds: 42.5,
                catch_up: CatchUpStatus {
                    gaps: 2,
                    gap_records: 190,
                    gap_lag_seconds: 42.5,
                    live_records: 10,
                    live_lag_seconds: 1.5,
                },
                wire_sent_bytes: 1_228_800,
                wire_received_bytes: 40_960,
                sent_per_payload_byte: Some(1.2),
                in_flight: 1,
                window_records: 200,
                window_bytes: 204_800,
                limited_by_key_order: true,
                requests: 20,
                failed_requests: BTreeMap::from([("dns".into(), 7)]),
                throttled_records: 8,
                failed_records: 0,
                failing_records: 1,
                reading_stopped: true,
                astray_records: 12,
                wire: Some(WireStatus {
                    aggregated: true,
                    records: 25,
                    bytes: 1_064_960,
                    records_each: 40.0,
                    bytes_per_payload_byte: 1.04,
                    payload_units: 50,
                }),
                dead_letters: 1,
                dead_letters_open: 3,
                dead_letters_replayed: 2,
                dead_letters_dropped: 0,
                out_of_order: 0,
                expired: 6,
                client_certificates: vec![CertificateStatus {
                    file: "device.crt".into(),
                    expires_ms: Some(1_790_000_000_000),
                    trouble: Some("expires in 3 days".into()),
                }],
                link: Some("lte".into()),
                held: None,
                down: Some(Down { kind: "dns".into(), seconds: 40, attempts: 7, next_attempt_seconds: 0.5 }),
                last_error: error("connection refused"),
            },
        )]),
    }
}
