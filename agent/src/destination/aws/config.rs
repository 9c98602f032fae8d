//! Where AWS is, and who we are to it: the keys that all destinations there have.

use serde::Deserialize;

use crate::{
    config::Problems,
    credentials::{Config as Credentials, Written},
    outgoing::{http_address, is_loopback},
};

/// Where AWS is, and who we are to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Such as `"eu-west-1"`.
    pub region: Option<String>,
    /// In place of AWS itself, such as `"http://127.0.0.1:4568"`.
    pub endpoint: Option<String>,
    /// Where the credentials come from; left out: `"placeholder"` for an endpoint on loopback, else `"default"`.
    pub credentials: Option<Written>,
}

impl Config {
    /// Notes what is missing or cannot be.
    pub fn validate(&self, path: &str, problems: &mut Problems) {
        match &self.region {
            None => problems.add(format!("{path}.region"), "is missing: such as \"eu-west-1\""),
            Some(region) if is_region(region) => {}
            Some(region) => problems
                .add(format!("{path}.region"), format!("`{region}` is no region: such as \"eu-west-1\" is needed")),
        }
        if let Some(endpoint) = &self.endpoint
            && host(endpoint).is_none()
        {
            problems.add(
                format!("{path}.endpoint"),
                // Not repeated: there may be a password in it.
                "is no endpoint: an address such as \"https://kinesis.example.com:4567\" is needed, without a user or a query",
            );
        }
        if let Some(credentials) = &self.credentials {
            credentials.validate(&format!("{path}.credentials"), problems);
        }
    }

    /// What is hardly meant. Of another endpoint's region nobody but that knows what it may be.
    pub(in crate::destination) fn warnings(&self) -> Vec<(&'static str, String)> {
        // What can be no region at all is a problem.
        let region = self.region.as_ref().filter(|region| self.endpoint.is_none() && is_region(region));
        let region = region.filter(|region| !is_region_of_aws(region));
        let why = |region| format!("`{region}` does not look like a region of AWS such as \"eu-west-1\"");
        region.map(|region| ("region", why(region))).into_iter().collect()
    }

    /// Where it is, in a few words.
    #[must_use]
    pub fn describe(&self) -> String {
        let place = match &self.endpoint {
            Some(endpoint) => format!("at {endpoint}"),
            None => format!("in {}", self.region.as_deref().unwrap_or_default()),
        };
        match self.credentials.as_ref().and_then(|credentials| credentials.meant().describe()) {
            Some(credentials) => format!("{place}, {credentials}"),
            None => place,
        }
    }

    /// The address of one of its services: the endpoint, or AWS itself.
    pub(in crate::destination) fn address(&self, service: &str) -> String {
        let region = self.region.as_deref().unwrap_or_default();
        let china = if region.starts_with("cn-") { ".cn" } else { "" };
        self.endpoint.clone().unwrap_or_else(|| format!("https://{service}.{region}.amazonaws.com{china}"))
    }

    /// Where credentials come from, when nothing was said about it.
    pub(super) fn credentials(&self) -> Credentials {
        self.credentials.as_ref().map(Written::meant).unwrap_or_else(|| {
            let local = self.endpoint.as_deref().and_then(host).is_some_and(|host| is_loopback(&host));
            if local { Credentials::Placeholder } else { Credentials::Default }
        })
    }
}

/// The host of an endpoint. The SDK does not take a query.
fn host(endpoint: &str) -> Option<String> {
    let uri = http_address(endpoint).filter(|uri| uri.query().is_none())?;
    uri.host().map(str::to_owned)
}

/// Regions become part of a host's name.
fn is_region(text: &str) -> bool {
    let sound = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(sound) && !text.starts_with('-') && !text.ends_with('-')
}

/// By its form: `eu-west-1`, `us-gov-east-1`, `eusc-de-east-1`. Which there are changes.
fn is_region_of_aws(text: &str) -> bool {
    let parts: Vec<_> = text.split('-').collect();
    let [first, words @ .., number] = &parts[..] else { return false };
    let is_word = |word: &&str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
    let is_number = number.len() <= 2 && number.bytes().all(|byte| byte.is_ascii_digit()) && !number.starts_with('0');
    let is_place = (2..=4).contains(&first.len()) && is_word(first);
    is_place && !words.is_empty() && words.iter().all(is_word) && is_number && !number.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_look_like_a_region_is_warned_of_where_aws_itself_is_meant() {
        let warnings = |region: &str, endpoint: Option<&str>| {
            let endpoint = endpoint.map(str::to_owned);
            Config { region: Some(region.into()), endpoint, credentials: None }.warnings().len()
        };
        for region in
            ["eu-west-1", "ap-southeast-7", "us-gov-west-1", "us-isob-east-1", "eusc-de-east-1", "mx-central-1"]
        {
            assert_eq!(warnings(region, None), 0, "{region}");
        }
        for region in
            ["eu-west", "eu-west-1a", "eu-west1", "euwest1", "ireland", "eu-1", "eu--1", "e-west-1", "eu-west-01"]
        {
            assert_eq!((warnings(region, None), warnings(region, Some("http://127.0.0.1:1"))), (1, 0), "{region}");
        }
        // What can be no region anywhere is a problem, and told once.
        for region in ["EU-WEST-1", "eu west", ""] {
            let mut problems = Problems::default();
            Config { region: Some(region.into()), ..Config::default() }.validate("d", &mut problems);
            assert_eq!((problems.list().len(), warnings(region, None)), (1, 0), "{region}: {problems:?}");
        }
    }

    fn with(endpoint: Option<&str>, credentials: Option<Credentials>) -> Credentials {
        let (endpoint, credentials) = (endpoint.map(str::to_owned), credentials.map(Written::Word));
        Config { region: Some("r".to_owned()), endpoint, credentials }.credentials()
    }

    #[test]
    fn real_credentials_are_never_sent_to_a_local_stand_in() {
        for local in ["http://127.0.0.1:4568", "http://localhost:4568", "http://[::1]:4568"] {
            assert_eq!(with(Some(local), None), Credentials::Placeholder, "{local}");
        }
        assert_eq!(with(Some("https://kinesis.example.com"), None), Credentials::Default);
        assert_eq!(with(None, None), Credentials::Default);
        assert_eq!(with(Some("http://127.0.0.1:1"), Some(Credentials::Default)), Credentials::Default);
    }

    #[test]
    fn what_could_never_be_reached_is_refused_and_no_password_is_repeated() {
        for (region, endpoint, at) in [
            ("eu west", "http://127.0.0.1:4568", "region"),
            ("", "http://127.0.0.1:4568", "region"),
            ("eu-west-1", "http://127.0.0.1:99999", "endpoint"),
            ("eu-west-1", "http://127.0.0.1:4568/p?x", "endpoint"),
            ("eu-west-1", "http://user:s3cret@127.0.0.1:4568", "endpoint"),
        ] {
            let config = Config { region: Some(region.into()), endpoint: Some(endpoint.into()), credentials: None };
            let mut problems = Problems::default();
            config.validate("destinations.cloud", &mut problems);
            let found: Vec<_> = problems.list().iter().map(ToString::to_string).collect();
            assert_eq!(found.len(), 1, "{region} {endpoint}: {found:?}");
            assert!(found[0].starts_with(&format!("destinations.cloud.{at}: ")), "{found:?}");
            assert!(!found[0].contains("s3cret"), "{found:?}");
        }
    }
}
