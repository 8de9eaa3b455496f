//! Why connections and requests were refused before any policy was asked.

/// Why a connection on a guarded port was closed without an answer of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtocolRefusal {
    /// It begins as TLS does.
    Tls,
    /// It breaks the rules of HTTP/2, or floods it with resets.
    Http2,
    /// It is not HTTP, or breaks HTTP/1's grammar.
    Malformed,
    /// Its head is larger than allowed.
    HeadTooLarge,
    /// Its head did not arrive in time.
    HeadTimeout,
    /// It says nothing, as if the server had to speak first.
    Silent,
    /// Its framing can be read in several ways.
    AmbiguousFraming,
    /// It was not redirected here from a guarded port.
    NotRedirected,
    /// There are as many connections as there may be.
    TooManyConnections,
    /// There are as many requests in flight as there may be.
    TooManyRequests,
    /// The process has almost as much memory as it may.
    OutOfMemory,
    /// Its client is not known, and a policy lets nobody else pass.
    Unauthenticated,
}

/// All of them, in the order of their counters.
pub(super) const PROTOCOL_REFUSALS: [ProtocolRefusal; 12] = [
    ProtocolRefusal::Tls,
    ProtocolRefusal::Http2,
    ProtocolRefusal::Malformed,
    ProtocolRefusal::HeadTooLarge,
    ProtocolRefusal::HeadTimeout,
    ProtocolRefusal::Silent,
    ProtocolRefusal::AmbiguousFraming,
    ProtocolRefusal::NotRedirected,
    ProtocolRefusal::TooManyConnections,
    ProtocolRefusal::TooManyRequests,
    ProtocolRefusal::OutOfMemory,
    ProtocolRefusal::Unauthenticated,
];

impl ProtocolRefusal {
    /// As in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Http2 => "http2",
            Self::Malformed => "malformed",
            Self::HeadTooLarge => "head_too_large",
            Self::HeadTimeout => "head_timeout",
            Self::Silent => "silent",
            Self::TooManyConnections => "too_many_connections",
            Self::TooManyRequests => "too_many_requests",
            Self::OutOfMemory => "out_of_memory",
            Self::AmbiguousFraming => "ambiguous_framing",
            Self::NotRedirected => "not_redirected",
            Self::Unauthenticated => "unauthenticated",
        }
    }

    /// What is wrong and what to do, for the log.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Tls => {
                "TLS on a guarded port; let the client speak HTTP in the clear, or declare the port opaque"
            }
            Self::Http2 => "a breach of HTTP/2's rules",
            Self::Malformed => "not HTTP; if the port carries another protocol, declare it opaque",
            Self::HeadTooLarge => "a request head over --max-header-bytes",
            Self::HeadTimeout => "no request head in time",
            Self::Silent => "not a byte in 10 s; if the server of this port speaks first, declare it opaque",
            Self::TooManyConnections => "as many connections as --max-connections",
            Self::TooManyRequests => "as many requests in flight as --max-requests",
            Self::OutOfMemory => "almost as much memory as --max-memory-bytes, or the cgroup, allows",
            Self::AmbiguousFraming => "a request whose framing can be read in several ways",
            Self::Unauthenticated => "neither an API key that is known nor a token that is believed",
            Self::NotRedirected => "its destination is not a guarded port of this pod",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocol_refusals_are_listed_in_the_order_of_their_counters() {
        for (i, reason) in PROTOCOL_REFUSALS.iter().enumerate() {
            assert_eq!(*reason as usize, i, "{reason:?}");
        }
    }
}
