//! What the provider answers. Pure.

use std::time::Duration;

use aws_credential_types::Credentials;
use aws_smithy_types::{DateTime, date_time::Format};
use forebay_log_store::Timestamp;
use serde::Deserialize;

use super::{
    config::Config,
    fetch::{Error, Heard},
};

/// A whole page of HTML helps nobody.
const MESSAGE_CHARS_MAX: usize = 300;

/// Credentials, and what the server knows of the time.
pub(super) struct Answer {
    pub(super) credentials: Credentials,
    /// How long they hold.
    pub(super) lifetime: Duration,
    /// When it answered.
    pub(super) at: Timestamp,
}

#[derive(Deserialize)]
struct Granted {
    credentials: Given,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Given {
    access_key_id: String,
    secret_access_key: String,
    session_token: String,
    expiration: String,
}

#[derive(Deserialize)]
struct Refused {
    #[serde(alias = "Message", alias = "errorMessage")]
    message: String,
}

/// What it means.
pub(super) fn read(config: &Config, heard: &Heard) -> Result<Answer, Error> {
    if heard.status != 200 {
        return Err(refused(config, heard));
    }
    // Never with the error's own words, which may quote the answer.
    let granted: Granted = serde_json::from_slice(&heard.body)
        .map_err(|error| nonsense(format!("it is not what was asked for, at column {}", error.column())))?;
    let given = granted.credentials;
    let at = heard.at.ok_or_else(|| nonsense("it has no Date".to_owned()))?;
    let end = DateTime::from_str(&given.expiration, Format::DateTime)
        .ok()
        .and_then(|end| end.to_millis().ok())
        .and_then(|end| u64::try_from(end).ok())
        .ok_or_else(|| nonsense("its expiration is no time".to_owned()))?;
    let lifetime = Duration::from_millis(end.saturating_sub(at.0));
    if lifetime.is_zero() {
        return Err(nonsense("what it gives has expired by its own Date".to_owned()));
    }
    let credentials =
        Credentials::new(given.access_key_id, given.secret_access_key, Some(given.session_token), None, "iot");
    Ok(Answer { credentials, lifetime, at })
}

fn refused(config: &Config, heard: &Heard) -> Error {
    let said = match serde_json::from_slice::<Refused>(&heard.body) {
        Ok(refused) => refused.message,
        Err(_) => String::from_utf8_lossy(&heard.body).split_whitespace().collect::<Vec<_>>().join(" "),
    };
    let said: String = said.chars().take(MESSAGE_CHARS_MAX).collect();
    let said = if said.is_empty() { String::new() } else { format!(": {said}") };
    let alias = &config.role_alias;
    let advice = match heard.status {
        403 => format!(
            "; look whether the certificate is active and has a policy that allows iot:AssumeRoleWithCertificate for role alias \
             `{alias}`{}, and whether the alias' role trusts credentials.iot.amazonaws.com",
            config.thing_name.as_ref().map_or_else(String::new, |thing| format!(", is attached to thing `{thing}`"))
        ),
        404 => format!("; look whether there is a role alias `{alias}` in that account and region"),
        _ => String::new(),
    };
    Error::Refused { status: heard.status, said: format!("{said}{advice}") }
}

fn nonsense(what: String) -> Error {
    Error::Nonsense { what }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(status: u16, body: &str) -> Heard {
        Heard { status, body: body.as_bytes().to_vec(), at: Some(Timestamp(1_790_000_000_000)) }
    }

    fn config() -> Config {
        Config { role_alias: "gateways".into(), thing_name: Some("truck-7".into()), ..Config::default() }
    }

    const GRANTED: &str = r#"{"credentials":{"accessKeyId":"AKIA1","secretAccessKey":"hush","sessionToken":"token","expiration":"2026-09-21T15:13:20Z"}}"#;

    #[test]
    fn they_hold_as_long_as_the_server_says_by_its_own_clock() {
        let answer = read(&config(), &heard(200, GRANTED)).map_err(|error| error.to_string()).expect("granted");
        assert_eq!(answer.lifetime, Duration::from_secs(3600));
        assert_eq!((answer.credentials.access_key_id(), answer.credentials.session_token()), ("AKIA1", Some("token")));
        assert_eq!(answer.credentials.expiry(), None, "the SDK would judge it by the wall clock");
    }

    #[test]
    fn a_refusal_says_what_to_look_at() {
        let said = |status, body: &str| read(&config(), &heard(status, body)).err().expect("refused").to_string();
        let text = said(403, r#"{"message":"Access Denied"}"#);
        for part in ["403: Access Denied", "role alias `gateways`", "thing `truck-7`", "active"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(said(404, r#"{"message":"RoleAlias not found"}"#).contains("RoleAlias not found; look whether"));
        assert!(said(500, &"x".repeat(9000)).len() < 500);
        assert!(said(502, "<html>\n bad\n gateway").ends_with("502: <html> bad gateway"));
    }

    #[test]
    fn an_answer_that_is_none_is_told_without_quoting_it() {
        let secret = GRANTED.replace("\"expiration\"", "\"expires\"");
        for body in [
            secret.as_str(),
            "hush",
            "{}",
            &GRANTED.replace("2026-09-21T15", "yesterday"),
            &GRANTED.replace("2026", "2025"),
        ] {
            let text = read(&config(), &heard(200, body)).err().expect("nonsense").to_string();
            assert!(!text.contains("hush"), "{text}");
        }
        let without_date = Heard { at: None, ..heard(200, GRANTED) };
        assert!(read(&config(), &without_date).is_err());
    }
}
