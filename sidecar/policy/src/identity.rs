//! Who sends a request: the issuers whose tokens are believed.

use serde::{Deserialize, Serialize};

use crate::Millis;

/// Whose JSON Web Tokens are believed, taken whole from one `RateLimitPolicy`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Identity {
    /// The policy it comes from, as `namespace/name`.
    pub policy: String,
    /// One to eight issuers.
    pub jwt: Vec<JwtIssuer>,
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
