use bytes::Bytes;
use rmqtt_codec::v5::PublishProperties;

use super::*;

fn id(id: u16) -> NonZeroU16 {
    NonZeroU16::new(id).expect("not zero")
}

fn session(version: Version) -> Session {
    let limits = Limits { packet_bytes_max: 1000, receive_max: id(3), topic_alias_max: 2 };
    Session::new(version, limits, Unreleased::new())
}

fn publish(qos: QoS, packet_id: u16) -> Publish {
    Publish {
        dup: false,
        retain: false,
        qos,
        topic: "plant/1".into(),
        packet_id: NonZeroU16::new(packet_id),
        payload: Bytes::new(),
        properties: None,
    }
}

fn aliased(topic: &'static str, alias: u16) -> Publish {
    let properties = PublishProperties { topic_alias: Some(id(alias)), ..PublishProperties::default() };
    Publish { topic: topic.into(), properties: Some(properties), ..publish(QoS::AtMostOnce, 0) }
}

/// Takes a PUBLISH that is to be stored.
fn take(session: &mut Session, publish: &Publish) {
    assert_eq!(session.on_publish(publish, |_| true), Ok(Some("plant/1")));
}

#[test]
fn acknowledgements_follow_their_batch_and_keep_their_order() {
    let (mut session, mut out) = (session(Version::V3), BytesMut::new());
    take(&mut session, &publish(QoS::AtLeastOnce, 7));
    take(&mut session, &publish(QoS::ExactlyOnce, 8));
    take(&mut session, &publish(QoS::AtMostOnce, 0));
    session.seal();
    take(&mut session, &publish(QoS::AtLeastOnce, 9));
    session.seal();
    assert!(out.is_empty());
    session.on_durable(&mut out);
    assert_eq!(out.split()[..], [0x40, 2, 0, 7, 0x50, 2, 0, 8]);
    session.on_durable(&mut out);
    assert_eq!(out.split()[..], [0x40, 2, 0, 9]);
    assert_eq!(session.acknowledgements_due(), 0);
}

#[test]
fn a_message_that_is_sent_again_is_acknowledged_again_but_stored_once() {
    let (mut session, mut out) = (session(Version::V3), BytesMut::new());
    take(&mut session, &publish(QoS::ExactlyOnce, 5));
    session.seal();
    assert_eq!(session.on_publish(&publish(QoS::ExactlyOnce, 5), |_| true), Ok(None));
    session.nothing_to_seal(&mut out);
    assert!(out.is_empty(), "its record is not durable yet");
    session.on_durable(&mut out);
    assert_eq!(out.split()[..], [0x50, 2, 0, 5, 0x50, 2, 0, 5]);
    assert_eq!(session.on_publish(&publish(QoS::ExactlyOnce, 5), |_| true), Ok(None));
    session.nothing_to_seal(&mut out);
    assert_eq!(out.split()[..], [0x50, 2, 0, 5], "nothing is on its way, so there is nothing to wait for");
    session.on_release(id(5), &mut out).expect("it was stored");
    assert_eq!(out.split()[..], [0x70, 2, 0, 5]);
    take(&mut session, &publish(QoS::ExactlyOnce, 5));
}

#[test]
fn unreleased_ids_survive_the_connection_if_they_were_stored() {
    let (mut session, mut out) = (session(Version::V5), BytesMut::new());
    for packet_id in [1, 2, 3] {
        take(&mut session, &publish(QoS::ExactlyOnce, packet_id));
        session.seal();
    }
    session.on_durable(&mut out);
    session.on_refused();
    session.on_durable(&mut out);
    let unreleased = session.into_unreleased();
    assert_eq!(unreleased, Unreleased::from([id(1), id(3)]));
    let mut session = Session::new(Version::V5, self::session(Version::V5).limits, unreleased);
    assert_eq!(session.on_publish(&publish(QoS::ExactlyOnce, 1), |_| true), Ok(None));
    take(&mut session, &publish(QoS::ExactlyOnce, 2));
}

#[test]
fn a_release_without_a_message_is_answered_as_the_version_has_it() {
    let mut out = BytesMut::new();
    session(Version::V3).on_release(id(258), &mut out).expect("3.1.1 has no error for it");
    assert_eq!(out.split()[..], [0x70, 2, 1, 2]);
    session(Version::V5).on_release(id(258), &mut out).expect("not the connection's end");
    assert_eq!(out.split()[..], [0x70, 4, 1, 2, 0x92, 0]);
}

#[test]
fn a_release_before_the_record_is_durable_is_an_error() {
    let (mut session, mut out) = (session(Version::V3), BytesMut::new());
    take(&mut session, &publish(QoS::ExactlyOnce, 5));
    session.seal();
    assert_eq!(session.on_release(id(5), &mut out).expect_err("no PUBREC was sent").reason, Reason::ProtocolError);
}

#[test]
fn the_receive_maximum_holds_for_version_5_and_only_there() {
    let (mut session, mut out) = (session(Version::V5), BytesMut::new());
    take(&mut session, &publish(QoS::AtLeastOnce, 1));
    take(&mut session, &publish(QoS::ExactlyOnce, 2));
    take(&mut session, &publish(QoS::AtLeastOnce, 3));
    take(&mut session, &publish(QoS::AtMostOnce, 0));
    let over = session.on_publish(&publish(QoS::AtLeastOnce, 4), |_| true).expect_err("three are allowed");
    assert_eq!(over.reason, Reason::ReceiveMaximumExceeded);
    session.seal();
    session.on_durable(&mut out);
    // Two were completed by PUBACK; the QoS 2 one counts until its PUBCOMP.
    take(&mut session, &publish(QoS::AtLeastOnce, 4));
    take(&mut session, &publish(QoS::AtLeastOnce, 5));
    session.on_publish(&publish(QoS::AtLeastOnce, 6), |_| true).expect_err("three are allowed");
    session.on_release(id(2), &mut out).expect("it was stored");
    take(&mut session, &publish(QoS::AtLeastOnce, 6));

    let mut session = self::session(Version::V3);
    for packet_id in 1..100 {
        take(&mut session, &publish(QoS::AtLeastOnce, packet_id));
    }
}

#[test]
fn a_record_that_cannot_be_stored_is_not_acknowledged() {
    let (mut session, mut out) = (session(Version::V3), BytesMut::new());
    take(&mut session, &publish(QoS::AtLeastOnce, 1));
    for (qos, packet_id) in [(QoS::AtMostOnce, 0), (QoS::AtLeastOnce, 2), (QoS::ExactlyOnce, 3)] {
        take(&mut session, &publish(qos, packet_id));
        session.cannot_store(qos);
    }
    session.seal();
    session.on_durable(&mut out);
    assert_eq!(out[..], [0x40, 2, 0, 1]);
    assert!(session.into_unreleased().is_empty());
}

#[test]
fn topics_that_nobody_may_publish_to_are_refused_and_not_acknowledged() {
    for topic in ["", "a/#", "+", "a\0b"] {
        let mut session = session(Version::V3);
        let publish = Publish { topic: topic.into(), ..publish(QoS::AtLeastOnce, 1) };
        assert_eq!(session.on_publish(&publish, |_| true).expect_err(topic).count, "bad-topic");
        assert_eq!(session.acknowledgements_due(), 0);
    }
}

#[test]
fn an_alias_stands_for_its_newest_topic() {
    let mut session = session(Version::V5);
    assert_eq!(session.on_publish(&aliased("a", 1), |_| true), Ok(Some("a")));
    assert_eq!(session.on_publish(&aliased("b", 2), |_| true), Ok(Some("b")));
    assert_eq!(session.on_publish(&aliased("", 1), |_| true), Ok(Some("a")));
    assert_eq!(session.on_publish(&aliased("c", 1), |_| true), Ok(Some("c")));
    assert_eq!(session.on_publish(&aliased("", 1), |_| true), Ok(Some("c")));
    assert_eq!(session.on_publish(&aliased("", 2), |_| true), Ok(Some("b")));
}

#[test]
fn aliases_without_a_topic_or_over_the_limit_are_errors() {
    assert_eq!(
        session(Version::V5).on_publish(&aliased("", 1), |_| true).expect_err("no topic").reason,
        Reason::ProtocolError
    );
    let over = session(Version::V5).on_publish(&aliased("a", 3), |_| true).expect_err("two are allowed");
    assert_eq!(over.reason, Reason::TopicAliasInvalid);
    assert_eq!(
        session(Version::V5).on_publish(&aliased("a/+", 1), |_| true).expect_err("a wildcard").count,
        "bad-topic"
    );
}

#[test]
fn a_subscription_identifier_is_not_a_publishers() {
    let subscription_ids = vec![1.try_into().expect("not zero")];
    let properties = PublishProperties { subscription_ids, ..PublishProperties::default() };
    let publish = Publish { properties: Some(properties), ..publish(QoS::AtMostOnce, 0) };
    assert_eq!(
        session(Version::V5).on_publish(&publish, |_| true).expect_err("not allowed").reason,
        Reason::ProtocolError
    );
}

#[test]
fn what_is_not_allowed_is_answered_in_its_turn_and_leaves_nothing_behind() {
    for (version, puback, pubrec) in [
        (Version::V3, &[0x40, 2, 0, 2][..], &[0x50, 2, 0, 3][..]),
        (Version::V5, &[0x40, 4, 0, 2, 0x87, 0], &[0x50, 4, 0, 3, 0x87, 0]),
    ] {
        let (mut session, mut out) = (session(version), BytesMut::new());
        take(&mut session, &publish(QoS::AtLeastOnce, 1));
        for (qos, id) in [(QoS::AtLeastOnce, 2), (QoS::ExactlyOnce, 3), (QoS::AtMostOnce, 0)] {
            assert_eq!(session.on_publish(&publish(qos, id), |topic| topic != "plant/1"), Ok(None));
        }
        session.seal();
        assert!(out.is_empty());
        session.on_durable(&mut out);
        assert_eq!(out.split()[..], [&[0x40, 2, 0, 1], puback, pubrec].concat());
        // Nothing is counted against the receive maximum of three any more.
        for id in 4..7 {
            take(&mut session, &publish(QoS::AtLeastOnce, id));
        }
        assert!(session.into_unreleased().is_empty());
    }
}

#[test]
fn what_is_stored_already_is_acknowledged_again_though_it_is_not_allowed_any_more() {
    let limits = Limits { packet_bytes_max: 1000, receive_max: id(3), topic_alias_max: 2 };
    let (mut session, mut out) = (Session::new(Version::V5, limits, [id(5)].into()), BytesMut::new());
    assert_eq!(session.on_publish(&publish(QoS::ExactlyOnce, 5), |_| false), Ok(None));
    session.nothing_to_seal(&mut out);
    assert_eq!(out[..], [0x50, 2, 0, 5]);
}
