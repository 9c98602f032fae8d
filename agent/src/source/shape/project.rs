//! `select` and `rename`: which members of a record stay, and under what names.
//!
//! What stays keeps its place, its order and its text: nothing is rounded. A way leads through objects only, so what lies in
//! an array stays or goes with the whole array. A rename that would give an object two members of one name is not done.

use std::collections::BTreeMap;

use super::{
    document::{self, Document, Member, Members},
    field::Field,
};

/// What is done to the members of an object, and below them.
#[derive(Debug, Clone, Default)]
pub(super) struct Projection {
    /// Whether only what is listed stays.
    selects: bool,
    members: BTreeMap<String, Step>,
}

#[derive(Debug, Clone, Default)]
struct Step {
    /// It stays, with everything below it.
    whole: bool,
    /// What it is called then.
    name: Option<String>,
    below: Projection,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// A new name was there already, so that the old one stays.
    NameTaken,
}

impl Projection {
    /// A projection that leaves everything, or that leaves nothing until something is selected.
    pub(super) fn new(selects: bool) -> Self {
        Self { selects, members: BTreeMap::new() }
    }

    /// This field stays.
    pub(super) fn select(&mut self, field: &Field) {
        self.step(field).whole = true;
    }

    /// This field gets another name, where it is. The error is a sentence fragment.
    pub(super) fn rename(&mut self, field: &Field, name: &str) -> Result<(), String> {
        let (last, way) = field.tokens().split_last().ok_or("is the whole record")?;
        let parent = way.iter().fold(&mut *self, |projection, token| projection.enter(token));
        if parent.members.values().any(|step| step.name.as_deref() == Some(name)) {
            return Err(format!("two fields cannot both be called `{name}`"));
        }
        parent.enter(last);
        if let Some(step) = parent.members.get_mut(last) {
            step.name = Some(name.to_owned());
        }
        Ok(())
    }

    /// Whether a field stays, or something below it.
    pub(super) fn keeps(&self, field: &Field) -> bool {
        let mut projection = self;
        for token in field.tokens() {
            match projection.members.get(token) {
                _ if !projection.selects => return true,
                None => return false,
                Some(step) if step.whole => return true,
                Some(step) => projection = &step.below,
            }
        }
        projection.members.values().any(Step::stays)
    }

    fn enter(&mut self, token: &str) -> &mut Self {
        let selects = self.selects;
        &mut self.members.entry(token.to_owned()).or_insert_with(|| Step::new(selects)).below
    }

    fn step(&mut self, field: &Field) -> &mut Step {
        let (last, way) = field.tokens().split_last().expect("a field has at least one name");
        let parent = way.iter().fold(self, |projection, token| projection.enter(token));
        let selects = parent.selects;
        parent.members.entry(last.clone()).or_insert_with(|| Step::new(selects))
    }

    /// Writes what stays of a document to `out`; `None` if it is not an object, and nothing was written.
    pub(super) fn write(&self, document: &Document<'_>, out: &mut String) -> Option<Outcome> {
        document.members().map(|members| self.write_object(members, self.selects, out))
    }

    fn write_object(&self, members: &[Member<'_>], selects: bool, out: &mut String) -> Outcome {
        let mut outcome = Outcome::Done;
        out.push('{');
        let begin = out.len();
        for member in members {
            let name = member.name();
            let step = self.members.get(&*name);
            let before = out.len();
            if before > begin {
                out.push(',');
            }
            match step.and_then(|step| step.name.as_deref()) {
                Some(new) if self.is_taken(new, members, selects) => {
                    outcome = Outcome::NameTaken;
                    out.push_str(member.name.get());
                }
                Some(new) => push_string(new, out),
                None => out.push_str(member.name.get()),
            }
            out.push(':');
            let stays = match step {
                None => !selects && push(member.value.get(), out),
                Some(step) => step.write(member.value.get(), selects, &mut outcome, out),
            };
            if !stays {
                out.truncate(before);
            }
        }
        out.push('}');
        outcome
    }

    /// Whether a member that stays has this name and does not give it up.
    fn is_taken(&self, name: &str, members: &[Member<'_>], selects: bool) -> bool {
        let stays = match self.members.get(name) {
            None => !selects,
            Some(step) => step.name.is_none() && (!selects || step.stays()),
        };
        stays && members.iter().any(|member| member.name_is(name))
    }
}

impl Step {
    fn new(selects: bool) -> Self {
        Self { whole: false, name: None, below: Projection::new(selects) }
    }

    fn stays(&self) -> bool {
        self.whole || self.below.members.values().any(Self::stays)
    }

    /// Writes a value; whether anything of it stays.
    fn write(&self, value: &str, selects: bool, outcome: &mut Outcome, out: &mut String) -> bool {
        let selects = selects && !self.whole;
        if self.below.members.is_empty() || !document::is_object(value) {
            return !selects && push(value, out);
        }
        let Ok(members) = serde_json::from_str::<Members<'_>>(value) else { return !selects && push(value, out) };
        let begin = out.len();
        if self.below.write_object(&members.0, selects, out) == Outcome::NameTaken {
            *outcome = Outcome::NameTaken;
        }
        // Nothing of what was wanted is there.
        !selects || out.len() > begin + "{}".len()
    }
}

fn push(text: &str, out: &mut String) -> bool {
    out.push_str(text);
    true
}

/// Appends a text as a JSON string.
pub(super) fn push_string(text: &str, out: &mut String) {
    match serde_json::to_string(text) {
        Ok(quoted) => out.push_str(&quoted),
        Err(_) => unreachable!("a text is always JSON"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn project(select: &[&str], rename: &[(&str, &str)], text: &str) -> Option<(String, Outcome)> {
        let field = |text: &str| Field::parse(text).expect("a field");
        let mut projection = Projection::new(!select.is_empty());
        select.iter().for_each(|text| projection.select(&field(text)));
        rename.iter().for_each(|(text, name)| projection.rename(&field(text), name).expect("a name"));
        let [read, trusted] = [Document::parse(text).expect("JSON"), Document::trusted(text)].map(|document| {
            let mut out = String::new();
            projection.write(&document, &mut out).map(|outcome| (out, outcome))
        });
        assert_eq!(read, trusted);
        read
    }

    const RECORD: &str =
        r#"{"temp": 21.50, "device":{"id":"d-1", "at":{"x":1,"y":2}},"list":[{"a":1}],"n":12345678901234567890123}"#;

    #[test]
    fn what_is_selected_stays_as_it_is() {
        for (select, left) in [
            (&["temp"][..], r#"{"temp":21.50}"#),
            (&["n", "temp"], r#"{"temp":21.50,"n":12345678901234567890123}"#),
            (&["/device/id"], r#"{"device":{"id":"d-1"}}"#),
            (&["/device/at/y", "device"], r#"{"device":{"id":"d-1","at":{"x":1,"y":2}}}"#),
            (&["/device/at/y", "list"], r#"{"device":{"at":{"y":2}},"list":[{"a":1}]}"#),
            (&["/device/none", "/temp/x", "/list/0", "none"], "{}"),
        ] {
            assert_eq!(project(select, &[], RECORD), Some((left.to_owned(), Outcome::Done)), "{select:?}");
        }
        assert_eq!(project(&["a"], &[], "[1]"), None);
    }

    #[test]
    fn what_is_renamed_stays_where_it_is() {
        let rename = [("temp", "temperature \"in\""), ("/device/at/x", "east"), ("none", "nothing")];
        let renamed = r#"{"temperature \"in\"":21.50,"device":{"id":"d-1","at":{"east":1,"y":2}},"list":[{"a":1}],"n":12345678901234567890123}"#;
        assert_eq!(project(&[], &rename, RECORD), Some((renamed.to_owned(), Outcome::Done)));
        let both = r#"{"t":21.50,"d":{"id":"d-1"}}"#;
        let rename = [("temp", "t"), ("device", "d")];
        assert_eq!(project(&["temp", "/device/id"], &rename, RECORD), Some((both.to_owned(), Outcome::Done)));
    }

    #[test]
    fn a_name_is_never_there_twice() {
        let text = r#"{"a":1,"b":2}"#;
        assert_eq!(project(&[], &[("a", "b")], text), Some((text.to_owned(), Outcome::NameTaken)));
        let swapped = r#"{"b":1,"a":2}"#.to_owned();
        assert_eq!(project(&[], &[("a", "b"), ("b", "a")], text), Some((swapped, Outcome::Done)));
        let only = r#"{"b":1}"#.to_owned();
        assert_eq!(project(&["a"], &[("a", "b")], text), Some((only, Outcome::Done)));
        let field = |text| Field::parse(text).expect("a field");
        let mut projection = Projection::new(false);
        projection.rename(&field("a"), "x").expect("new");
        projection.rename(&field("b"), "x").expect_err("the same");
        projection.rename(&field("/c/b"), "x").expect("elsewhere");
    }

    #[test]
    fn it_knows_what_it_keeps() {
        let field = |text| Field::parse(text).expect("a field");
        let mut projection = Projection::new(true);
        projection.select(&field("a"));
        projection.select(&field("/b/c"));
        let kept = ["a", "/a/x", "b", "/b/c", "/b/c/d"].map(|text| projection.keeps(&field(text)));
        assert_eq!((kept, projection.keeps(&field("/b/d")), projection.keeps(&field("c"))), ([true; 5], false, false));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1e9..1e9).prop_map(|number: f64| json!(number)),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-c\"\\\\/~é]{0,3}", inner, 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn selecting_everything_changes_nothing(value in any_json()) {
            let text = value.to_string();
            let Value::Object(members) = &value else { return Ok(()) };
            let mut projection = Projection::new(true);
            for name in members.keys().filter(|name| !name.is_empty()) {
                projection.select(&Field::parse(&format!("/{}", name.replace('~', "~0").replace('/', "~1"))).expect("a field"));
            }
            if members.contains_key("") {
                projection.select(&Field::parse("/").expect("a field"));
            }
            let mut out = String::new();
            prop_assert_eq!(projection.write(&Document::parse(&text).expect("JSON"), &mut out), Some(Outcome::Done));
            prop_assert_eq!(&out, &text);
            let mut out = String::new();
            Projection::new(false).write(&Document::parse(&text).expect("JSON"), &mut out);
            prop_assert_eq!(out, text);
        }

        #[test]
        fn what_comes_out_is_json(value in any_json(), fields in proptest::collection::vec("(/[a-c]){1,3}", 1..4)) {
            let mut projection = Projection::new(true);
            for field in &fields {
                projection.select(&Field::parse(field).expect("a field"));
            }
            let mut out = String::new();
            if projection.write(&Document::parse(&value.to_string()).expect("JSON"), &mut out).is_some() {
                let left: Value = serde_json::from_str(&out).expect("JSON");
                for field in &fields {
                    let through_array = (1..field.len()).any(|end| value.pointer(&field[..end]).is_some_and(Value::is_array));
                    if !through_array {
                        prop_assert_eq!(left.pointer(field), value.pointer(field));
                    }
                }
            }
        }
    }
}
