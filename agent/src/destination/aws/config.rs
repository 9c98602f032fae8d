//! Where AWS is, and who we are to it: the keys that all destinations there have.

use hyper::http::Uri;
use serde::Deserialize;

use crate::{config::Problems, credentials::Config as Credentials, outgoing::is_loopback};

/// Where AWS is, and who we are to it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Such as `"eu-west-1"`.
    pub region: Option<String>,
    /// In place of AWS itself, such as `"http://127.0.0.1:4568"`.
    pub endpoint: Option<String>,
    /// Where the credentials come from; left out: `"placeholder"` for an endpoint on loopback, else `"default"`.
    pub credentials: Option<Credentials>,
}

impl Config {
    /// Notes what is missing or cannot be.
    pub fn validate(&self, path: &str, problems: &mut Problems) {
        match &self.region {
            None => problems.add(format!("{path}.region"), "is missing: such as \"eu-west-1\""),
            Some(region) if region.is_empty() => problems.add(format!("{path}.region"), "is empty"),
            Some(_) => {}
        }
        if let Some(endpoint) = &self.endpoint
            && host(endpoint).is_none()
        {
            problems.add(
                format!("{path}.endpoint"),
                format!(
                    "`{endpoint}` is no endpoint: an address such as \"https://kinesis.example.com:4567\" is needed"
                ),
            );
        }
        if let Some(credentials) = &self.credentials {
            credentials.validate(&format!("{path}.credentials"), problems);
        }
    }

    /// Where it is, in a few words.
    #[must_use]
    pub fn describe(&self) -> String {
        let place = match &self.endpoint {
            Some(endpoint) => format!("at {endpoint}"),
            None => format!("in {}", self.region.as_deref().unwrap_or_default()),
        };
        match self.credentials.as_ref().and_then(Credentials::describe) {
            Some(credentials) => format!("{place}, {credentials}"),
            None => place,
        }
    }

    /// Where credentials come from, when nothing was said about it.
    pub(super) fn credentials(&self) -> Credentials {
        self.credentials.clone().unwrap_or_else(|| {
            let local = self.endpoint.as_deref().and_then(host).is_some_and(|host| is_loopback(&host));
            if local { Credentials::Placeholder } else { Credentials::Default }
        })
    }
}

/// The host of an `http` or `https` address.
fn host(endpoint: &str) -> Option<String> {
    let uri: Uri = endpoint.parse().ok()?;
    let http = matches!(uri.scheme_str(), Some("http" | "https"));
    uri.host().filter(|host| http && !host.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(endpoint: Option<&str>, credentials: Option<Credentials>) -> Credentials {
        let endpoint = endpoint.map(str::to_owned);
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
}
