//! How the AWS IoT credentials provider is asked.

use std::path::PathBuf;

use axum::http::uri::Authority;
use serde::Deserialize;

use crate::{config::Problems, credentials::certificate::Period, tls::ClientFiles};

/// AWS's own port for it.
const PORT: u16 = 443;

/// `credentials = { iot = { ... } }`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// The account's endpoint, such as `"c2sakl5huz0afv.credentials.iot.eu-west-1.amazonaws.com"`; perhaps with a port.
    pub endpoint: String,
    /// The alias of the role whose credentials are wanted.
    pub role_alias: String,
    /// The thing that we are; needed where policies speak of it.
    pub thing_name: Option<String>,
    /// PEM file with the device's certificate.
    pub client_cert_file: PathBuf,
    /// PEM file with its private key.
    pub client_key_file: PathBuf,
    /// PEM file with the authorities to trust, in place of the system's.
    pub ca_file: Option<PathBuf>,
}

impl Config {
    /// Notes what is missing or cannot be, under `path`.
    pub(in crate::credentials) fn validate(&self, path: &str, problems: &mut Problems) {
        if self.endpoint.is_empty() {
            problems.add(
                format!("{path}.endpoint"),
                "missing; `aws iot describe-endpoint --endpoint-type iot:CredentialProvider` tells it",
            );
        } else if self.address().is_none() {
            let endpoint = &self.endpoint;
            problems.add(format!("{path}.endpoint"), format!("`{endpoint}` is no host name, perhaps with a port"));
        }
        // What AWS allows; so neither needs quoting in a path or a header.
        for (key, value) in [("role-alias", Some(&self.role_alias)), ("thing-name", self.thing_name.as_ref())] {
            match value {
                None => {}
                Some(name) if name.is_empty() => problems.add(format!("{path}.{key}"), "missing or empty"),
                Some(name) if !is_name(name) => problems.add(
                    format!("{path}.{key}"),
                    format!("`{name}` cannot be: 1 to 128 characters of a-z A-Z 0-9 _ - : = , @ ."),
                ),
                Some(_) => {}
            }
        }
        let files = [("client-cert-file", &self.client_cert_file), ("client-key-file", &self.client_key_file)];
        let missing: Vec<_> = files.iter().filter(|(_, file)| file.as_os_str().is_empty()).collect();
        for (key, _) in &missing {
            problems.add(format!("{path}.{key}"), "missing; name the file in PEM form");
        }
        if !missing.is_empty() {
            if let Some(ca) = self.ca_file.as_deref() {
                ClientFiles { ca: Some(ca), ..ClientFiles::default() }.validate(path, problems);
            }
            return;
        }
        let known = problems.list().len();
        self.files().validate(path, problems);
        let certificate = format!("{path}.client-cert-file");
        // What is no certificate was told.
        if problems.list()[known..].iter().all(|problem| problem.path != certificate)
            && let Err(message) = Period::of_file(&self.client_cert_file)
        {
            problems.add(certificate, message);
        }
    }

    /// Host and port.
    pub(super) fn address(&self) -> Option<(String, u16)> {
        let authority: Authority = self.endpoint.parse().ok()?;
        let plain = !authority.host().is_empty() && !self.endpoint.contains('@');
        plain.then(|| (authority.host().to_owned(), authority.port_u16().unwrap_or(PORT)))
    }

    /// The files for TLS.
    pub(super) fn files(&self) -> ClientFiles<'_> {
        ClientFiles {
            ca: self.ca_file.as_deref(),
            certificate: Some(&self.client_cert_file),
            key: Some(&self.client_key_file),
        }
    }
}

fn is_name(name: &str) -> bool {
    name.len() <= 128 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-:=,@.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_host_perhaps_with_a_port() {
        let address = |endpoint: &str| Config { endpoint: endpoint.into(), ..Config::default() }.address();
        assert_eq!(address("x.credentials.iot.eu-west-1.amazonaws.com").map(|(_, port)| port), Some(443));
        assert_eq!(address("localhost:8443"), Some(("localhost".into(), 8443)));
        for wrong in ["https://host", "", "a b", "user@host", "host/path"] {
            assert_eq!(address(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn every_wrong_file_is_told_once() {
        let sound = Config { endpoint: "localhost:1".into(), role_alias: "role".into(), ..Config::default() };
        let nowhere = PathBuf::from("/nowhere.pem");
        let config = Config {
            client_cert_file: nowhere.clone(),
            client_key_file: nowhere.clone(),
            ca_file: Some(nowhere.clone()),
            ..sound.clone()
        };
        let told = |config: &Config| {
            let mut problems = Problems::default();
            config.validate("iot", &mut problems);
            problems.into_list().into_iter().map(|problem| problem.path).collect::<Vec<_>>()
        };
        assert_eq!(told(&config), ["iot.ca-file", "iot.client-cert-file", "iot.client-key-file"]);
        let config = Config { ca_file: Some(nowhere), ..sound };
        assert_eq!(told(&config), ["iot.client-cert-file", "iot.client-key-file", "iot.ca-file"]);
    }

    #[test]
    fn everything_that_is_missing_is_told_at_once() {
        let mut problems = Problems::default();
        Config { thing_name: Some("my thing".into()), ..Config::default() }.validate("iot", &mut problems);
        let paths: Vec<_> = problems.list().iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(
            paths,
            ["iot.endpoint", "iot.role-alias", "iot.thing-name", "iot.client-cert-file", "iot.client-key-file"]
        );
    }
}
