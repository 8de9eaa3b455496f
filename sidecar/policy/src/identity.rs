//! Who sends a request: the issuers whose tokens are believed, the headers with API keys, and the proxies whose word on an
//! address is believed.

use serde::{Deserialize, Serialize};

use crate::{HeaderName, Millis};

/// Whose JSON Web Tokens are believed, taken whole from one `RateLimitPolicy`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Identity {
    /// The policy it comes from, as `namespace/name`.
    pub policy: String,
    /// At most eight issuers.
    #[serde(default)]
    pub jwt: Vec<JwtIssuer>,
    /// Where clients show API keys. Absent: none are looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_keys: Option<ApiKeys>,
    /// Whose word on the address of a client is taken. Absent: nobody's, so that it is that of the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ip: Option<ClientIp>,
}

/// API keys, which each sidecar reads from a Secret of its pod's own namespace. They are in no document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApiKeys {
    /// The header fields that may have a key, one to eight; of `authorization` behind `Bearer`.
    pub headers: Vec<HeaderName>,
    /// A client that is known neither by a key nor by a token is refused. Else it is nobody.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
    /// The engine does not get to see these headers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strip_headers: bool,
}

/// Where the address of a client comes from when its connection is a proxy's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientIp {
    /// Address blocks of the proxies, one to 64. What one of them has appended is believed; what stands before the
    /// first address that is no proxy's could have been written by anybody.
    pub trusted_proxies: Vec<String>,
    /// The field that they append to. Another one is not looked at: they may pass it on as the client wrote it.
    pub from: ForwardedBy,
}

/// A field in which proxies note whom they have a request from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ForwardedBy {
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

impl ClientIp {
    /// Its blocks as network addresses and prefix lengths; those that are none are left out.
    pub fn blocks(&self) -> impl Iterator<Item = (std::net::IpAddr, u8)> {
        self.trusted_proxies.iter().filter_map(|cidr| crate::validate::parse_cidr(cidr))
    }
}

/// One issuer of JSON Web Tokens (RFC 7519).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JwtIssuer {
    /// The exact `iss` of its tokens.
    pub issuer: String,
    /// One of these has to be in a token's `aud`; empty: any, and none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audiences: Vec<String>,
    /// The algorithms that its tokens may be signed with; at least one.
    pub algorithms: Vec<JwtAlgorithm>,
    /// How far its clock may be off when `exp` and `nbf` are judged; none when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leeway_millis: Option<Millis>,
    /// Its public keys.
    pub keys: JwtKeys,
}

/// Where an issuer's public keys are, a JSON Web Key Set (RFC 7517).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum JwtKeys {
    /// The set itself.
    Inline(String),
    /// The name of the file with the set, in the folder that each sidecar is given with `--jwks`. Read again when it changes.
    File(String),
    /// Where it is read, every five minutes and when a token names a key that is not in it.
    Remote {
        /// An address with `https`.
        uri: String,
        /// Authorities in PEM that its server is believed by, instead of the public ones.
        #[serde(rename = "caBundle", default, skip_serializing_if = "Option::is_none")]
        ca_bundle: Option<String>,
    },
}

/// An asymmetric signature of JSON Web Algorithms (RFC 7518, RFC 8037). The symmetric ones are left out: who can
/// check them can forge them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum JwtAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RS256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RS384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RS512,
    /// RSASSA-PSS with SHA-256.
    PS256,
    /// RSASSA-PSS with SHA-384.
    PS384,
    /// RSASSA-PSS with SHA-512.
    PS512,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// ECDSA on P-384 with SHA-384.
    ES384,
    /// Ed25519.
    EdDSA,
}
