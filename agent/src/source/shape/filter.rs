//! `filter`: which records are wanted, by conditions on their fields.
//!
//! A table of TOML rather than a language of its own: nothing to learn but the names of the tests, and a mistake is told
//! with its key path. Everything that a condition says has to hold.

use std::{cmp::Ordering, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, Visitor},
};

use super::{
    document::Document,
    field::{Field, Number, Value},
};
use crate::config::Problems;

/// `filter = { ... }`, and every condition in its lists.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// A member's name, or a JSON pointer, that the tests beside it are about.
    pub field: Option<String>,
    /// Whether it is there and not null.
    pub exists: Option<bool>,
    /// It is this text, number or boolean.
    pub equals: Option<Scalar>,
    /// It is one of these.
    pub one_of: Option<Vec<Scalar>>,
    /// It is a number over this; a text that holds a number counts as one, here and below.
    pub above: Option<Limit>,
    /// It is a number from this.
    pub at_least: Option<Limit>,
    /// It is a number under this.
    pub below: Option<Limit>,
    /// It is a number up to this.
    pub at_most: Option<Limit>,
    /// It is a text that begins so.
    pub starts_with: Option<String>,
    /// It is a text that ends so.
    pub ends_with: Option<String>,
    /// It is a text with this in it.
    pub contains: Option<String>,
    /// All of these hold.
    pub all: Option<Vec<Config>>,
    /// One of these holds, or several.
    pub any: Option<Vec<Config>>,
    /// This does not hold.
    pub not: Option<Box<Config>>,
}

/// What a value may be equal to.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// A string.
    Text(String),
    /// An integer or a float.
    Number(Limit),
    /// A boolean.
    Bool(bool),
}

/// An integer or a float.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit(Number);

/// A condition that was found right.
#[derive(Debug, Clone)]
pub(super) enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Not(Box<Condition>),
    Test(Field, Test),
}

#[derive(Debug, Clone)]
pub(super) enum Test {
    Exists(bool),
    OneOf(Vec<Scalar>),
    /// The order of the value and the limit, either of two.
    Compare([Ordering; 2], Number),
    StartsWith(String),
    EndsWith(String),
    Contains(String),
}

impl Config {
    /// Notes everything that is wrong.
    pub(super) fn validate(&self, path: &str, problems: &mut Problems) -> Option<Condition> {
        let tests = self.tests();
        let field = match &self.field {
            Some(text) => Field::parse(text).map_err(|why| problems.add(format!("{path}.field"), why)).ok().map(Some),
            None => Some(None),
        };
        if self.field.is_none() && !tests.is_empty() {
            problems.add(format!("{path}.field"), "missing; name the field that the tests are about");
        }
        if self.field.is_some() && tests.is_empty() {
            problems.add(path, "says nothing about the field; there are `exists`, `equals`, `one-of`, `above`, `at-least`, `below`, `at-most`, `starts-with`, `ends-with` and `contains`");
        }
        let mut parts = Some(Vec::new());
        let mut part = |condition: Option<Condition>| match (condition, &mut parts) {
            (Some(condition), Some(parts)) => parts.push(condition),
            _ => parts = None,
        };
        for test in tests {
            part(field.clone().flatten().map(|field| Condition::Test(field, test)));
        }
        if let Some(all) = &self.all {
            part(list(all, &format!("{path}.all"), problems).map(Condition::All));
        }
        if let Some(any) = &self.any {
            part(list(any, &format!("{path}.any"), problems).map(Condition::Any));
        }
        if let Some(not) = &self.not {
            part(not.validate(&format!("{path}.not"), problems).map(|condition| Condition::Not(Box::new(condition))));
        }
        let parts = parts?;
        if parts.is_empty() && self.field.is_none() {
            problems.add(path, "says nothing; there are `field` with a test, `all`, `any` and `not`");
        }
        field.map(|_| Condition::All(parts))
    }

    fn tests(&self) -> Vec<Test> {
        let limit = |limit: Option<Limit>, orders| limit.map(|limit| Test::Compare(orders, limit.0));
        let tests = [
            self.exists.map(Test::Exists),
            self.equals.clone().map(|value| Test::OneOf(vec![value])),
            self.one_of.clone().map(Test::OneOf),
            limit(self.above, [Ordering::Greater; 2]),
            limit(self.at_least, [Ordering::Greater, Ordering::Equal]),
            limit(self.below, [Ordering::Less; 2]),
            limit(self.at_most, [Ordering::Less, Ordering::Equal]),
            self.starts_with.clone().map(Test::StartsWith),
            self.ends_with.clone().map(Test::EndsWith),
            self.contains.clone().map(Test::Contains),
        ];
        tests.into_iter().flatten().collect()
    }
}

fn list(conditions: &[Config], path: &str, problems: &mut Problems) -> Option<Vec<Condition>> {
    if conditions.is_empty() {
        problems.add(path, "must not be empty");
    }
    let checked: Vec<_> = conditions
        .iter()
        .enumerate()
        .map(|(index, condition)| condition.validate(&format!("{path}[{index}]"), problems))
        .collect();
    checked.into_iter().collect()
}

impl Condition {
    /// Whether a record is as it says.
    pub(super) fn holds(&self, document: &Document<'_>) -> bool {
        match self {
            Self::All(conditions) => conditions.iter().all(|condition| condition.holds(document)),
            Self::Any(conditions) => conditions.iter().any(|condition| condition.holds(document)),
            Self::Not(condition) => !condition.holds(document),
            Self::Test(field, test) => test.holds(field.find(document).map_or(Value::Null, Value::of)),
        }
    }
}

impl Test {
    fn holds(&self, value: Value<'_>) -> bool {
        match (self, &value) {
            (Self::Exists(wanted), value) => *wanted == (*value != Value::Null),
            (Self::OneOf(scalars), value) => scalars.iter().any(|scalar| scalar.is(value)),
            (Self::Compare(orders, limit), value) => {
                let order = value.number().and_then(|number| number.compare(*limit));
                order.is_some_and(|order| orders.contains(&order))
            }
            (Self::StartsWith(text), Value::Text(value)) => value.starts_with(&**text),
            (Self::EndsWith(text), Value::Text(value)) => value.ends_with(&**text),
            (Self::Contains(text), Value::Text(value)) => value.contains(&**text),
            _ => false,
        }
    }
}

impl Scalar {
    fn is(&self, value: &Value<'_>) -> bool {
        match (self, value) {
            (Self::Text(text), Value::Text(value)) => text == value,
            (Self::Bool(bool), Value::Bool(value)) => bool == value,
            (Self::Number(number), Value::Number(value)) => number.0.compare(*value) == Some(Ordering::Equal),
            _ => false,
        }
    }
}

struct ScalarVisitor;

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

impl Visitor<'_> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a number or a boolean")
    }

    fn visit_bool<E>(self, bool: bool) -> Result<Scalar, E> {
        Ok(Scalar::Bool(bool))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Scalar, E> {
        Ok(Scalar::Number(Limit(Number::Whole(number.into()))))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Scalar, E> {
        Ok(Scalar::Number(Limit(Number::Other(number))))
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar::Text(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_any(ScalarVisitor)? {
            Scalar::Number(limit) => Ok(limit),
            Scalar::Text(text) => Err(de::Error::invalid_type(de::Unexpected::Str(&text), &"a number")),
            Scalar::Bool(bool) => Err(de::Error::invalid_type(de::Unexpected::Bool(bool), &"a number")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(toml: &str, record: &str) -> bool {
        let config: Config = toml::from_str(toml).expect(toml);
        let mut problems = Problems::default();
        let condition = config.validate("filter", &mut problems);
        assert_eq!(problems.list(), [], "{toml}");
        condition.expect("right").holds(&Document::parse(record).expect("JSON"))
    }

    #[test]
    fn every_test_is_what_its_name_says() {
        let record = r#"{"t":21.5,"n":9007199254740993,"s":"warn: hot","code":"404","on":true,"nil":null,"o":{"x":"7"},"l":[1]}"#;
        for (toml, expected) in [
            ("field = 't'\nabove = 21.4", true),
            ("field = 't'\nabove = 21.5", false),
            ("field = 't'\nat-least = 21.5", true),
            ("field = 't'\nbelow = 22", true),
            ("field = 't'\nat-most = 21", false),
            ("field = 't'\nabove = 20\nbelow = 21", false),
            ("field = 'n'\nabove = 9007199254740992", true),
            ("field = 'code'\nat-least = 400", true),
            ("field = '/o/x'\nbelow = 8", true),
            ("field = 's'\nabove = 0", false),
            ("field = 'none'\nbelow = 0", false),
            ("field = 't'\nequals = 21.5", true),
            ("field = 'code'\nequals = '404'", true),
            ("field = 'code'\nequals = 404", false),
            ("field = 'on'\nequals = true", true),
            ("field = 's'\none-of = ['x', 'warn: hot']", true),
            ("field = 's'\none-of = []", false),
            ("field = 's'\nstarts-with = 'warn'", true),
            ("field = 's'\nends-with = 'hot'\ncontains = ': '", true),
            ("field = 't'\ncontains = '2'", false),
            ("field = 's'\nexists = true", true),
            ("field = 'l'\nexists = true", true),
            ("field = 'nil'\nexists = true", false),
            ("field = 'none'\nexists = false", true),
            ("not = { field = 't', above = 30 }", true),
            ("any = [{ field = 't', above = 30 }, { field = 'on', equals = true }]", true),
            ("all = [{ field = 't', above = 30 }, { field = 'on', equals = true }]", false),
            ("field = 'on'\nequals = true\nany = [{ field = 't', above = 30 }]", false),
        ] {
            assert_eq!(holds(toml, record), expected, "{toml}");
        }
        assert!(!holds("field = 't'\nexists = true", "[1]"));
    }

    #[test]
    fn every_mistake_is_told_with_its_key() {
        let config: Config = toml::from_str(
            "above = 1\nall = []\nany = [{ field = 'a' }, { field = '', exists = true }, {}]\nnot = { field = '/~', below = 2 }",
        )
        .expect("TOML");
        let mut problems = Problems::default();
        assert!(config.validate("f", &mut problems).is_none());
        let told: Vec<_> = problems.list().iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(told, ["f.field", "f.all", "f.any[0]", "f.any[1].field", "f.any[2]", "f.not.field"]);
        for wrong in ["above = '7'", "equals = [1]", "field = 7", "less = 7"] {
            assert!(toml::from_str::<Config>(wrong).is_err(), "{wrong}");
        }
    }
}
