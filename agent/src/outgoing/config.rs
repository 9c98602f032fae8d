//! How a destination is reached: the keys that all of them have that speak HTTP.

use std::{path::PathBuf, time::Duration};

use serde::Deserialize;

use super::{
    address::http_address,
    proxy::{self, Proxies, Route, Variables},
};
use crate::{
    config::{Problems, Secret, duration},
    tls::ClientFiles,
};

/// How a destination is reached.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// `"http://host:port"` or `"socks5://host:port"`; `"none"`: no proxy, whatever the environment says. Left out: as
    /// `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` of the environment say, but never for loopback.
    pub proxy: Option<String>,
    /// Who we are to the proxy.
    pub proxy_user: Option<String>,
    /// File with the password for it.
    pub proxy_password_file: Option<PathBuf>,
    /// Environment variable with the password for it.
    pub proxy_password_env: Option<String>,
    /// PEM file with the authorities to trust, in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file with our own certificate, for endpoints that demand one.
    pub client_cert_file: Option<PathBuf>,
    /// PEM file with its private key.
    pub client_key_file: Option<PathBuf>,
    /// How long to wait for a connection, proxy and TLS included.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// How long to wait for an answer; after that the request is sent again.
    #[serde(with = "duration")]
    pub request_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            proxy: None,
            proxy_user: None,
            proxy_password_file: None,
            proxy_password_env: None,
            ca_file: None,
            client_cert_file: None,
            client_key_file: None,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
        }
    }
}

impl Config {
    /// Notes what is missing or cannot be.
    pub fn validate(&self, path: &str, problems: &mut Problems) {
        self.proxies(path, problems);
        if self.ca_file.is_some() || self.client_cert_file.is_some() || self.client_key_file.is_some() {
            self.tls_files().validate(path, problems);
        }
        for (key, value) in [("connect-timeout", self.connect_timeout), ("request-timeout", self.request_timeout)] {
            if value < Duration::from_millis(100) || value > Duration::from_secs(600) {
                problems.add(format!("{path}.{key}"), format!("must be 100ms to 10m, not {}", duration::show(value)));
            }
        }
    }

    /// By which way to `destination`, in a few words; nothing if it is the direct one and nothing was said about it.
    #[must_use]
    pub fn describe(&self, destination: &str, variables: Variables<'_>) -> String {
        match self.proxy.as_deref() {
            None => http_address(destination).map_or_else(String::new, |to| proxy::describe(&to, variables)),
            Some("none") => " without a proxy".to_owned(),
            Some(proxy) => format!(" through {proxy}"),
        }
    }

    /// The proxies that these settings, or else the environment, speak of. Problems are noted, and give none.
    pub(super) fn proxies(&self, path: &str, problems: &mut Problems) -> Proxies {
        let (file, variable) = (self.proxy_password_file.as_deref(), self.proxy_password_env.as_deref());
        let password = Secret::read(path, "proxy-password", file, variable, problems);
        let has_password = file.is_some() || variable.is_some();
        if has_password && self.proxy_user.is_none() {
            problems.add(format!("{path}.proxy-user"), "is missing: whose password it is");
        }
        let proxy = match self.proxy.as_deref() {
            Some(proxy) if proxy != "none" => proxy,
            nothing => {
                if self.proxy_user.is_some() || has_password {
                    problems.add(format!("{path}.proxy"), "is missing: for which proxy the user is");
                }
                if nothing.is_some() {
                    return Proxies::None;
                }
                return Proxies::of_environment(&|name| std::env::var(name).ok()).unwrap_or_else(|message| {
                    problems.add(format!("{path}.proxy"), message);
                    Proxies::None
                });
            }
        };
        let user = self.proxy_user.as_deref().map(|user| (user, password.as_ref().map_or("", Secret::expose)));
        match Route::through(proxy, user) {
            Ok(route) => Proxies::Always(route),
            Err(message) => {
                problems.add(format!("{path}.proxy"), message);
                Proxies::None
            }
        }
    }

    /// The files for TLS.
    #[must_use]
    pub fn tls_files(&self) -> ClientFiles<'_> {
        ClientFiles {
            ca: self.ca_file.as_deref(),
            certificate: self.client_cert_file.as_deref(),
            key: self.client_key_file.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::reader;

    fn problems_of(text: &str) -> Vec<String> {
        let mut problems = Problems::default();
        let table = toml::from_str(text).expect("TOML");
        let config: Config = reader::read(table, "destinations.cloud", &[], &mut problems).expect("a table");
        config.validate("destinations.cloud", &mut problems);
        problems.list().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_password_belongs_into_a_file_and_is_not_repeated() {
        let found = problems_of("proxy = 'http://me:hunter2@proxy:3128'");
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("proxy-user") && !found[0].contains("hunter2"), "{found:?}");
    }

    #[test]
    fn every_mistake_is_told_by_its_key() {
        for (text, key) in [
            ("proxy = 'https://proxy:3128'", "proxy"),
            ("proxy = 'socks4://proxy:1080'", "proxy"),
            ("proxy = 'proxy:3128'", "proxy"),
            ("proxy = 'http://proxy:3128/path'", "proxy"),
            ("proxy-user = 'me'", "proxy"),
            ("proxy = 'none'\nproxy-user = 'me'", "proxy"),
            ("proxy = 'http://proxy:3128'\nproxy-user = 'me'\nproxy-password-file = '/nowhere'", "proxy-password-file"),
            ("client-cert-file = '/nowhere'", "client-cert-file"),
            ("ca-file = '/nowhere'", "ca-file"),
            ("connect-timeout = '1ms'", "connect-timeout"),
            ("request-timeout = '1h'", "request-timeout"),
        ] {
            let found = problems_of(text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].starts_with(&format!("destinations.cloud.{key}: ")), "{text}: {found:?}");
        }
    }

    #[test]
    fn what_is_right_is_taken() {
        for text in
            ["", "proxy = 'none'", "proxy = 'http://proxy'", "proxy = 'socks5://10.0.0.1:1080'\nproxy-user = 'me'"]
        {
            assert_eq!(problems_of(text), Vec::<String>::new(), "{text}");
        }
    }
}
