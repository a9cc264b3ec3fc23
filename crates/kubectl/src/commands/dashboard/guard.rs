//! Who may use the local server, and from which page.
//!
//! The server acts with the user's credentials, so it must not answer another program's page: not one of another
//! address that resolves to this machine (the Host), not one that sends a form here (the Origin and the token of
//! the forms), and nobody on this machine who was not given the address (the cookie, whose path no other server
//! of this machine knows).

use std::sync::{Mutex, PoisonError};

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use subtle::ConstantTimeEq;

use crate::commands::dashboard::addresses::Addresses;

/// The path that trades the token of the printed address for a cookie.
pub const OPEN: &str = "/open";

/// Headers of every answer. With `no-referrer` a browser would send forms with `Origin: null`; with `same-origin` other
/// sites learn as little.
pub const HEADERS: [(&str, &str); 6] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
];

/// The names, secrets and rules of one run of the server.
pub struct Guard {
    port: u16,
    hosts: [String; 3],
    addresses: Addresses,
    cookie: String,
    session: String,
    forms: String,
    /// The token of the printed address, until it is used.
    ticket: Mutex<Option<String>>,
}

/// Why a request is not answered.
pub type Refused = (StatusCode, &'static str);

fn secret() -> String {
    let (high, low) = (rand::random::<u128>(), rand::random::<u128>());
    format!("{high:032x}{low:032x}")
}

/// Whether a foreign text is a secret, in a time that does not depend on where they differ.
fn is_secret(text: &str, secret: &str) -> bool {
    text.as_bytes().ct_eq(secret.as_bytes()).into()
}

impl Guard {
    /// New secrets for a server at this port of the loopback address.
    #[must_use]
    pub fn new(port: u16) -> Self {
        Self {
            port,
            hosts: ["127.0.0.1", "localhost", "[::1]"].map(|host| format!("{host}:{port}")),
            // A browser sends cookies to all ports of a host, but only below their path.
            addresses: Addresses::below(format!("/{}", secret())),
            cookie: format!("countersign-{port}"),
            session: secret(),
            forms: secret(),
            ticket: Mutex::new(Some(secret())),
        }
    }

    /// The address to open, which works once.
    #[must_use]
    pub fn address(&self) -> String {
        let ticket = self.ticket.lock().unwrap_or_else(PoisonError::into_inner);
        let ticket = ticket.as_deref().unwrap_or_default();
        format!("http://127.0.0.1:{}{OPEN}?token={ticket}", self.port)
    }

    /// The addresses of the pages, to which alone a browser sends the cookie.
    #[must_use]
    pub const fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The token that each form carries.
    #[must_use]
    pub fn form_token(&self) -> &str {
        &self.forms
    }

    /// Whether this is the token of the forms.
    #[must_use]
    pub fn is_form_token(&self, token: &str) -> bool {
        is_secret(token, &self.forms)
    }

    /// The cookie for the token of the printed address; the token is used up.
    #[must_use]
    pub fn admit(&self, token: &str) -> Option<HeaderValue> {
        let mut ticket = self.ticket.lock().unwrap_or_else(PoisonError::into_inner);
        ticket.take_if(|ticket| is_secret(token, ticket))?;
        let cookie = format!(
            "{}={}; Path={}; HttpOnly; SameSite=Strict",
            self.cookie,
            self.session,
            self.addresses.base()
        );
        HeaderValue::from_str(&cookie).ok()
    }

    /// Why a request is refused, if it is.
    #[must_use]
    pub fn refusal(&self, method: &Method, path: &str, headers: &HeaderMap) -> Option<Refused> {
        let host = text(headers, &header::HOST);
        if !host.is_some_and(|host| self.hosts.iter().any(|known| known == host)) {
            let why = "this server answers at its own address alone: open what `kubectl countersign dashboard` printed\n";
            return Some((StatusCode::MISDIRECTED_REQUEST, why));
        }
        let reads = *method == Method::GET || *method == Method::HEAD;
        let writes = *method == Method::POST && is_own_page(host, headers);
        if !(reads || writes) {
            let why = "this request does not come from a page of this server\n";
            return Some((StatusCode::FORBIDDEN, why));
        }
        if path != OPEN && !self.has_session(headers) {
            let why = "open the address that `kubectl countersign dashboard` printed; it works once, so run the command again for another browser\n";
            return Some((StatusCode::FORBIDDEN, why));
        }
        None
    }

    fn has_session(&self, headers: &HeaderMap) -> bool {
        let lines = headers.get_all(header::COOKIE).iter();
        let lines = lines.filter_map(|line| line.to_str().ok());
        let mut cookies = lines.flat_map(|line| line.split(';'));
        cookies.any(|cookie| {
            let named = cookie.trim().split_once('=');
            named
                .is_some_and(|(name, value)| name == self.cookie && is_secret(value, &self.session))
        })
    }
}

/// The only value of a header.
fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(first)
}

/// Whether a write comes from the address that it goes to.
fn is_own_page(host: Option<&str>, headers: &HeaderMap) -> bool {
    let origin = text(headers, &header::ORIGIN).and_then(|it| it.strip_prefix("http://"));
    origin.is_some() && origin == host
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "127.0.0.1:4711";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    /// A guard with the cookie that its address gives.
    fn opened() -> (Guard, String) {
        let guard = Guard::new(4711);
        let address = guard.address();
        let token = address.split_once("token=").unwrap().1;
        let cookie = guard.admit(token).unwrap();
        let cookie = cookie.to_str().unwrap();
        let attributes = format!(
            "; Path={}; HttpOnly; SameSite=Strict",
            guard.addresses().base()
        );
        assert!(cookie.ends_with(&attributes), "{cookie}");
        let pair = cookie.split(';').next().unwrap().to_owned();
        assert!(guard.admit(token).is_none(), "a token works once");
        (guard, pair)
    }

    fn code(guard: &Guard, method: &Method, path: &str, headers: &HeaderMap) -> Option<u16> {
        let refused = guard.refusal(method, path, headers);
        refused.map(|(code, _)| code.as_u16())
    }

    #[test]
    fn only_the_own_names_are_answered() {
        let (guard, cookie) = opened();
        for (host, expected) in [
            (HOST, None),
            ("localhost:4711", None),
            ("[::1]:4711", None),
            ("localhost", Some(421)),
            ("127.0.0.1:80", Some(421)),
            ("evil.example:4711", Some(421)),
            ("127.0.0.1.evil.example:4711", Some(421)),
            ("", Some(421)),
        ] {
            let headers = headers(&[("host", host), ("cookie", cookie.as_str())]);
            assert_eq!(
                code(&guard, &Method::GET, "/", &headers),
                expected,
                "{host}"
            );
        }
        let none = headers(&[("cookie", cookie.as_str())]);
        assert_eq!(code(&guard, &Method::GET, "/", &none), Some(421));
        let two = headers(&[("host", HOST), ("host", HOST), ("cookie", cookie.as_str())]);
        assert_eq!(code(&guard, &Method::GET, "/", &two), Some(421));
    }

    #[test]
    fn without_the_cookie_nothing_but_the_address_is_answered() {
        let (guard, cookie) = opened();
        let other = format!("{cookie}0");
        for cookie in ["", "countersign-4711=", "countersign-80=x", other.as_str()] {
            let headers = headers(&[("host", HOST), ("cookie", cookie)]);
            assert_eq!(code(&guard, &Method::GET, "/", &headers), Some(403));
            assert_eq!(code(&guard, &Method::GET, OPEN, &headers), None);
        }
        let among = format!("a=b; {cookie}; c=d");
        let headers = headers(&[("host", HOST), ("cookie", among.as_str())]);
        assert_eq!(code(&guard, &Method::GET, "/", &headers), None);
    }

    #[test]
    fn no_server_of_another_port_is_sent_the_cookie() {
        let (guard, cookie) = opened();
        let base = guard.addresses().base();
        let session = cookie.split_once('=').unwrap().1;
        // A browser sends it below this path alone, which is another secret than those that it opens.
        assert_eq!(base.len(), 65, "{base}");
        assert!(base.starts_with('/') && !base.contains(session));
        assert_ne!(base, Guard::new(4711).addresses().base());
        let printed = Guard::new(4711);
        assert!(!printed.address().contains(printed.addresses().base()));
    }

    #[test]
    fn only_an_own_page_writes() {
        let (guard, cookie) = opened();
        for (origin, expected) in [
            ("http://127.0.0.1:4711", None),
            ("http://localhost:4711", Some(403)),
            ("http://127.0.0.1:80", Some(403)),
            ("https://127.0.0.1:4711", Some(403)),
            ("https://evil.example", Some(403)),
            ("null", Some(403)),
        ] {
            let headers = headers(&[
                ("host", HOST),
                ("cookie", cookie.as_str()),
                ("origin", origin),
            ]);
            let posted = code(&guard, &Method::POST, "/freeze", &headers);
            assert_eq!(posted, expected, "{origin}");
            let put = code(&guard, &Method::PUT, "/freeze", &headers);
            assert_eq!(put, Some(403));
        }
        let none = headers(&[("host", HOST), ("cookie", cookie.as_str())]);
        assert_eq!(code(&guard, &Method::POST, "/freeze", &none), Some(403));
    }

    #[test]
    fn a_form_token_is_its_own_secret() {
        let (guard, cookie) = opened();
        let session = cookie.split_once('=').unwrap().1;
        assert!(guard.is_form_token(guard.form_token()));
        for token in ["", session, &guard.form_token()[1..]] {
            assert!(!guard.is_form_token(token));
        }
        let opened = guard.address();
        assert!(opened.ends_with("token="), "the token is used up: {opened}");
    }
}
