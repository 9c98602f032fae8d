//! Which proxy leads to an address. Pure, but for reading the environment once.

use std::{fmt, net::IpAddr};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hyper::http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};

use super::address::is_sound;

const WANTED: &str = "a proxy such as \"http://proxy.example:3128\" or \"socks5://proxy.example:1080\" is needed";

/// Which proxies there are.
#[derive(Debug)]
pub(super) enum Proxies {
    /// None at all.
    None,
    /// The same for all.
    Always(Route),
    /// As the environment's variables said at the start.
    Environment(Box<Matcher>),
}

/// The way to an address.
#[derive(Clone)]
pub(super) enum Route {
    /// Straight to it.
    Direct,
    /// Through an HTTP proxy, by CONNECT.
    Tunnel { proxy: Uri, authorization: Option<HeaderValue> },
    /// Through a SOCKS 5 proxy, which also resolves the name.
    Socks { proxy: Uri, user: Option<(String, String)> },
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct => f.write_str("Direct"),
            Self::Tunnel { proxy, .. } | Self::Socks { proxy, .. } => write!(f, "Through({proxy})"),
        }
    }
}

impl Proxies {
    /// Those of the environment.
    ///
    /// # Errors
    /// A variable speaks of something that is no proxy for us. Its value is not repeated: it may hold a password.
    pub(super) fn from_environment() -> Result<Self, String> {
        for names in [["HTTPS_PROXY", "https_proxy"], ["HTTP_PROXY", "http_proxy"], ["ALL_PROXY", "all_proxy"]] {
            let set = names.into_iter().find_map(|name| std::env::var(name).ok().map(|value| (name, value)));
            if let Some((name, value)) = set
                && !value.is_empty()
            {
                let intercept =
                    Matcher::builder().https(value).build().intercept(&Uri::from_static("https://a.invalid"));
                if intercept.is_none_or(|proxy| Route::of(&proxy).is_none()) {
                    return Err(format!("the environment variable `{name}` names no proxy that can be used; {WANTED}"));
                }
            }
        }
        Ok(Self::Environment(Box::new(Matcher::from_env())))
    }

    /// The way to `destination`.
    pub(super) fn route(&self, destination: &Uri) -> Route {
        let host = destination.host().unwrap_or_default();
        match self {
            // The machine's own metadata service has no meaning anywhere else.
            _ if is_link_local(host) => Route::Direct,
            Self::None => Route::Direct,
            Self::Always(route) => route.clone(),
            Self::Environment(_) if is_loopback(host) => Route::Direct,
            Self::Environment(matcher) => {
                matcher.intercept(destination).and_then(|proxy| Route::of(&proxy)).unwrap_or(Route::Direct)
            }
        }
    }
}

impl Route {
    /// Through the proxy that a configuration names.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn through(proxy: &str, user: Option<(&str, &str)>) -> Result<Self, String> {
        if proxy.contains('@') {
            return Err("give the user by `proxy-user`, and its password by `proxy-password-file`".to_owned());
        }
        let named = |uri: &Uri| is_sound(uri) && uri.path().trim_matches('/').is_empty();
        let uri: Uri = proxy.parse().ok().filter(named).ok_or_else(|| format!("`{proxy}` is no proxy; {WANTED}"))?;
        match uri.scheme_str() {
            Some("http") => Ok(Self::Tunnel {
                proxy: with_port(&uri, 80),
                authorization: user.map(|(user, password)| basic(user, password)),
            }),
            Some("socks5" | "socks5h") => {
                let user = user.map(|(user, password)| (user.to_owned(), password.to_owned()));
                if user.iter().any(|(user, password)| user.len() > 255 || password.len() > 255) {
                    return Err("SOCKS takes users and passwords of at most 255 bytes".to_owned());
                }
                Ok(Self::Socks { proxy: with_port(&uri, 1080), user })
            }
            _ => Err(format!("`{proxy}` is no proxy that can be used; {WANTED}")),
        }
    }

    /// Through a proxy of the environment, if it is one that we can speak to.
    fn of(proxy: &Intercept) -> Option<Self> {
        let uri = proxy.uri();
        match uri.scheme_str() {
            Some("http") => {
                Some(Self::Tunnel { proxy: with_port(uri, 80), authorization: proxy.basic_auth().cloned() })
            }
            Some("socks5" | "socks5h") => {
                let user = proxy.raw_auth().map(|(user, password)| (user.to_owned(), password.to_owned()));
                Some(Self::Socks { proxy: with_port(uri, 1080), user })
            }
            _ => None,
        }
    }
}

/// An address with its port written out.
pub(super) fn with_port(uri: &Uri, default: u16) -> Uri {
    let (scheme, host) = (uri.scheme_str().unwrap_or("http"), uri.host().unwrap_or_default());
    let port = uri.port_u16().unwrap_or(default);
    format!("{scheme}://{host}:{port}/").parse().unwrap_or_else(|_| uri.clone())
}

fn basic(user: &str, password: &str) -> HeaderValue {
    let text = format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")));
    let mut value = HeaderValue::from_str(&text).expect("Base64 is a sound value");
    value.set_sensitive(true);
    value
}

/// Whether a host is this machine.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    host == "localhost" || address(host).is_some_and(|address| address.is_loopback())
}

fn is_link_local(host: &str) -> bool {
    match address(host) {
        Some(IpAddr::V4(address)) => address.is_link_local(),
        Some(IpAddr::V6(address)) => address.is_unicast_link_local(),
        None => false,
    }
}

fn address(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(proxies: &Proxies, destination: &'static str) -> String {
        format!("{:?}", proxies.route(&Uri::from_static(destination)))
    }

    #[test]
    fn the_environment_is_obeyed_but_for_this_machine() {
        let matcher =
            Matcher::builder().https("http://me:pw@a:3128").http("socks5://b").no("example.com,10.0.0.0/8").build();
        let proxies = Proxies::Environment(Box::new(matcher));
        for (to, by) in [
            ("https://kinesis.amazonaws.com", "Through(http://a:3128/)"),
            ("http://kinesis.amazonaws.com", "Through(socks5://b:1080/)"),
            ("https://kinesis.example.com", "Direct"),
            ("https://10.1.2.3:4567", "Direct"),
            ("https://localhost:4567", "Direct"),
            ("http://127.0.0.1:4567", "Direct"),
            ("http://[::1]:4567", "Direct"),
            ("http://169.254.169.254/latest", "Direct"),
        ] {
            assert_eq!(way(&proxies, to), by, "{to}");
        }
        let Route::Tunnel { authorization, .. } = proxies.route(&Uri::from_static("https://a.invalid")) else {
            panic!("a tunnel")
        };
        assert_eq!(authorization, Some(basic("me", "pw")));
    }

    #[test]
    fn a_proxy_of_the_configuration_is_for_all_but_the_machines_own_metadata() {
        let proxies = Proxies::Always(Route::through("http://a:3128", Some(("me", "hunter2"))).expect("a proxy"));
        assert_eq!(way(&proxies, "http://127.0.0.1:4567"), "Through(http://a:3128/)");
        assert_eq!(way(&proxies, "http://169.254.169.254/latest"), "Direct");
        assert!(!format!("{proxies:?}").contains("hunter2"));
    }
}
