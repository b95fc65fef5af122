//! Values with a meaning of their own: secrets, addresses, and words out of a fixed set.

use std::fmt;

use super::value::{Kind, Value};

/// Text that does not show itself in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// Host and port to listen on; port 0 lets the system choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    host: String,
    port: u16,
}

/// Where webhooks are sent. Its path and query may hold what only the receiver should know, and do not show themselves.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl(String);

/// Where calls are forwarded to, without a slash at the end: `https://api.openai.com/v1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamUrl {
    text: String,
    uri: http::Uri,
}

macro_rules! choices {
    ($($(#[doc = $doc:literal])* $type:ident { $($(#[doc = $why:literal])* $variant:ident = $word:literal),+ $(,)? })+) => { $(
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $type { $($(#[doc = $why])* $variant),+ }

        impl $type {
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl Value for $type {
            const KIND: Kind = Kind::Text;

            fn parse(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(format!("expected one of {}, found {text:?}", [$($word),+].join(", "))),
                }
            }

            fn show(&self) -> String {
                self.name().to_owned()
            }
        }
    )+ };
}

choices! {
    LogLevel { Error = "error", Warn = "warn", Info = "info", Debug = "debug", Trace = "trace" }
    LogFormat { Text = "text", Json = "json" }
    OnClientDisconnect {
        /// Read the rest of the answer, within bounds, to learn its exact usage.
        Drain = "drain",
        /// Stop the answer at once and settle by estimate.
        Cancel = "cancel",
    }
    /// How many output tokens are taken from the limits before a request is sent.
    Reserve {
        /// What the key and model have been answering on average, and never more than the stated maximum.
        Learned = "learned",
        /// The stated maximum, or the model's.
        Strict = "strict",
        /// None, as OpenAI itself does: only the text of the request counts beforehand.
        Openai = "openai",
    }
    /// What an acknowledged record survives.
    Durability {
        /// A crash of the process.
        Process = "process",
        /// A crash of the machine.
        Power = "power",
    }
}

/// What people copy along with a service's address.
const ENDPOINTS: [&str; 8] = [
    "/chat/completions",
    "/completions",
    "/responses",
    "/embeddings",
    "/audio/speech",
    "/audio/transcriptions",
    "/audio/translations",
    "/v1/models",
];

fn names_impossible_port(uri: &http::Uri) -> bool {
    let authority = uri.authority().map_or("", http::uri::Authority::as_str);
    let after_host = authority.rsplit_once(']').map_or(authority, |(_, after)| after);
    after_host.contains(':') && uri.port_u16().is_none_or(|port| port == 0)
}

fn is_loopback(host: &str) -> bool {
    let ip = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || ip.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Only for the header or hash that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl ListenAddress {
    pub fn new(text: &str) -> Result<Self, String> {
        Value::parse(text)
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Where a client on this machine finds what listens here: an address that means all of them becomes the loopback.
    #[must_use]
    pub fn to_connect(&self) -> Self {
        let host = match self.host.as_str() {
            "0.0.0.0" => "127.0.0.1",
            "::" => "::1",
            host => host,
        };
        Self { host: host.to_owned(), port: self.port }
    }

    /// Only this machine can reach it.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }
}

/// As a socket wants it: IPv6 in brackets.
impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Value for ListenAddress {
    const KIND: Kind = Kind::Text;

    fn parse(text: &str) -> Result<Self, String> {
        let expected = || format!("expected host:port such as \"127.0.0.1:8080\", found {text:?}");
        let (host, port) = text.rsplit_once(':').ok_or_else(expected)?;
        let port = port.parse().map_err(|_| expected())?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_host = match bracketed {
            Some(host) => host.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte)),
        };
        if !is_host {
            return Err(expected());
        }
        Ok(Self { host: bracketed.unwrap_or(host).to_owned(), port })
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl UpstreamUrl {
    pub fn new(text: &str) -> Result<Self, String> {
        Value::parse(text)
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub const fn uri(&self) -> &http::Uri {
        &self.uri
    }

    /// Names only a host, where most services want `/v1` after it.
    pub fn has_no_path(&self) -> bool {
        matches!(self.uri.path(), "" | "/")
    }

    /// Without TLS, and not only within this machine.
    pub fn is_readable_on_the_way(&self) -> bool {
        self.uri.scheme_str() != Some("https") && !self.uri.host().is_some_and(is_loopback)
    }
}

impl WebhookUrl {
    pub fn new(text: &str) -> Result<Self, String> {
        <Option<Self> as Value>::parse(text)?.ok_or_else(|| "must not be empty".to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn shown(&self) -> String {
        let (scheme, rest) = self.0.split_once("://").unwrap_or_default();
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let more = if matches!(rest.strip_prefix(host), Some("" | "/")) { "" } else { "/..." };
        format!("{scheme}://{host}{more}")
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebhookUrl({})", self.shown())
    }
}

/// An empty text is "not set", because compose files pass variables on that way.
impl Value for Option<WebhookUrl> {
    const KIND: Kind = Kind::Text;

    /// Never repeats the text in an error: a URL may carry a password.
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(None);
        }
        let uri: http::Uri = text.parse().map_err(|_| "expected a URL such as \"https://example.com/budgets\"")?;
        check_authority(&uri, "sign with budget_webhook_secret instead")?;
        Ok(Some(WebhookUrl(text.to_owned())))
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "not set".to_owned(), WebhookUrl::shown)
    }
}

/// An http or https URL of a host with no password; `instead` is what to do in place of one.
fn check_authority(uri: &http::Uri, instead: &str) -> Result<(), String> {
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("must begin with http:// or https://".to_owned());
    }
    if uri.host().is_none_or(str::is_empty) {
        return Err("must name a host".to_owned());
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(format!("must not contain a user or password: {instead}"));
    }
    if names_impossible_port(uri) {
        return Err("must have a port from 1 to 65535 after the host's colon, or neither".to_owned());
    }
    Ok(())
}

impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Value for UpstreamUrl {
    const KIND: Kind = Kind::Text;

    /// Never repeats the text in an error: a URL may carry a password.
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim_end_matches('/').to_owned();
        let uri: http::Uri =
            text.parse().map_err(|_| "expected a URL such as \"https://api.openai.com/v1\"".to_owned())?;
        check_authority(&uri, "give the key as upstream_key")?;
        if text.contains(['?', '#']) {
            return Err("must not have a query or fragment".to_owned());
        }
        if let Some(endpoint) = ENDPOINTS.iter().find(|endpoint| uri.path().ends_with(**endpoint)) {
            return Err(format!("must end before {endpoint:?}: the gateway adds the path of each endpoint itself"));
        }
        Ok(Self { text, uri })
    }

    fn show(&self) -> String {
        self.text.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show_itself() {
        assert_eq!(format!("{:?}", Some(Secret::new("sk-abc"))), "Some(Secret(..))");
    }

    #[test]
    fn addresses_are_host_and_port() {
        for (text, host, port) in
            [("127.0.0.1:0", "127.0.0.1", 0), ("localhost:80", "localhost", 80), ("[::1]:8080", "::1", 8080)]
        {
            let address = ListenAddress::parse(text).unwrap();
            assert_eq!((address.host(), address.port(), address.to_string().as_str()), (host, port, text));
            assert!(address.is_loopback());
        }
        assert!(!ListenAddress::parse("0.0.0.0:80").unwrap().is_loopback());
        for (text, there) in [("0.0.0.0:80", "127.0.0.1:80"), ("[::]:80", "[::1]:80"), ("10.1.2.3:80", "10.1.2.3:80")] {
            assert_eq!(ListenAddress::parse(text).unwrap().to_connect().to_string(), there);
        }
        for text in ["", "8080", ":8080", "localhost", "::1:80", "[::1]", "a b:80", "a:99999", "[x]:80", "http://a:80"]
        {
            assert!(ListenAddress::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_upstream_is_an_http_url_with_a_host_and_nothing_after_the_path() {
        assert_eq!(UpstreamUrl::parse("http://127.0.0.1:9/v1/").unwrap().as_str(), "http://127.0.0.1:9/v1");
        for text in ["", "api.openai.com/v1", "ftp://a/v1", "https:///v1", "https://a/v1?x=1", "https://a/v1#x", "/v1"]
        {
            assert!(UpstreamUrl::parse(text).is_err(), "{text}");
        }
        for text in ["https://a:99999/v1", "https://a:0/v1", "https://a:/v1", "http://[::1]:70000/v1"] {
            assert!(UpstreamUrl::parse(text).is_err_and(|message| message.contains("port")), "{text}");
        }
        assert!(UpstreamUrl::parse("http://[::1]/v1").is_ok());
        let endpoint = UpstreamUrl::parse("https://a/v1/chat/completions/").unwrap_err();
        assert_eq!(
            endpoint,
            "must end before \"/chat/completions\": the gateway adds the path of each endpoint itself"
        );
        let has_no_path = |text: &str| UpstreamUrl::parse(text).unwrap().has_no_path();
        assert_eq!(
            (has_no_path("https://a"), has_no_path("https://a/"), has_no_path("https://a/v1")),
            (true, true, false)
        );
        assert!(!UpstreamUrl::parse("https://me:hunter2@a/v1").unwrap_err().contains("hunter2"));
    }

    #[test]
    fn where_webhooks_go_is_a_url_that_shows_only_its_host() {
        let parse = Option::<WebhookUrl>::parse;
        for text in ["https://a.example/b?token=hunter2", "https://a.example/hunter2", "https://a.example?hunter2"] {
            let url = parse(text).unwrap();
            assert_eq!((url.show(), url.as_ref().unwrap().as_str()), ("https://a.example/...".to_owned(), text));
            assert!(!format!("{url:?}").contains("hunter2"));
        }
        assert_eq!(
            (parse("").unwrap().show(), parse("http://[::1]:9").unwrap().show()),
            ("not set".to_owned(), "http://[::1]:9".to_owned())
        );
        for text in ["a.example", "ftp://a/b", "https:///b", "https://me:hunter2@a/b", "https://a:0/b"] {
            assert!(parse(text).is_err_and(|message| !message.contains("hunter2")), "{text}");
        }
    }

    #[test]
    fn a_word_outside_the_set_is_answered_with_the_set() {
        assert_eq!(LogFormat::parse("json"), Ok(LogFormat::Json));
        assert_eq!(LogFormat::parse("JSON"), Err("expected one of text, json, found \"JSON\"".to_owned()));
    }
}
