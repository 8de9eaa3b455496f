//! Limits by key.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{HeaderName, Millis, Mode, Weight};

/// One rule. Rules of several policies add up; the most restrictive decides and is named.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limit {
    /// The policy it comes from, as `namespace/name`.
    pub policy: String,
    /// The rule's name within its policy. Policy and name are the rule's identity: its counters survive a change
    /// of everything else but the key, the algorithm and what is counted.
    pub name: String,
    /// Enforce or Shadow.
    pub mode: Mode,
    /// What requests are counted by. Empty: all requests of the pod count together.
    pub key: Vec<KeyPart>,
    /// The requests that it is for: those of which all of this holds. Empty: every request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<Condition>,
    /// How they are counted.
    pub algorithm: Algorithm,
    /// What may count in one window, or, of `Concurrency`, at once: requests, or what they cost. At least one.
    pub limit: u64,
    /// The window. `Concurrency` has none; every other algorithm needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_millis: Option<Millis>,
    /// What a request counts.
    #[serde(default, skip_serializing_if = "Cost::is_requests")]
    pub cost: Cost,
    /// Keys that are counted each for itself, as far as room goes a power of two more; the others share one counter.
    /// [`Limit::KEYS`] or, of an exact log, [`Limit::LOGGED_KEYS`] when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_keys: Option<u32>,
    /// What becomes of a stream whose tokens are more than was reserved and is left.
    #[serde(default, skip_serializing_if = "OnExhausted::is_end_stream")]
    pub on_exhausted: OnExhausted,
}

/// What becomes of a stream that goes on when the tokens of a limit have run out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum OnExhausted {
    /// It ends, with an error as its client expects one.
    #[default]
    EndStream,
    /// It goes on, and what is missing becomes debt.
    Finish,
}

impl OnExhausted {
    /// Whether it is the default.
    pub const fn is_end_stream(&self) -> bool {
        matches!(self, Self::EndStream)
    }
}

/// One part of a key. A part that a request lacks counts as empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum KeyPart {
    /// The value of a header.
    Header(HeaderName),
    /// A claim of the request's verified token.
    JwtClaim(String),
    /// The path of the request, without its query.
    Path,
    /// The method of the request.
    Method,
    /// The address of the client's end of the connection.
    ClientIp,
    /// The model that the request asks for, by its path or the begin of its body.
    Model,
}

/// Something that holds of a request, or does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Condition {
    /// What is looked at.
    pub of: Subject,
    /// How it has to be.
    pub is: Match,
}

/// What a condition looks at.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Subject {
    /// The value of a header.
    Header(HeaderName),
    /// The values of a claim of the request's verified token.
    JwtClaim(String),
    /// The path of the request, without its query. A value that ends with `*` stands for all that begin so.
    Path,
    /// The method of the request, in upper case.
    Method,
}

/// How something has to be, as in the label selectors of Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Match {
    /// One of these; of a claim that is a list any of its values.
    In(Vec<String>),
    /// None of these, or absent.
    NotIn(Vec<String>),
    /// There.
    Exists,
    /// Absent.
    DoesNotExist,
}

/// How a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Algorithm {
    /// Refills evenly at limit ÷ window; `burst` may come at once.
    TokenBucket {
        /// Size of the bucket, at least one.
        burst: u64,
        /// What is in every bucket when the rule comes into force, at most `burst`; all of it when absent. An engine
        /// that has just started then meets a burst that grows with the rate.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        initial: Option<u64>,
    },
    /// At most `limit` in any trailing window, counted in a ring of sub-windows: what is counted stays for up to one
    /// sub-window longer than the window.
    SlidingWindow {
        /// Number of sub-windows, 1 to 60.
        sub_windows: u32,
    },
    /// At most `limit` in any trailing window, by a log that has the instant of each: exact, and 8 bytes of memory
    /// for each of `limit` and key.
    SlidingLog,
    /// At most `limit` in each window; windows follow one another, so around a border between two of them up to
    /// twice as much passes in a shorter time.
    FixedWindow,
    /// Leaks evenly at limit ÷ window and holds up to `burst`.
    LeakyBucket {
        /// Size of the bucket, at least one.
        burst: u64,
        /// Policing when absent: what the bucket holds has passed already. Else pacing: requests leave the bucket one
        /// after another, each waits for its turn, and one that would wait longer is refused.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_wait_millis: Option<Millis>,
    },
    /// At most `limit` in flight.
    Concurrency,
}

/// What a request counts. Tokens are estimated when a request is admitted; when it has ended, what it used instead is
/// settled: more becomes debt, less is given back.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Cost {
    /// One.
    #[default]
    Requests,
    /// The tokens of its prompt.
    PromptTokens,
    /// The tokens of its prompt and of its answer.
    TotalTokens,
    /// Tokens, weighted by what they cost the engine.
    Tokens(TokenWeights),
}

/// What one token of each kind counts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenWeights {
    /// A token of the prompt that the engine has to compute.
    pub input: Weight,
    /// A token of the prompt that the engine has in its cache.
    pub cached: Weight,
    /// A token of the answer.
    pub output: Weight,
}

impl Limit {
    /// Largest limit of an exact log.
    pub const MOST_LOGGED: u64 = 10_000;
    /// Keys that are counted each for itself.
    pub const KEYS: u32 = 74_880;
    /// The same of an exact log.
    pub const LOGGED_KEYS: u32 = 1_152;
    /// Most keys that a rule can be told to count each for itself.
    pub const MOST_KEYS: u32 = 4_000_000;
    /// How many times a rule can make more room.
    pub const GENERATIONS: usize = 3;
    /// Keys in a bucket.
    pub const BUCKET: u32 = 8;
    /// Words of a cache line.
    const LINE: u64 = 8;

    /// The buckets of eight keys that a rule makes room for, one generation after another: for 128 keys, which have whole
    /// cache lines, for 4096 more, of which a thousand keys fill so little that nearly all are at home, and for all others.
    pub fn buckets(&self) -> [u32; Self::GENERATIONS] {
        let usual = if self.algorithm == Algorithm::SlidingLog { Self::LOGGED_KEYS } else { Self::KEYS };
        let wanted = self.max_keys.unwrap_or(usual).div_ceil(Self::BUCKET).max(16);
        let second = (wanted - 16).min(512);
        [16, second, wanted - 16 - second]
    }

    /// Bytes that each key takes: its hash and its state, in one cache line or in whole ones.
    pub fn key_bytes(&self) -> u64 {
        let words = match self.algorithm {
            Algorithm::TokenBucket { .. }
            | Algorithm::LeakyBucket { .. }
            | Algorithm::FixedWindow
            | Algorithm::Concurrency => 1,
            Algorithm::SlidingWindow { sub_windows } => {
                let window = self.window_millis.map_or(Duration::MAX, Millis::duration);
                let window = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
                Ring::new(self.limit, window, sub_windows).words()
            }
            Algorithm::SlidingLog => self.limit.saturating_add(1),
        };
        let words = words.saturating_add(1);
        let whole = if words <= Self::LINE {
            words.next_power_of_two()
        } else {
            words.div_ceil(Self::LINE).saturating_mul(Self::LINE)
        };
        whole.saturating_mul(8)
    }

    /// Bytes that all its keys take when there are as many as there is room for, if that has to be asked for: by an
    /// exact log, and where the number of keys is written. Nothing otherwise.
    pub fn asked_bytes(&self) -> u64 {
        if self.max_keys.is_none() && self.algorithm != Algorithm::SlidingLog {
            return 0;
        }
        let [first, second, others] = self.buckets().map(|buckets| u64::from(buckets * Self::BUCKET));
        let (bytes, line) = (self.key_bytes(), 8 * Self::LINE);
        // The hashes of the first lie beside their lines.
        let apart = bytes.max(line).saturating_add(8);
        bytes.saturating_mul(second + others).saturating_add(apart.saturating_mul(first))
    }
}

/// How a sliding window is counted: a ring of words, each with the counts of one sub-window or of two, and the number of
/// the round that they belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ring {
    /// Sub-windows in the window. Shorter ones than a millisecond would be finer than clocks of several threads agree,
    /// and are joined.
    pub parts: u64,
    /// Sub-windows in a word.
    pub in_word: u64,
    /// Bits of a count: enough for twice the limit.
    pub bits: u32,
}

impl Ring {
    /// Bits of a count that has a word for itself.
    const ALONE: u32 = 31;
    const SHORTEST_NANOS: u64 = 1_000_000;
    /// Until a number of a round comes again, at least: 200 days.
    const AGAIN_NANOS: u128 = 200 * 86_400 * 1_000_000_000;

    /// Sub-windows of a window for which nobody says how many: ten, or as many as fit into the cache line of a key where
    /// the limit is so high that each count needs a word for itself.
    pub fn usual_parts(limit: u64, window: Duration) -> u32 {
        let window = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        let fits = |parts: &u32| Self::new(limit, window, *parts).words() < Limit::LINE;
        [10, 6].into_iter().find(fits).unwrap_or(1)
    }

    /// The ring of a window of so many nanoseconds.
    pub fn new(limit: u64, window: u64, sub_windows: u32) -> Self {
        let parts = u64::from(sub_windows).min(window / Self::SHORTEST_NANOS).max(1);
        let bits = u64::BITS + 1 - limit.max(1).leading_zeros();
        let again = u128::from(window).checked_shl(u64::BITS.saturating_sub(2 * bits)).unwrap_or(u128::MAX);
        if bits < Self::ALONE && again >= Self::AGAIN_NANOS {
            Self { parts, in_word: 2, bits }
        } else {
            Self { parts, in_word: 1, bits: Self::ALONE }
        }
    }

    /// Words of a key.
    pub fn words(self) -> u64 {
        if self.in_word == 1 { self.parts + 1 } else { (self.parts + 2).div_ceil(2) }
    }
}

impl Cost {
    /// Whether every request counts one.
    pub const fn is_requests(&self) -> bool {
        matches!(self, Self::Requests)
    }
}
