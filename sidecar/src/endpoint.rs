//! Where a server of Tidegate's own is: operator and agent.

use std::fmt;
use std::str::FromStr;

use rustls_pki_types::ServerName;

/// `https://host:port`, nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    host: String,
    port: u16,
}

impl Endpoint {
    /// Name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The name that the server's certificate must have.
    pub fn server_name(&self) -> Option<ServerName<'static>> {
        ServerName::try_from(self.host.clone()).ok()
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "not an address of a server: write such as https://host:8444".to_owned();
        let uri: http::Uri = text.parse().map_err(|_| wrong())?;
        let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let host =
            uri.host().filter(|_| uri.scheme_str() == Some("https") && path == "/").ok_or_else(wrong)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let endpoint = Self { host, port: uri.port_u16().unwrap_or(443) };
        endpoint.server_name().ok_or_else(wrong)?;
        Ok(endpoint)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "https://[{}]:{}", self.host, self.port);
        }
        write!(f, "https://{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_host_and_port_over_tls() {
        for (text, host, port) in [
            (
                "https://tidegate-operator.tidegate-system.svc:8444",
                "tidegate-operator.tidegate-system.svc",
                8444,
            ),
            ("https://10.0.0.1:8444/", "10.0.0.1", 8444),
            ("https://[fd00::1]:8445", "fd00::1", 8445),
            ("https://operator", "operator", 443),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!((endpoint.host(), endpoint.port()), (host, port), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_an_example() {
        for text in
            ["http://operator:1", "operator:8444", "https://operator:1/path", "https://", "https://a_b c:1"]
        {
            assert!(text.parse::<Endpoint>().unwrap_err().contains("https://host:8444"), "{text}");
        }
    }
}
