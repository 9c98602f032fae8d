//! One payload's way through the steps.

use std::{
    fmt,
    sync::{Mutex, PoisonError, atomic::Ordering::Relaxed},
};

use forebay_log_store::Tag;

use super::{
    Place, Raw, Shaped, State, Steps, Undecodable,
    decode::{Context, Row},
    document::Document,
    envelope::{Data, Envelope},
    project::Outcome,
    thin::{How, Memory, Rule, Verdict},
};
use crate::ingest::Fields;

pub(super) struct Pass<'p> {
    steps: &'p Steps,
    state: &'p State,
    raw: &'p Raw<'p>,
    take: &'p mut dyn FnMut(Result<Shaped<'_>, Undecodable>),
    /// Of the record that is being made, where there may be several.
    number: Option<usize>,
}

/// What is said of a record beside its data.
#[derive(Debug, Clone, Copy, Default)]
struct Said<'a> {
    timestamp: Option<&'a str>,
    /// The format that it is not.
    undecodable: Option<&'static str>,
}

impl<'p> Pass<'p> {
    pub(super) fn new(
        steps: &'p Steps,
        state: &'p State,
        raw: &'p Raw<'p>,
        take: &'p mut dyn FnMut(Result<Shaped<'_>, Undecodable>),
    ) -> Self {
        Self { steps, state, raw, take, number: None }
    }

    pub(super) fn run(mut self) {
        let Raw { payload, fields, now, .. } = *self.raw;
        match &self.steps.decode {
            None => self.thin_and_finish(Data::Bytes(payload), Said::default(), None),
            Some(decode) => {
                let context = Context { now, headers: &self.state.headers, origin: origin(&fields) };
                let several = decode.finds_several() && payload.trim_ascii_end().contains(&b'\n');
                decode.each(payload, context, &mut |row| {
                    if several {
                        self.number = Some(self.number.map_or(1, |number| number + 1));
                    }
                    match row {
                        Row::Json(document) => self.decoded(&document),
                        Row::Undecodable { bytes, why } => self.undecodable(bytes, decode.name(), why),
                    }
                });
            }
        }
    }

    fn undecodable(&mut self, bytes: &[u8], format: &'static str, why: String) {
        let undecodable = Undecodable { number: self.number, format, why };
        if !self.steps.keep_undecodable {
            return (self.take)(Err(undecodable));
        }
        self.trouble("undecodable", format_args!("{undecodable}; it is stored as it came"));
        self.thin_and_finish(Data::Undecodable(bytes), Said { undecodable: Some(format), timestamp: None }, None);
    }

    fn decoded(&mut self, document: &Document<'_>) {
        let timestamp = self.steps.timestamp.as_ref().and_then(|timestamp| match timestamp.of(document) {
            Ok(time) => Some(time),
            Err(why) => {
                self.trouble("no-timestamp", format_args!("{why}"));
                None
            }
        });
        if self.steps.filter.as_ref().is_some_and(|filter| !filter.holds(document)) {
            return self.count("filtered");
        }
        let said = Said { timestamp: timestamp.as_deref(), undecodable: None };
        self.thin_and_finish(Data::Json(document.text()), said, Some(document));
    }

    /// `document` is the data, if it was decoded.
    fn thin_and_finish(&mut self, data: Data<'_>, said: Said<'_>, document: Option<&Document<'_>>) {
        let Steps { sample, deduplicate, project, .. } = self.steps;
        if let Some(rule) = sample
            && !self.is_taken(rule, &self.state.sampled, b"", data.bytes())
        {
            return self.count("sampled-out");
        }
        if let Some(rule) = deduplicate
            && !self.is_taken(rule, &self.state.deduplicated, data.bytes(), data.bytes())
        {
            return self.count("duplicate");
        }
        let (Some(project), Some(document)) = (project, document) else { return self.finish(data, data.bytes(), said) };
        let mut out = String::with_capacity(document.text().len());
        match project.write(document, &mut out) {
            Some(outcome) => {
                if outcome == Outcome::NameTaken {
                    self.trouble("rename-conflict", format_args!("a new name is there already; the old one stays"));
                }
                self.finish(Data::Json(&out), data.bytes(), said);
            }
            None => {
                let detail = format_args!("there are no fields to select or rename; it is stored as it came");
                self.trouble("not-an-object", detail);
                self.finish(data, data.bytes(), said);
            }
        }
    }

    /// Whether a rule takes the record; `whole` is its key where there is no template.
    fn is_taken(&self, rule: &Rule, memory: &Mutex<Memory>, whole: &[u8], data: &[u8]) -> bool {
        let mut rendered = String::new();
        let key = match &rule.key {
            None => whole,
            Some(template) => {
                match template.render(&Fields { payload: data, ..self.raw.fields }, &mut rendered) {
                    Ok(_) => rendered.as_bytes(),
                    // What cannot be told apart is no duplicate, but may be thinned together.
                    Err(error) => {
                        self.trouble("no-key", format_args!("{error}"));
                        if matches!(rule.how, How::Window(_)) && std::ptr::eq(memory, &self.state.deduplicated) {
                            return true;
                        }
                        b""
                    }
                }
            }
        };
        let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
        let verdict = rule.decide(key, self.raw.now.since_boot, &mut memory);
        drop(memory);
        if verdict == Verdict::TakeAndForget {
            self.trouble("window-full", format_args!("more than `max-entries` at once; the oldest is forgotten"));
        }
        verdict != Verdict::Leave
    }

    fn finish(&mut self, data: Data<'_>, decoded: &[u8], said: Said<'_>) {
        let Self { steps, state, raw, .. } = self;
        let added = [("timestamp", said.timestamp), ("undecodable", said.undecodable)];
        let added = added.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let mut own: Vec<Tag>;
        let tags = if steps.tags.is_empty() && said.timestamp.is_none() && said.undecodable.is_none() {
            raw.tags
        } else {
            own = Vec::with_capacity(raw.tags.len() + steps.tags.len() + 1);
            let configured = steps.tags.iter().map(|tag| (&*tag.name, &*tag.value));
            // What is configured goes before what a device says.
            let ours: Vec<_> = configured.chain(added).collect();
            own.extend(raw.tags.iter().filter(|tag| ours.iter().all(|(name, _)| *name != tag.name)).cloned());
            own.extend(ours.into_iter().map(|(name, value)| Tag { name: name.to_owned(), value: value.to_owned() }));
            &own
        };
        let wrapped;
        let bytes = if steps.envelope {
            let (gateway, source) = (&*state.gateway, &*state.source);
            let sequence = state.sequence.fetch_add(1, Relaxed);
            let envelope = Envelope { gateway, source, sequence, arrived: raw.now, timestamp: said.timestamp, tags };
            wrapped = envelope.write(data);
            wrapped.as_bytes()
        } else {
            data.bytes()
        };
        (self.take)(Ok(Shaped { number: self.number, data: bytes, tags, decoded }));
    }

    fn count(&self, reason: &'static str) {
        if let Some(stats) = &self.state.stats {
            stats.refused(reason);
        }
    }

    /// Counts what a person should look into, and tells it once per episode.
    fn trouble(&self, reason: &'static str, detail: fmt::Arguments<'_>) {
        if let Some(stats) = &self.state.stats
            && stats.refused(reason)
        {
            let (source, from) = (&*self.state.source, self.raw.fields.origin());
            let detail = format!("{}{detail}", Place(self.number));
            tracing::warn!(source, reason, %from, detail, "a record is not as its source's steps want it");
            stats.failed(format!("a record of {from} is not as the source's steps want it: {detail}"));
        }
    }
}

/// What has a CSV header of its own.
fn origin<'a>(fields: &Fields<'a>) -> &'a str {
    let named = |wanted| fields.named.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value);
    ["path", "file", "topic", "client-id", "host"].into_iter().find_map(named).unwrap_or_default()
}
