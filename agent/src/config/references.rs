//! References: what one section of the configuration says about another, checked when all of them were read.
//!
//! They are noted even for a section with mistakes, so that a wrong stream name is told together with a wrong port.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use forebay_log_store::StreamConfig;

use super::{Problems, reader::nearest, stream, there_are};

/// What was referred to, and where.
#[derive(Debug, Default)]
pub(super) struct References {
    streams: Vec<(String, String)>,
    listeners: Vec<Listener>,
    claims: Vec<(String, String)>,
    dead_letters: BTreeSet<String>,
    links: Vec<(String, String)>,
    known_links: BTreeSet<String>,
}

impl References {
    /// `path` names a stream.
    pub(super) fn stream(&mut self, path: String, stream: &str) {
        self.streams.push((path, stream.to_owned()));
    }

    /// `path` listens on an address.
    pub(super) fn listener(&mut self, path: impl Into<String>, address: SocketAddr) {
        self.shared_listener(path, address, None);
    }

    /// The same for a listener that others may share which say the same of it.
    pub(super) fn shared_listener(&mut self, path: impl Into<String>, address: SocketAddr, shared: Option<String>) {
        self.listeners.push(Listener { path: path.into(), address, shared });
    }

    /// `path` names something that only one can have, and this is what it is called.
    pub(super) fn claim(&mut self, path: String, what: String) {
        self.claims.push((path, what));
    }

    /// There is such a destination, and so the stream of its dead letters.
    pub(super) fn dead_letters_of(&mut self, destination: &str) {
        self.dead_letters.insert(stream::dead_letter_stream(destination));
    }

    /// These are the links that there are.
    pub(super) fn links_are<'a>(&mut self, names: impl Iterator<Item = &'a String>) {
        self.known_links = names.cloned().collect();
    }

    /// `path` names a link.
    pub(super) fn link(&mut self, path: String, link: &str) {
        self.links.push((path, link.to_owned()));
    }

    /// Notes every reference to what does not exist, and every two that cannot both be.
    pub(super) fn check(&self, streams: &BTreeMap<String, StreamConfig>, problems: &mut Problems) {
        for (path, stream) in &self.streams {
            if !streams.contains_key(stream) && !self.dead_letters.contains(stream) {
                problems.add(path, no_such_stream(stream, streams));
            }
        }
        for (path, link) in self.links.iter().filter(|(_, link)| !self.known_links.contains(link)) {
            let known = || self.known_links.iter().map(String::as_str);
            let message = match nearest(link, known()) {
                Some(near) => format!("there is no link `{link}`, did you mean `{near}`?"),
                None => format!("there is no link `{link}`; add a table [links.{link}]"),
            };
            problems.add(path, message);
        }
        for name in streams.keys().filter(|name| name.starts_with(stream::DEAD_LETTER)) {
            if !self.dead_letters.contains(name) {
                let destination = &name[stream::DEAD_LETTER.len()..];
                problems.add(
                    super::key_path("streams", name),
                    format!("names like this are for dead letters, and there is no destination `{destination}`"),
                );
            }
        }
        for (i, listener) in self.listeners.iter().enumerate() {
            let Listener { path, address, .. } = listener;
            let other =
                self.listeners[..i].iter().find(|other| collide(address, &other.address) && !listener.goes_with(other));
            if let Some(other) = other {
                let how = match (&listener.shared, &other.shared) {
                    (Some(_), Some(_)) => "; sources that share a listener say the same of it",
                    _ => "",
                };
                problems.add(path, format!("{address} is already what `{}` listens on{how}", other.path));
            }
        }
        for (i, (path, what)) in self.claims.iter().enumerate() {
            if let Some((other, _)) = self.claims[..i].iter().find(|(_, claimed)| claimed == what) {
                problems.add(path, format!("{what} is already what `{other}` has for itself"));
            }
        }
    }
}

/// Somebody who listens.
#[derive(Debug)]
struct Listener {
    path: String,
    address: SocketAddr,
    shared: Option<String>,
}

impl Listener {
    /// Whether one socket can be for both.
    fn goes_with(&self, other: &Self) -> bool {
        self.address == other.address && self.shared.is_some() && self.shared == other.shared
    }
}

fn no_such_stream(stream: &str, streams: &BTreeMap<String, StreamConfig>) -> String {
    let known = || streams.keys().map(String::as_str);
    match nearest(stream, known()) {
        Some(near) => format!("there is no stream `{stream}`, did you mean `{near}`?"),
        None if streams.is_empty() => format!("there is no stream `{stream}`; add a table [streams.{stream}]"),
        None => format!("there is no stream `{stream}`; {}", there_are(known())),
    }
}

/// Whether both cannot be listened on. Port 0 is a free one each time.
fn collide(a: &SocketAddr, b: &SocketAddr) -> bool {
    let same_ip = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.port() != 0 && same_ip
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_collide_on_one_port_of_one_address() {
        for (a, b, expected) in [
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("0.0.0.0:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "[::]:1", true),
            ("127.0.0.1:1", "127.0.0.1:2", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("127.0.0.1:1", "10.0.0.1:1", false),
        ] {
            let [a, b] = [a, b].map(|text| text.parse().expect("address"));
            assert_eq!(collide(&a, &b), expected, "{a} and {b}");
        }
    }
}
