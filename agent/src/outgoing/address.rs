//! Addresses that a configuration names. Pure.

use hyper::http::Uri;

/// An `http` or `https` address with a host, without a user.
///
/// A port that is none is refused here: connections would silently go to the scheme's own.
#[must_use]
pub fn http_address(text: &str) -> Option<Uri> {
    let uri: Uri = text.parse().ok()?;
    let http = matches!(uri.scheme_str(), Some("http" | "https"));
    (http && is_sound(&uri)).then_some(uri)
}

/// Whether it has a host, no user, and a port that is one, if any.
pub(super) fn is_sound(uri: &Uri) -> bool {
    let Some(authority) = uri.authority() else { return false };
    let (host, whole) = (authority.host(), authority.as_str());
    let has_port = whole.len() > host.len();
    !host.is_empty() && !whole.contains('@') && (!has_port || authority.port_u16().is_some_and(|port| port > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_lead_elsewhere_is_no_address() {
        for sound in ["http://a", "https://a.example:443/b?c", "http://[::1]:80", "http://127.0.0.1:4568"] {
            assert!(http_address(sound).is_some(), "{sound}");
        }
        for text in
            ["a", "ftp://a", "http://", "http://a:99999", "http://a:0", "http://a:", "http://me:pw@a", "http://me@a"]
        {
            assert!(http_address(text).is_none(), "{text}");
        }
    }
}
