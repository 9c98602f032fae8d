//! Which proxy leads to an address. Pure: whoever asks reads the environment.

use std::{fmt, net::IpAddr};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hyper::http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};

use super::address::is_sound;

const WANTED: &str = "a proxy such as \"http://proxy.example:3128\" or \"socks5://proxy.example:1080\" is needed";

/// Says what a variable of the environment is set to.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

// Variables that say the same. The first that is set holds, also if it is empty.
const HTTPS: [&str; 2] = ["HTTPS_PROXY", "https_proxy"];
const HTTP: [&str; 2] = ["HTTP_PROXY", "http_proxy"];
const ALL: [&str; 2] = ["ALL_PROXY", "all_proxy"];
const NONE: [&str; 2] = ["NO_PROXY", "no_proxy"];

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
    pub(super) fn of_environment(variables: Variables<'_>) -> Result<Self, String> {
        for (name, value) in [HTTPS, HTTP, ALL].into_iter().filter_map(|names| set(names, variables)) {
            let intercept = Matcher::builder().https(value).build().intercept(&Uri::from_static("https://a.invalid"));
            if intercept.is_none_or(|proxy| Route::of(&proxy).is_none()) {
                return Err(format!("the environment variable `{name}` names no proxy that can be used; {WANTED}"));
            }
        }
        // A program that a web server runs has HTTP_PROXY from whoever sends a header of this name.
        if variables("REQUEST_METHOD").is_some() {
            return Ok(Self::None);
        }
        let value = |names| set(names, variables).map(|(_, value)| value).unwrap_or_default();
        let matcher = Matcher::builder().https(value(HTTPS)).http(value(HTTP)).all(value(ALL)).no(value(NONE));
        Ok(Self::Environment(Box::new(matcher.build())))
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

/// What the environment says of the way to `destination`, in a few words, without any password: which proxy, by which
/// variable, or by which one none although others have one. Nothing if it says nothing.
pub(super) fn describe(destination: &Uri, variables: Variables<'_>) -> String {
    let own = if destination.scheme_str() == Some("http") { HTTP } else { HTTPS };
    let named = set(own, variables).or_else(|| set(ALL, variables));
    // Of a variable that cannot be used it is told elsewhere.
    let (Some((name, _)), Ok(proxies @ Proxies::Environment(_))) = (named, Proxies::of_environment(variables)) else {
        return String::new();
    };
    match proxies.route(destination) {
        Route::Tunnel { proxy, .. } | Route::Socks { proxy, .. } => {
            format!(" through {} by {name} of the environment", proxy.to_string().trim_end_matches('/'))
        }
        Route::Direct if destination.host().is_none_or(|host| is_loopback(host) || is_link_local(host)) => {
            String::new()
        }
        Route::Direct => set(NONE, variables)
            .map_or_else(String::new, |(name, _)| format!(" without a proxy by {name} of the environment")),
    }
}

/// The first of some variables that is set, with its value, unless that is empty.
fn set(names: [&'static str; 2], variables: Variables<'_>) -> Option<(&'static str, String)> {
    names.into_iter().find_map(|name| Some((name, variables(name)?))).filter(|(_, value)| !value.is_empty())
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

    fn variable(all: &[(&str, &str)], name: &str) -> Option<String> {
        all.iter().find(|(of, _)| *of == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn what_the_environment_says_is_described_with_its_variable_and_without_passwords() {
        const BOTH: &[(&str, &str)] = &[
            ("HTTPS_PROXY", "http://me:hunter2@a:3128"),
            ("http_proxy", "socks5://me:hunter2@b"),
            ("NO_PROXY", "example.com,10.0.0.0/8"),
        ];
        const ALL: &[(&str, &str)] =
            &[("all_proxy", "c:8080"), ("HTTPS_PROXY", ""), ("https_proxy", "http://d"), ("no_proxy", "*.e.com")];
        const WEB_SERVER: &[(&str, &str)] = &[("REQUEST_METHOD", "GET"), ("HTTP_PROXY", "http://a"), ("NO_PROXY", "b")];
        for (variables, to, told) in [
            (BOTH, "https://a.amazonaws.com", " through http://a:3128 by HTTPS_PROXY of the environment"),
            (BOTH, "http://a.amazonaws.com", " through socks5://b:1080 by http_proxy of the environment"),
            (BOTH, "https://a.example.com", " without a proxy by NO_PROXY of the environment"),
            (BOTH, "http://10.1.2.3:4567", " without a proxy by NO_PROXY of the environment"),
            (BOTH, "http://localhost:4567", ""),
            (BOTH, "http://169.254.169.254", ""),
            // The first name that is set holds, and it is empty.
            (ALL, "https://a.amazonaws.com", " through http://c:8080 by all_proxy of the environment"),
            (WEB_SERVER, "http://a.amazonaws.com", ""),
            (&[("NO_PROXY", "amazonaws.com")], "https://a.amazonaws.com", ""),
            (&[("HTTPS_PROXY", "socks4://a")], "https://a.amazonaws.com", ""),
            (&[("HTTPS_PROXY", "http://a")], "http://a.amazonaws.com", ""),
            (&[], "https://a.amazonaws.com", ""),
        ] {
            assert_eq!(describe(&Uri::from_static(to), &|name| variable(variables, name)), told, "{to} {variables:?}");
        }
    }

    #[test]
    fn the_environment_is_obeyed_but_for_this_machine() {
        let variables = [
            ("HTTPS_PROXY", "http://me:pw@a:3128"),
            ("HTTP_PROXY", "socks5://b"),
            ("NO_PROXY", "example.com,10.0.0.0/8"),
        ];
        let proxies = Proxies::of_environment(&|name| variable(&variables, name)).expect("proxies");
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
