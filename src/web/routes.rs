//! From the request line to what is to be done. Pure, and strict: a path that is not exactly one of ours is none.
//!
//! Nothing is decoded or normalised: our links need neither, and `%2e%2e`, `//` or `%2F` then have no meaning that
//! could differ from a proxy's.

use std::net::{IpAddr, SocketAddr};

use crate::web::form;
use crate::web::protocol::Action;

/// The longest request target, in octets; links are below 300.
pub const MAX_TARGET: usize = 2048;
/// The longest form, in octets: a decision on a thousand recipients fits.
pub const MAX_BODY: usize = 256 * 1024;

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `/`: what this service is.
    Front,
    /// `/style.css`.
    Style,
    /// `/robots.txt`.
    Robots,
    /// `/healthz`.
    Health,
    /// GET or HEAD `/c/TOKEN`: shows the case, and never does more.
    Show {
        /// Looks like a token; whether it is one the mover knows.
        token: String,
        /// From `?choice=`: shown, not chosen.
        suggested: Option<Action>,
    },
    /// POST `/c/TOKEN`: the form follows in the body.
    Decide {
        /// As above.
        token: String,
    },
    /// GET or HEAD `/s/TOKEN`: shows what waits for a sender, and never does more.
    ShowSender {
        /// As above.
        token: String,
        /// From `?page=`, from one.
        page: u32,
    },
    /// POST `/s/TOKEN`: the form follows in the body.
    DecideSender {
        /// As above.
        token: String,
        /// The page that it was on.
        page: u32,
    },
    /// GET or HEAD `/r/TOKEN`: shows a remembered choice, and never does more.
    ShowConsent {
        /// As above.
        token: String,
    },
    /// POST `/r/TOKEN`: the form follows in the body.
    EndConsent {
        /// As above.
        token: String,
    },
    /// No such page (404).
    Unknown,
    /// A method that the page does not have (405); these it has.
    WrongMethod {
        /// Value of the `Allow` header.
        allow: &'static str,
    },
    /// Target longer than [`MAX_TARGET`] (414).
    TooLong,
}

/// What stands between clients and us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Front {
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpAddr>,
    /// The path of `link.base_url`, without a slash at its end; empty for none.
    pub base: String,
}

impl Front {
    /// The target as our routes have it. A proxy may pass the path of `link.base_url` on or take it off; what is a page
    /// of ours as it stands is none behind that path.
    pub fn target<'t>(&self, method: &str, target: &'t str) -> &'t str {
        if self.base.is_empty() || route(method, target) != Route::Unknown {
            return target;
        }
        match target.strip_prefix(&self.base) {
            Some("") => "/",
            Some(rest) if rest.starts_with('/') => rest,
            _ => target,
        }
    }
}

/// Finds the route for method and request target.
pub fn route(method: &str, target: &str) -> Route {
    if target.len() > MAX_TARGET {
        return Route::TooLong;
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let reads = matches!(method, "GET" | "HEAD");
    let page = match path {
        "/" => Route::Front,
        "/style.css" => Route::Style,
        "/robots.txt" => Route::Robots,
        "/healthz" => Route::Health,
        _ => return linked(method, reads, path, query),
    };
    if reads {
        page
    } else {
        Route::WrongMethod { allow: "GET, HEAD" }
    }
}

/// The pages that a link opens: each is shown by GET, and acted on by POST.
fn linked(method: &str, reads: bool, path: &str, query: &str) -> Route {
    let found = path.get(..3).zip(path.get(3..));
    let Some((page, token)) = found.filter(|(_, token)| is_token(token)) else {
        return Route::Unknown;
    };
    let token = token.to_owned();
    match (page, method) {
        ("/c/", "POST") => Route::Decide { token },
        ("/s/", "POST") => Route::DecideSender {
            token,
            page: page_number(query),
        },
        ("/r/", "POST") => Route::EndConsent { token },
        ("/c/", _) if reads => Route::Show {
            token,
            suggested: suggested(query),
        },
        ("/s/", _) if reads => Route::ShowSender {
            token,
            page: page_number(query),
        },
        ("/r/", _) if reads => Route::ShowConsent { token },
        ("/c/" | "/s/" | "/r/", _) => Route::WrongMethod {
            allow: "GET, HEAD, POST",
        },
        _ => Route::Unknown,
    }
}

/// Anything that is no number of a page means the first one.
fn page_number(query: &str) -> u32 {
    url::form_urlencoded::parse(query.as_bytes())
        .find(|(name, _)| name == "page")
        .and_then(|(_, value)| form::number::<u32>(&value))
        .unwrap_or(1)
        .max(1)
}

/// Could this be a token? Spares the mover what certainly is none.
fn is_token(text: &str) -> bool {
    (10..=200).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn suggested(query: &str) -> Option<Action> {
    url::form_urlencoded::parse(query.as_bytes())
        .find(|(name, _)| name == "choice")
        .and_then(|(_, value)| form::action(&value))
}

/// The address that a request came from: the peer, or, when the peer is a trusted proxy, the last address in
/// `X-Forwarded-For` (the one that this proxy itself has seen; what stands before it the client can make up).
pub fn client<'a>(
    peer: IpAddr,
    forwarded_for: impl IntoIterator<Item = &'a str>,
    trusted_proxies: &[IpAddr],
) -> IpAddr {
    let peer = peer.to_canonical();
    if !trusted_proxies
        .iter()
        .any(|proxy| proxy.to_canonical() == peer)
    {
        return peer;
    }
    let last = forwarded_for
        .into_iter()
        .flat_map(|value| value.split(','))
        .last();
    // One that can't be read may not give way to one that the client has made up.
    last.and_then(|element| forwarded_address(element.trim()))
        .map_or(peer, |address| address.to_canonical())
}

/// An address, with a port or without: some proxies add one.
fn forwarded_address(element: &str) -> Option<IpAddr> {
    let with_port = || element.parse::<SocketAddr>().ok().map(|both| both.ip());
    let in_brackets = || element.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    element.parse().ok().or_else(with_port).or_else(in_brackets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TOKEN: &str = "AbCdEf0123456789-_";

    #[test]
    fn get_shows_and_post_decides() {
        let show = |suggested| Route::Show {
            token: TOKEN.to_owned(),
            suggested,
        };
        assert_eq!(route("GET", "/c/AbCdEf0123456789-_"), show(None));
        assert_eq!(
            route("HEAD", "/c/AbCdEf0123456789-_?choice=keep"),
            show(Some(Action::Keep))
        );
        assert_eq!(
            route("GET", "/c/AbCdEf0123456789-_?x=1&choice=send"),
            show(Some(Action::Send))
        );
        assert_eq!(route("GET", "/c/AbCdEf0123456789-_?choice=all"), show(None));
        assert_eq!(
            route("POST", "/c/AbCdEf0123456789-_?choice=send"),
            Route::Decide {
                token: TOKEN.to_owned()
            }
        );
    }

    #[test]
    fn each_kind_of_link_has_its_page() {
        let token = TOKEN.to_owned();
        for (method, target, expected) in [
            (
                "GET",
                "/s/AbCdEf0123456789-_",
                Route::ShowSender {
                    token: token.clone(),
                    page: 1,
                },
            ),
            (
                "HEAD",
                "/s/AbCdEf0123456789-_?page=17",
                Route::ShowSender {
                    token: token.clone(),
                    page: 17,
                },
            ),
            (
                "GET",
                "/s/AbCdEf0123456789-_?page=-1",
                Route::ShowSender {
                    token: token.clone(),
                    page: 1,
                },
            ),
            (
                "GET",
                "/s/AbCdEf0123456789-_?page=0",
                Route::ShowSender {
                    token: token.clone(),
                    page: 1,
                },
            ),
            (
                "POST",
                "/s/AbCdEf0123456789-_?page=99999999999",
                Route::DecideSender {
                    token: token.clone(),
                    page: 1,
                },
            ),
            (
                "GET",
                "/r/AbCdEf0123456789-_",
                Route::ShowConsent {
                    token: token.clone(),
                },
            ),
            (
                "POST",
                "/r/AbCdEf0123456789-_?page=2",
                Route::EndConsent { token },
            ),
        ] {
            assert_eq!(route(method, target), expected, "{method} {target}");
        }
        for target in ["/s/short", "/x/AbCdEf0123456789-_", "/s", "/é/", "/ü"] {
            assert_eq!(route("GET", target), Route::Unknown, "{target}");
        }
        assert_eq!(
            route("PUT", "/r/AbCdEf0123456789-_"),
            Route::WrongMethod {
                allow: "GET, HEAD, POST"
            }
        );
    }

    #[test]
    fn a_base_path_is_taken_off_once_and_only_as_a_whole() {
        for (base, target, ours) in [
            (
                "/tls",
                "/tls/c/AbCdEf0123456789-_?x",
                "/c/AbCdEf0123456789-_?x",
            ),
            ("/tls", "/c/AbCdEf0123456789-_", "/c/AbCdEf0123456789-_"),
            ("/tls", "/tls", "/"),
            ("/tls", "/tls/", "/"),
            ("/tls", "/tls/style.css", "/style.css"),
            ("/tls", "/tlsx/style.css", "/tlsx/style.css"),
            ("/tls", "/tls/tls/style.css", "/tls/style.css"),
            ("/tls", "/TLS/style.css", "/TLS/style.css"),
            ("/tls", "/tls//style.css", "//style.css"),
            ("/c", "/c/c/AbCdEf0123456789-_", "/c/AbCdEf0123456789-_"),
            ("/c", "/c/AbCdEf0123456789-_", "/c/AbCdEf0123456789-_"),
            ("/a/b", "/a/b/r/AbCdEf0123456789-_", "/r/AbCdEf0123456789-_"),
            ("", "/tls/", "/tls/"),
        ] {
            let front = Front {
                base: base.to_owned(),
                ..Front::default()
            };
            assert_eq!(front.target("GET", target), ours, "{base} {target}");
        }
    }

    #[test]
    fn a_method_that_a_page_does_not_have_is_told_which_it_has() {
        for method in [
            "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get", "X",
        ] {
            assert_eq!(
                route(method, "/c/AbCdEf0123456789-_"),
                Route::WrongMethod {
                    allow: "GET, HEAD, POST"
                }
            );
            assert_eq!(
                route(method, "/"),
                Route::WrongMethod { allow: "GET, HEAD" }
            );
        }
        assert_eq!(
            route("POST", "/healthz"),
            Route::WrongMethod { allow: "GET, HEAD" }
        );
        assert_eq!(route("POST", "/nothing"), Route::Unknown);
    }

    #[test]
    fn tricks_with_the_path_lead_nowhere() {
        for target in [
            "",
            "*",
            "c/AbCdEf0123456789",
            "//",
            "//c/AbCdEf0123456789",
            "/c//AbCdEf0123456789",
            "/c/AbCdEf0123456789/",
            "/c/AbCdEf01234%2d56789",
            "/c/%2e%2e/AbCdEf0123456789",
            "/c/../c/AbCdEf0123456789",
            "/./",
            "/%2f",
            "/c%2fAbCdEf0123456789",
            "/C/AbCdEf0123456789",
            "/c/AbCdEf0123456789%00",
            "/c/AbCdEf0123456789#x",
            "/c/AbCdEf0123456789;x",
            "/c/short",
            "/c/",
            "/c",
            "/style.css/",
            "/style.css/../c",
            "/healthz%20",
            "/c/AbCdEf012345678\u{e9}",
            "http://host.test/c/AbCdEf0123456789",
            "/\\c\\AbCdEf0123456789",
        ] {
            assert_eq!(route("GET", target), Route::Unknown, "{target}");
        }
        assert_eq!(
            route("GET", &format!("/c/{}", "a".repeat(201))),
            Route::Unknown
        );
        assert_eq!(
            route("GET", &format!("/c/{}", "a".repeat(2100))),
            Route::TooLong
        );
    }

    #[test]
    fn a_forwarded_address_is_believed_only_from_a_trusted_proxy() {
        let proxy: IpAddr = "10.0.0.1".parse().unwrap();
        let other: IpAddr = "192.0.2.9".parse().unwrap();
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        let address =
            |peer, values: &[&str]| client(peer, values.iter().copied(), &[proxy]).to_string();
        assert_eq!(address(other, &["203.0.113.5"]), "192.0.2.9");
        assert_eq!(address(proxy, &["1.1.1.1, 203.0.113.5"]), "203.0.113.5");
        assert_eq!(
            address(mapped, &["1.1.1.1", " 2001:db8::1 "]),
            "2001:db8::1"
        );
        // What the proxy itself has said last can't be read: what the client says does not stand in for it.
        for last in ["unknown", "", "203.0.113.9:x", "é", "1.2.3.4 5.6.7.8"] {
            let forwarded = format!("203.0.113.5, {last}");
            assert_eq!(address(proxy, &[&forwarded]), "10.0.0.1", "{last}");
            assert_eq!(address(proxy, &["203.0.113.5", last]), "10.0.0.1", "{last}");
        }
        for (last, expected) in [
            ("192.0.2.7:443", "192.0.2.7"),
            ("[2001:db8::7]:443", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
        ] {
            assert_eq!(address(proxy, &["203.0.113.5", last]), expected);
        }
        assert_eq!(address(proxy, &["<script>", ""]), "10.0.0.1");
        assert_eq!(address(proxy, &[]), "10.0.0.1");
    }

    proptest! {
        #[test]
        fn only_post_decides(method in "[A-Z]{1,8}", target in ".{0,60}|/[csr]/[A-Za-z0-9_?=&-]{0,60}") {
            if let Route::Decide { .. } | Route::DecideSender { .. } | Route::EndConsent { .. } = route(&method, &target) {
                prop_assert_eq!(method, "POST");
            }
        }
    }
}
