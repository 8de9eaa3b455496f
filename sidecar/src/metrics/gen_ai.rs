//! What generating took, by the names of OpenTelemetry's semantic conventions for generative AI, which are written
//! without the prefix of this project: <https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics>.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use tidegate_core::Tokens;

use super::histogram::{self, Histogram, Summed};
use super::stripes::Striped;
use crate::route::Operation;

/// Upper bounds in milliseconds that the conventions ask for.
const DURATION: [u64; 14] = [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 10_240, 20_480, 40_960, 81_920];
const FIRST_TOKEN: [u64; 16] = [1, 5, 10, 20, 40, 60, 80, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10_000];
const OUTPUT_TOKEN: [u64; 13] = [10, 25, 50, 75, 100, 150, 200, 300, 400, 500, 750, 1000, 2500];

/// Upper bounds of tokens that the conventions ask for, in thousandths.
const TOKENS: [u64; 14] = [
    1000,
    4000,
    16_000,
    64_000,
    256_000,
    1_024_000,
    4_096_000,
    16_384_000,
    65_536_000,
    262_144_000,
    1_048_576_000,
    4_194_304_000,
    16_777_216_000,
    67_108_864_000,
];

const OPERATIONS: usize = Operation::ALL.len();
const ENDS: usize = End::ALL.len();

/// How a request to the engine ended: `error.type` of the conventions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// As it should.
    Well,
    /// With a status of a client's mistake.
    Status4xx,
    /// With a status of the engine's failure.
    Status5xx,
    /// Without an answer in time.
    TimedOut,
    /// Without an answer.
    Unanswered,
    /// In the middle of its answer, by the engine or by the client.
    Aborted,
}

impl End {
    const ALL: [Self; 6] =
        [Self::Well, Self::Status4xx, Self::Status5xx, Self::TimedOut, Self::Unanswered, Self::Aborted];

    /// `error.type`, none when it ended well.
    pub const fn error(self) -> Option<&'static str> {
        match self {
            Self::Well => None,
            Self::Status4xx => Some("4xx"),
            Self::Status5xx => Some("5xx"),
            Self::TimedOut => Some("timeout"),
            Self::Unanswered => Some("unanswered"),
            Self::Aborted => Some("aborted"),
        }
    }
}

/// Durations by operation. Clones are the same.
#[derive(Debug, Clone)]
pub struct GenAi(Arc<Striped<Stripe>>);

#[derive(Debug, Default)]
struct Stripe([OfOperation; OPERATIONS]);

#[derive(Debug, Default)]
struct OfOperation {
    duration: [Histogram<{ DURATION.len() }>; ENDS],
    first_token: Histogram<{ FIRST_TOKEN.len() }>,
    output_token: Histogram<{ OUTPUT_TOKEN.len() }>,
    /// A token is a second to the histogram.
    input_tokens: Histogram<{ TOKENS.len() }>,
    output_tokens: Histogram<{ TOKENS.len() }>,
}

impl GenAi {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let this = Self(Arc::new(Striped::new()));
        registry.register_collector(Box::new(this.clone()));
        this
    }

    /// A request has ended after `total`. Of an answer that began: when its first byte came, and how many pieces
    /// came one by one, if it was a stream.
    pub fn ended(
        &self,
        operation: Operation,
        end: End,
        total: Duration,
        first: Option<Duration>,
        pieces: u64,
    ) {
        let of = &self.0.mine().0[operation as usize];
        of.duration[end as usize].observe(&DURATION, total);
        let Some(first) = first.filter(|_| end == End::Well) else { return };
        of.first_token.observe(&FIRST_TOKEN, first);
        let gaps = u32::try_from(pieces.saturating_sub(1)).unwrap_or(u32::MAX);
        if gaps > 0 {
            of.output_token.observe(&OUTPUT_TOKEN, total.saturating_sub(first) / gaps);
        }
    }

    /// A request has used so many tokens.
    pub fn used(&self, operation: Operation, tokens: &Tokens) {
        let of = &self.0.mine().0[operation as usize];
        let seconds = |tokens: u32| Duration::from_secs(u64::from(tokens));
        of.input_tokens.observe(&TOKENS, seconds(tokens.input.saturating_add(tokens.cached)));
        of.output_tokens.observe(&TOKENS, seconds(tokens.output));
    }

    /// Of each operation, in the order of [`Operation::ALL`].
    fn of_each<const N: usize>(
        &self,
        bounds: &[u64; N],
        read: impl Fn(&OfOperation) -> &Histogram<N>,
    ) -> impl Iterator<Item = (Operation, Summed)> {
        Operation::ALL.into_iter().map(move |operation| {
            (operation, histogram::sum(&self.0, |stripe| read(&stripe.0[operation as usize]), bounds))
        })
    }

    fn encode_tokens(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let input = self.of_each(&TOKENS, |of| &of.input_tokens).map(|(of, summed)| ("input", of, summed));
        let output = self.of_each(&TOKENS, |of| &of.output_tokens).map(|(of, summed)| ("output", of, summed));
        let rows: Vec<_> = input.chain(output).filter(|(.., summed)| summed.count > 0).collect();
        if rows.is_empty() {
            return Ok(());
        }
        let help = "Tokens of requests to a model, by what the engine says or as estimated";
        let mut metric =
            encoder.encode_descriptor("gen_ai_client_token_usage", help, None, MetricType::Histogram)?;
        for (kind, operation, summed) in rows {
            let labels = [
                ("gen_ai_operation_name", operation.name()),
                ("gen_ai_provider_name", operation.provider()),
                ("gen_ai_token_type", kind),
            ];
            summed.write::<NoLabelSet>(&mut metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn encode_by_operation<const N: usize>(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        (name, help): (&str, &str),
        bounds: &[u64; N],
        read: impl Fn(&OfOperation) -> &Histogram<N>,
    ) -> fmt::Result {
        let of = |operation: Operation| {
            histogram::sum(&self.0, |stripe| read(&stripe.0[operation as usize]), bounds)
        };
        let rows = Operation::ALL.map(|operation| (operation, End::Well, of(operation)));
        encode(encoder, name, help, &rows)
    }
}

impl Collector for GenAi {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let of = |operation: Operation, end: End| {
            histogram::sum(&self.0, |stripe| &stripe.0[operation as usize].duration[end as usize], &DURATION)
        };
        let durations = Operation::ALL
            .into_iter()
            .flat_map(|operation| End::ALL.map(|end| (operation, end, of(operation, end))));
        let durations: Vec<_> = durations.collect();
        let help = "From the arrival of a request to a model to the last byte of its answer";
        encode(&mut encoder, "gen_ai_server_request_duration_seconds", help, &durations)?;
        let help = "From the arrival of a request to a model to the first byte of its answer";
        let name = "gen_ai_server_time_to_first_token_seconds";
        self.encode_by_operation(&mut encoder, (name, help), &FIRST_TOKEN, |of| &of.first_token)?;
        let help = "Mean time between the events of a stream after its first";
        let name = "gen_ai_server_time_per_output_token_seconds";
        self.encode_by_operation(&mut encoder, (name, help), &OUTPUT_TOKEN, |of| &of.output_token)?;
        self.encode_tokens(&mut encoder)
    }
}

/// Only what there was: most pods serve one operation.
fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    rows: &[(Operation, End, Summed)],
) -> fmt::Result {
    if rows.iter().all(|(.., summed)| summed.count == 0) {
        return Ok(());
    }
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for (operation, end, summed) in rows.iter().filter(|(.., summed)| summed.count > 0) {
        let mut labels =
            vec![("gen_ai_operation_name", operation.name()), ("gen_ai_provider_name", operation.provider())];
        labels.extend(end.error().map(|error| ("error_type", error)));
        summed.write::<NoLabelSet>(&mut metric.encode_family(&labels)?)?;
    }
    Ok(())
}
