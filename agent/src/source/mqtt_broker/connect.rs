//! CONNECT: what a client asks for, in one form for both versions, and whether it is let in. Pure.

use std::{num::NonZeroU32, time::Duration};

use bytes::Bytes;
use rmqtt_codec::v5::ConnectAckReason;

use super::{credentials::Credentials, session::check_topic};

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
    /// Not before this long after the end, and not at all if the client is back by then.
    pub(super) delay_secs: u32,
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
    /// Whether the client may come in.
    pub(super) fn admit(&self, credentials: &Credentials, anonymous: bool) -> Result<(), Refusal> {
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
        match (&self.user, &self.password) {
            // A client that gives credentials where none are asked for is let in as if it gave none.
            (None, _) if anonymous => Ok(()),
            _ if anonymous && credentials.is_empty() => Ok(()),
            (None, _) => Err(Refusal {
                reason: ConnectAckReason::NotAuthorized,
                count: "credentials",
                message: "it gives no user, and anonymous clients are not allowed",
            }),
            (Some(user), password) => {
                if credentials.hold(user, password.as_deref().unwrap_or_default()) {
                    Ok(())
                } else {
                    Err(Refusal {
                        reason: ConnectAckReason::BadUserNameOrPassword,
                        count: "credentials",
                        message: "its user or password is wrong",
                    })
                }
            }
        }
    }

    /// How long the client may be silent: one and a half times what it announced.
    pub(super) fn silence_max(&self) -> Option<Duration> {
        (self.keep_alive_secs > 0).then(|| Duration::from_millis(u64::from(self.keep_alive_secs) * 1500))
    }
}

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

    fn credentials() -> Credentials {
        Credentials::parse("anna:secret\n").expect("one user")
    }

    #[test]
    fn wrong_credentials_are_refused_also_where_anonymous_clients_are_allowed() {
        for anonymous in [false, true] {
            connect(Some("anna"), "secret").admit(&credentials(), anonymous).expect("right");
            for (user, password) in [("anna", "Secret"), ("anna", ""), ("anna", "secret2"), ("bob", "secret")] {
                let refusal = connect(Some(user), password).admit(&credentials(), anonymous).expect_err("wrong");
                assert_eq!(refusal.reason, ConnectAckReason::BadUserNameOrPassword);
            }
        }
    }

    #[test]
    fn anonymous_clients_need_leave() {
        connect(None, "").admit(&credentials(), true).expect("allowed");
        let refusal = connect(None, "").admit(&credentials(), false).expect_err("not allowed");
        assert_eq!((refusal.reason, refusal.count), (ConnectAckReason::NotAuthorized, "credentials"));
    }

    #[test]
    fn credentials_that_nobody_asked_for_do_no_harm() {
        connect(Some("anna"), "x").admit(&Credentials::default(), true).expect("there is nothing to compare with");
    }

    #[test]
    fn a_wills_topic_is_a_topic() {
        let mut connect = connect(None, "");
        connect.will = Some(Will { topic: "gone/#".into(), payload: Vec::new(), delay_secs: 0 });
        assert_eq!(connect.admit(&Credentials::default(), true).expect_err("a wildcard").count, "bad-topic");
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
