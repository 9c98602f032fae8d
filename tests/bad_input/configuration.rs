//! Mistakes in a template and in what it goes to, as `forebay run` tells them. Other mistakes are in `cli`.

use crate::support::forebay::Home;
use crate::support::{Forebay, Gateway};

#[test]
fn a_template_that_cannot_be_filled_and_a_stream_that_does_not_exist_are_told_together() {
    let more = r#"
        [sources.plant]
        type = "mqtt"
        broker = "mqtt://127.0.0.1:1883"
        client-id = "gateway-7"
        topics = ["plant/#"]
        stream = "telemetrie"
        partition-key = "{topc}/{json:device}"
        [sources.yard]
        type = "mqtt-broker"
        listen = "0.0.0.0:1885"
        stream = "{topic[1]}"
        partition-key = "{topic[}"
        [destinations.depot]
        type = "kinesis"
        from = "positions"
        stream = "p"
        region = "eu-west-1"
    "#;
    let gateway = Gateway { more: more.to_owned(), ..Gateway::to("http://127.0.0.1:1") };
    let home = Home::new(&gateway.configuration());
    let (code, said) = Forebay::start_and_fail(&home);
    assert_eq!(code, Some(78), "{said}");
    for (path, words) in [
        ("sources.plant.stream: ", "`telemetrie`, did you mean `telemetry`?"),
        ("sources.plant.partition-key: ", "topc"),
        ("sources.yard.stream: ", "`{topic[1]}`"),
        ("sources.yard.partition-key: ", "topic["),
        ("sources.yard.allow-anonymous: ", "password-file"),
        ("destinations.depot.from: ", "`positions`"),
    ] {
        let told = said.lines().any(|line| line.trim_start().starts_with(path) && line.contains(words));
        assert!(told, "{path}{words} is not in:\n{said}");
    }
    assert!(said.contains("forebay.toml: 6 problems"), "{said}");
    assert!(!home.path().join("data").exists());
}
