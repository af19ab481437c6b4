//! What goes back: status, type, body, and the headers that every reply carries. Pure.

/// On every reply. No cookie, no script, nothing from elsewhere; the link is the only secret, so it must stay out of
/// caches, search engines and referrers.
pub const HEADERS: [(&str, &str); 9] = [
    ("Cache-Control", "no-store"),
    (
        "Content-Security-Policy",
        "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    // tiny_http adds its own name and language otherwise.
    ("Server", "PostTLS"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("X-Robots-Tag", "noindex, nofollow"),
];

/// An HTTP reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Value of `Content-Type`.
    pub content_type: &'static str,
    /// The body; left out for HEAD when it is sent.
    pub body: String,
    /// Headers of this reply alone (`Allow`, `Retry-After`).
    pub extra: Vec<(&'static str, String)>,
}

impl Reply {
    /// A page.
    pub fn html(status: u16, body: String) -> Self {
        Self {
            status,
            content_type: "text/html; charset=utf-8",
            body,
            extra: Vec::new(),
        }
    }

    /// Plain text.
    pub fn text(status: u16, body: &str) -> Self {
        let content_type = "text/plain; charset=utf-8";
        Self {
            status,
            content_type,
            body: body.to_owned(),
            extra: Vec::new(),
        }
    }

    /// A style sheet.
    pub fn css(body: &str) -> Self {
        Self {
            content_type: "text/css; charset=utf-8",
            ..Self::text(200, body)
        }
    }

    /// The same with one more header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.extra.push((name, value.into()));
        self
    }

    /// As it goes over the wire, for a request that tiny_http does not see.
    pub(crate) fn into_octets(self) -> Vec<u8> {
        let mut octets = Vec::new();
        // Writing to memory does not fail.
        let _ = self
            .into_response()
            .raw_print(&mut octets, (1, 1).into(), &[], false, None);
        octets
    }

    /// For tiny_http.
    pub(crate) fn into_response(self) -> tiny_http::Response<std::io::Cursor<Vec<u8>>> {
        let common = HEADERS
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()));
        let own = [("Content-Type", self.content_type.to_owned())]
            .into_iter()
            .chain(self.extra);
        let headers = common
            .chain(own)
            .filter_map(|(name, value)| tiny_http::Header::from_bytes(name, value).ok());
        let mut response = tiny_http::Response::from_data(self.body)
            .with_status_code(self.status)
            .with_chunked_threshold(usize::MAX);
        for header in headers {
            response.add_header(header);
        }
        response
    }
}
