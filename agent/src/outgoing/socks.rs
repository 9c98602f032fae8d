//! SOCKS 5: a connection through a proxy that also resolves the name.

use std::future::ready;

use hyper::http::Uri;
use hyper_util::{client::legacy::connect::proxy::SocksV5, rt::TokioIo};
use tower_service::Service as _;

use super::{error::ProxyTrouble, stream::Counted};

/// Has the proxy at the other end of `socket` connect us with `destination`, whose port is written out.
pub(super) async fn through(
    socket: Counted,
    destination: Uri,
    user: Option<(String, String)>,
) -> Result<Counted, ProxyTrouble> {
    let known = user.is_some();
    let mut socks = SocksV5::new(destination.clone(), Reached(Some(TokioIo::new(socket))));
    if let Some((user, password)) = user {
        socks = socks.with_auth(user, password);
    }
    // The error's variants have no public name; what they print has.
    let connected = socks.call(destination).await;
    connected.map(TokioIo::into_inner).map_err(|error| trouble(&format!("{error:?}"), &error.to_string(), known))
}

fn trouble(variant: &str, message: &str, known: bool) -> ProxyTrouble {
    let said = message.trim_start_matches("SOCKS error: ").to_owned();
    match variant {
        _ if variant.starts_with("V5(Auth(") && known => ProxyTrouble::RefusesCredentials,
        _ if variant.starts_with("V5(Auth(") => ProxyTrouble::WantsCredentials,
        _ if variant.starts_with("V5(Command(") => ProxyTrouble::Refused(said),
        _ => ProxyTrouble::Nonsense(said),
    }
}

/// Hands out a connection that was made before, whose errors were told apart already.
struct Reached(Option<TokioIo<Counted>>);

impl tower_service::Service<Uri> for Reached {
    type Response = TokioIo<Counted>;
    type Error = &'static str;
    type Future = std::future::Ready<Result<TokioIo<Counted>, &'static str>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), &'static str>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(self.0.take().ok_or("asked for twice"))
    }
}
