//! Who may publish to which topics. Pure.
//!
//! Without rules everybody may publish to everything. With rules, a message is taken if any of the rules that are about its client
//! names its topic. `{user}` and `{client-id}` in a topic filter stand for one level: a client whose name holds a slash or a wildcard
//! fits no such filter, or it could give itself another one's rights.

use rumqttc::mqttbytes;
use serde::Deserialize;

use crate::config::Problems;

/// One of `[[sources.NAME.rules]]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Rule {
    /// Users that it is about; a `*` at the end stands for anything. All clients, named or not, if left out.
    pub users: Option<Vec<String>>,
    /// Client ids that it is about, likewise. A client chooses its own.
    pub client_ids: Option<Vec<String>>,
    /// Topic filters that they may publish to, with `{user}` and `{client-id}`.
    pub publish: Vec<String>,
}

/// What one client may publish to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Allowed {
    Everything,
    /// What one of these filters matches.
    Topics(Vec<String>),
}

/// The rules of a listener.
#[derive(Debug, Clone, Default)]
pub(super) struct Rules(Vec<Rule>);

impl Rules {
    /// Notes what is wrong with the rules, which stand at `path`.
    pub(super) fn validate(rules: &[Rule], path: &str, problems: &mut Problems) -> Self {
        for (at, rule) in rules.iter().enumerate() {
            let mut wrong = |key: &str, message: String| problems.add(format!("{path}[{at}].{key}"), message);
            if rule.publish.is_empty() {
                wrong("publish", "names no topic filter; such as [\"plant/{user}/#\"]".into());
            }
            for filter in &rule.publish {
                let example = filter.replace(USER, "x").replace(CLIENT_ID, "x");
                if example.contains(['{', '}']) {
                    wrong("publish", format!("`{filter}` has braces for something else than {USER} or {CLIENT_ID}"));
                } else if !mqttbytes::valid_filter(&example) {
                    let message = "is not a topic filter: `+` and `#` stand alone between slashes, `#` last";
                    wrong("publish", format!("`{filter}` {message}"));
                }
            }
            for (key, names) in [("users", &rule.users), ("client-ids", &rule.client_ids)] {
                for name in names.iter().flatten() {
                    if name.is_empty() || name.trim_end_matches('*').contains('*') || name.ends_with("**") {
                        wrong(key, format!("`{name}` is no name: a `*` may stand at its end"));
                    }
                }
                if names.as_ref().is_some_and(Vec::is_empty) {
                    wrong(key, "names nobody; left out, it is about everybody".into());
                }
            }
        }
        Self(rules.to_vec())
    }

    /// What a client may publish to. `user` is whom it has proved to be.
    pub(super) fn of(&self, user: Option<&str>, client_id: &str) -> Allowed {
        if self.0.is_empty() {
            return Allowed::Everything;
        }
        let about = |rule: &&Rule| {
            rule.users.as_ref().is_none_or(|users| user.is_some_and(|user| is_among(user, users)))
                && rule.client_ids.as_ref().is_none_or(|ids| is_among(client_id, ids))
        };
        let filled = |filter: &String| {
            let filter = fill(filter, USER, user)?;
            fill(&filter, CLIENT_ID, Some(client_id))
        };
        Allowed::Topics(self.0.iter().filter(about).flat_map(|rule| &rule.publish).filter_map(filled).collect())
    }
}

impl Allowed {
    /// Whether a message may go there.
    pub(super) fn includes(&self, topic: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Topics(filters) => filters.iter().any(|filter| mqttbytes::matches(topic, filter)),
        }
    }
}

const USER: &str = "{user}";
const CLIENT_ID: &str = "{client-id}";

/// A filter with a name in it; nothing if it asks for a name that is not there, or is more than one level.
fn fill(filter: &str, placeholder: &str, name: Option<&str>) -> Option<String> {
    if !filter.contains(placeholder) {
        return Some(filter.to_owned());
    }
    let name = name.filter(|name| !name.is_empty() && !name.contains(['/', '+', '#', '{', '}']))?;
    Some(filter.replace(placeholder, name))
}

fn is_among(name: &str, patterns: &[String]) -> bool {
    patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == pattern,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(users: &[&str], client_ids: &[&str], publish: &[&str]) -> Rule {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let some = |names: &[&str]| (!names.is_empty()).then(|| list(names));
        Rule { users: some(users), client_ids: some(client_ids), publish: list(publish) }
    }

    fn rules(rules: &[Rule]) -> Rules {
        let mut problems = Problems::default();
        let rules = Rules::validate(rules, "rules", &mut problems);
        assert_eq!(problems.list(), []);
        rules
    }

    #[test]
    fn without_rules_everything_is_allowed() {
        assert!(rules(&[]).of(None, "x").includes("any/topic"));
    }

    #[test]
    fn any_rule_about_a_client_may_allow_its_topic() {
        let rules = rules(&[
            rule(&["anna"], &[], &["plant/#"]),
            rule(&["sensor-*"], &["s*"], &["sensors/{user}/+"]),
            rule(&[], &[], &["hello/{client-id}"]),
        ]);
        let may = |user, client_id: &str, topic: &str| rules.of(user, client_id).includes(topic);
        assert!(may(Some("anna"), "x", "plant/a/b") && !may(Some("anna"), "x", "sensors/anna/t"));
        assert!(may(Some("sensor-7"), "s7", "sensors/sensor-7/t"));
        assert!(!may(Some("sensor-7"), "s7", "sensors/sensor-8/t"), "another one's topic");
        assert!(!may(Some("sensor-7"), "t7", "sensors/sensor-7/t"), "another client id");
        assert!(may(None, "x", "hello/x") && !may(None, "x", "hello/y") && !may(None, "x", "plant/a"));
        assert!(!may(Some("annabel"), "x", "plant/a"));
    }

    #[test]
    fn nobody_names_himself_into_another_ones_topics() {
        let rules = rules(&[rule(&[], &[], &["by-id/{client-id}/#"]), rule(&["*"], &[], &["by-user/{user}/#"])]);
        for name in ["+", "#", "a/b", "", "{user}"] {
            assert_eq!(rules.of(Some(name), name), Allowed::Topics(Vec::new()), "{name}");
        }
        assert_eq!(rules.of(None, ""), Allowed::Topics(Vec::new()));
    }

    #[test]
    fn wildcards_do_not_reach_the_servers_own_topics() {
        assert!(!rules(&[rule(&[], &[], &["#"])]).of(None, "x").includes("$SYS/broker"));
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        let mut problems = Problems::default();
        let wrong = [
            rule(&["a*b"], &[""], &["a/#/b", "x/{topic}", "y{user}+"]),
            Rule { users: Some(Vec::new()), ..Rule::default() },
        ];
        let _ = Rules::validate(&wrong, "s.rules", &mut problems);
        let found: Vec<_> = problems.list().iter().map(ToString::to_string).collect();
        let places: Vec<_> = found.iter().filter_map(|problem| Some(problem.split_once(": ")?.0)).collect();
        let expected = [
            "s.rules[0].publish",
            "s.rules[0].publish",
            "s.rules[0].publish",
            "s.rules[0].users",
            "s.rules[0].client-ids",
            "s.rules[1].publish",
            "s.rules[1].users",
        ];
        assert_eq!(places, expected, "{found:#?}");
    }

    proptest! {
        #[test]
        fn a_placeholder_is_never_more_than_one_level(name in "\\PC{0,12}", topic in "[a-c/]{0,12}") {
            let rules = rules(&[rule(&[], &[], &["x/{client-id}/y"])]);
            if rules.of(None, &name).includes(&topic) {
                prop_assert_eq!(topic, format!("x/{name}/y"));
            }
        }
    }
}
