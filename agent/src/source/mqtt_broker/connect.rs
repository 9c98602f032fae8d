//! CONNECT: what a client asks for, in one form for both versions, and whether it is let in. Pure.

use std::{num::NonZeroU32, time::Duration};

use bytes::Bytes;
use forebay_log_store::Tag;
use rmqtt_codec::v5::ConnectAckReason;

use super::session::check_topic;

/// Longest client id in bytes. MQTT asks for 23 at least; ours are remembered in number.
const CLIENT_ID_BYTES_MAX: usize = 1024;

/// What a client asks for.
#[derive(Clone)]
pub(super) struct Connect {
    /// Empty: the server chooses one.
    pub(super) client_id: Box<str>,
    /// 0: none.
    pub(super) keep_alive_secs: u16,
    /// Forget what an earlier connection left.
    pub(super) clean: bool,
    /// How long to remember this one once it has ended; `u32::MAX`: for ever.
    pub(super) session_expiry_secs: u32,
    pub(super) user: Option<Box<str>>,
    pub(super) password: Option<Bytes>,
    /// Version 5's AUTH.
    pub(super) extended_authentication: bool,
    /// What the client takes at most.
    pub(super) packet_bytes_max: Option<NonZeroU32>,
    pub(super) will: Option<Will>,
}

/// What is published for a client whose connection ends without its saying so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Will {
    pub(super) topic: Box<str>,
    pub(super) payload: Vec<u8>,
    pub(super) tags: Vec<Tag>,
    /// Not before this long after the end, and not at all if the client is back by then.
    pub(super) delay_secs: u32,
}

/// Whom a listener lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Door {
    /// Whether clients need not say who they are.
    pub(super) anonymous: bool,
    /// Whether there are passwords to compare with.
    pub(super) passwords: bool,
    /// Whether a client is who its certificate says.
    pub(super) user_from_certificate: bool,
}

/// Who a client says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim<'a> {
    /// Nobody, which is enough here.
    Nobody,
    /// Whom its certificate names. That was verified.
    Certified(&'a str),
    /// Somebody, whose password has yet to be compared.
    Password { user: &'a str, password: &'a [u8] },
}

/// A client's certificate, which was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Certificate {
    pub(super) common_name: Option<String>,
}

/// Why a client is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) reason: ConnectAckReason,
    /// What it is counted as.
    pub(super) count: &'static str,
    /// A sentence fragment.
    pub(super) message: &'static str,
}

impl Connect {
    /// Who the client says it is, if what it asks for is offered.
    pub(super) fn claim<'a>(&'a self, door: Door, certificate: Option<&'a Certificate>) -> Result<Claim<'a>, Refusal> {
        if self.extended_authentication {
            return Err(Refusal {
                reason: ConnectAckReason::BadAuthenticationMethod,
                count: "credentials",
                message: "it asks for extended authentication, which is not offered",
            });
        }
        if self.client_id.len() > CLIENT_ID_BYTES_MAX || self.client_id.contains('\0') {
            return Err(Refusal {
                reason: ConnectAckReason::ClientIdentifierNotValid,
                count: "bad-client-id",
                message: "its client id is over 1024 bytes or holds a NUL",
            });
        }
        if self.will.as_ref().is_some_and(|will| check_topic(&will.topic).is_err()) {
            return Err(Refusal {
                reason: ConnectAckReason::TopicNameInvalid,
                count: "bad-topic",
                message: "its will's topic is empty or holds a wildcard or NUL",
            });
        }
        if let Some(certificate) = certificate.filter(|_| door.user_from_certificate) {
            let name = certificate.common_name.as_deref();
            return name.map(Claim::Certified).ok_or(Refusal {
                reason: ConnectAckReason::NotAuthorized,
                count: "credentials",
                message: "its certificate has no common name",
            });
        }
        match &self.user {
            // A client that gives credentials where none are asked for is let in as if it gave none.
            None if door.anonymous => Ok(Claim::Nobody),
            _ if door.anonymous && !door.passwords => Ok(Claim::Nobody),
            None => Err(Refusal {
                reason: ConnectAckReason::NotAuthorized,
                count: "credentials",
                message: "it gives no user, and anonymous clients are not allowed",
            }),
            Some(user) => Ok(Claim::Password { user, password: self.password.as_deref().unwrap_or_default() }),
        }
    }

    /// How long the client may be silent: one and a half times what it announced.
    pub(super) fn silence_max(&self) -> Option<Duration> {
        (self.keep_alive_secs > 0).then(|| Duration::from_millis(u64::from(self.keep_alive_secs) * 1500))
    }
}

/// What a client with the wrong password is told.
pub(super) const WRONG_PASSWORD: Refusal = Refusal {
    reason: ConnectAckReason::BadUserNameOrPassword,
    count: "credentials",
    message: "its user or password is wrong",
};

/// What a client is told whose will no rule allows.
pub(super) const WILL_NOT_ALLOWED: Refusal = Refusal {
    reason: ConnectAckReason::NotAuthorized,
    count: "not-allowed",
    message: "no rule lets it publish to its will's topic",
};

impl std::fmt::Debug for Connect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Neither user nor password: this ends up in logs.
        f.debug_struct("Connect")
            .field("client_id", &self.client_id)
            .field("clean", &self.clean)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(user: Option<&str>, password: &'static str) -> Connect {
        Connect {
            client_id: "device-1".into(),
            keep_alive_secs: 10,
            clean: true,
            session_expiry_secs: 0,
            user: user.map(Into::into),
            password: user.map(|_| Bytes::from_static(password.as_bytes())),
            extended_authentication: false,
            packet_bytes_max: None,
            will: None,
        }
    }

    const DOOR: Door = Door { anonymous: false, passwords: true, user_from_certificate: false };

    #[test]
    fn a_password_is_compared_also_where_anonymous_clients_are_allowed() {
        for anonymous in [false, true] {
            let anna = connect(Some("anna"), "secret");
            let claim = anna.claim(Door { anonymous, ..DOOR }, None);
            assert_eq!(claim, Ok(Claim::Password { user: "anna", password: b"secret" }));
        }
    }

    #[test]
    fn anonymous_clients_need_leave() {
        let nobody = connect(None, "");
        assert_eq!(nobody.claim(Door { anonymous: true, ..DOOR }, None), Ok(Claim::Nobody));
        let refusal = nobody.claim(DOOR, None).expect_err("not allowed");
        assert_eq!((refusal.reason, refusal.count), (ConnectAckReason::NotAuthorized, "credentials"));
    }

    #[test]
    fn credentials_that_nobody_asked_for_do_no_harm() {
        let door = Door { anonymous: true, passwords: false, ..DOOR };
        assert_eq!(connect(Some("anna"), "x").claim(door, None), Ok(Claim::Nobody));
    }

    #[test]
    fn a_certificate_names_its_client_where_it_is_to() {
        let certified = Certificate { common_name: Some("pump-3".into()) };
        let (anna, door) = (connect(Some("anna"), "x"), Door { user_from_certificate: true, ..DOOR });
        assert_eq!(anna.claim(door, Some(&certified)), Ok(Claim::Certified("pump-3")));
        assert!(matches!(anna.claim(door, None), Ok(Claim::Password { .. })), "without one, the password counts");
        assert!(matches!(anna.claim(DOOR, Some(&certified)), Ok(Claim::Password { .. })));
        let nameless = Certificate { common_name: None };
        assert_eq!(anna.claim(door, Some(&nameless)).expect_err("no name").count, "credentials");
    }

    #[test]
    fn a_wills_topic_is_a_topic() {
        let mut connect = connect(None, "");
        connect.will = Some(Will { topic: "gone/#".into(), payload: Vec::new(), tags: Vec::new(), delay_secs: 0 });
        assert_eq!(connect.claim(DOOR, None).expect_err("a wildcard").count, "bad-topic");
    }

    #[test]
    fn silence_is_one_and_a_half_keep_alives() {
        assert_eq!(connect(None, "").silence_max(), Some(Duration::from_secs(15)));
        let never = Connect { keep_alive_secs: 0, ..connect(None, "") };
        assert_eq!(never.silence_max(), None);
    }

    #[test]
    fn secrets_are_not_printed() {
        let printed = format!("{:?}", connect(Some("anna"), "hunter2"));
        assert!(!printed.contains("hunter2") && !printed.contains("anna"), "{printed}");
    }
}
