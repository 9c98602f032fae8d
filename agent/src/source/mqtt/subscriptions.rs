//! What is subscribed to on a connection: asked for in packets that the broker takes, one after the other. Pure.

use rumqttc::mqttbytes::QoS;

use super::packet::{SUBSCRIBE_BYTES, filter_bytes};

/// The topics of a connection, by what became of them.
#[derive(Debug)]
pub(super) struct Subscriptions {
    packet_bytes_max: usize,
    /// Still to be asked for.
    wanted: Vec<String>,
    /// In the SUBSCRIBE that is under way.
    asked: Vec<String>,
    /// With the broker's reason, if it gave one.
    refused: Vec<(String, String)>,
}

impl Subscriptions {
    /// For a broker that takes packets of this size, if it said so.
    pub(super) fn new(packet_bytes_max: Option<u32>) -> Self {
        let packet_bytes_max = packet_bytes_max.map_or(usize::MAX, |bytes| bytes as usize);
        Self { packet_bytes_max, wanted: Vec::new(), asked: Vec::new(), refused: Vec::new() }
    }

    /// These are to be asked for.
    pub(super) fn want(&mut self, topics: &[String]) {
        self.wanted.extend(topics.iter().cloned());
    }

    /// What was refused is to be asked for once more.
    pub(super) fn want_refused(&mut self) {
        self.wanted.extend(self.refused.drain(..).map(|(topic, _)| topic));
    }

    /// What to ask for now, if anything is left. One that no packet of the broker's takes counts as refused.
    pub(super) fn ask(&mut self) -> Option<&[String]> {
        let mut fitting = 0;
        while !self.wanted.is_empty() {
            let mut bytes = SUBSCRIBE_BYTES;
            let fits = |topic: &&String| {
                bytes += filter_bytes(topic);
                bytes <= self.packet_bytes_max
            };
            fitting = self.wanted.iter().take_while(fits).count();
            if fitting > 0 {
                break;
            }
            self.refused.push((self.wanted.remove(0), "longer than the broker takes packets".to_owned()));
        }
        self.asked = self.wanted.drain(..fitting).collect();
        (!self.asked.is_empty()).then_some(&*self.asked)
    }

    /// Whether this can be the answer to what was asked.
    pub(super) fn is_answered_by(&self, answers: &[Result<QoS, String>]) -> bool {
        !self.asked.is_empty() && answers.len() == self.asked.len()
    }

    /// Takes the answer in. Gives the topics that were granted.
    pub(super) fn on_answer(&mut self, answers: Vec<Result<QoS, String>>) -> Vec<(String, QoS)> {
        let mut granted = Vec::new();
        for (topic, answer) in self.asked.drain(..).zip(answers) {
            match answer {
                Ok(qos) => granted.push((topic, qos)),
                Err(why) => self.refused.push((topic, why)),
            }
        }
        granted
    }

    /// What was refused, for a message; empty if nothing was.
    pub(super) fn refused(&self) -> String {
        let in_words = |(topic, why): &(String, String)| {
            if why.is_empty() { format!("`{topic}`") } else { format!("`{topic}`: {why}") }
        };
        self.refused.iter().map(in_words).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_asked_for_in_packets_that_the_broker_takes() {
        let topics: Vec<_> = ["aaaaaaaaaa", "bbbbbbbbbb", "c", &"d".repeat(40)].map(str::to_owned).to_vec();
        let mut subscriptions = Subscriptions::new(Some(36));
        subscriptions.want(&topics);
        assert_eq!(subscriptions.ask(), Some(&topics[..2]));
        assert!(!subscriptions.is_answered_by(&[Ok(QoS::AtLeastOnce)]));
        let granted = subscriptions.on_answer(vec![Ok(QoS::AtLeastOnce), Err(String::new())]);
        assert_eq!(granted, [("aaaaaaaaaa".to_owned(), QoS::AtLeastOnce)]);
        assert_eq!(subscriptions.ask(), Some(&topics[2..3]));
        subscriptions.on_answer(vec![Err("not authorized".into())]);
        assert_eq!(subscriptions.ask(), None);
        let long = "d".repeat(40);
        let refused = format!("`bbbbbbbbbb`, `c`: not authorized, `{long}`: longer than the broker takes packets");
        assert_eq!(subscriptions.refused(), refused);
        subscriptions.want_refused();
        assert_eq!((subscriptions.refused(), subscriptions.ask().map(<[_]>::len)), (String::new(), Some(2)));
    }
}
