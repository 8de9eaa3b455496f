//! The limit of requests in flight, and the queue.

use tidegate_crds as crd;
use tidegate_policy::{Concurrency, ConcurrencyAlgorithm, Mode, Queue};

use super::problems::{Problems, optional};
use super::rate_limit::{key_part, signal};
use super::scalar::{count32, millis};

const MOST: i32 = 100_000;

pub(super) fn concurrency(
    policy: &str,
    mode: Mode,
    spec: &crd::Concurrency,
    problems: &mut Problems,
) -> Option<Concurrency> {
    let initial = problems.keep("spec.concurrency.initial", count32(spec.initial, 2, MOST));
    let min = problems.keep("spec.concurrency.min", count32(spec.min, 2, MOST));
    let max = problems.keep("spec.concurrency.max", count32(spec.max, 2, MOST));
    let algorithm = algorithm(spec, problems);
    if spec.min > spec.initial || spec.initial > spec.max {
        problems.add("spec.concurrency.initial", crd::Concurrency::ORDER);
    }
    Some(Concurrency {
        policy: policy.to_owned(),
        mode,
        algorithm: algorithm?,
        initial: initial?,
        min: min?,
        max: max?,
        latency: signal(spec.signal),
    })
}

fn algorithm(spec: &crd::Concurrency, problems: &mut Problems) -> Option<ConcurrencyAlgorithm> {
    let target =
        optional(spec.target.as_ref(), |target| problems.keep("spec.concurrency.target", millis(target)))?;
    if target.is_some() && spec.algorithm != crd::ConcurrencyAlgorithm::Adaptive {
        problems.add("spec.concurrency.target", crd::Concurrency::TARGET);
    }
    Some(match spec.algorithm {
        crd::ConcurrencyAlgorithm::Adaptive => {
            ConcurrencyAlgorithm::Adaptive { target_millis: target, tolerance: None, kv_cache: None }
        }
        crd::ConcurrencyAlgorithm::Gradient2 => {
            ConcurrencyAlgorithm::Gradient2 { tolerance: None, smoothing: None, headroom: None }
        }
        crd::ConcurrencyAlgorithm::Aimd => ConcurrencyAlgorithm::Aimd { backoff: None, timeout_millis: None },
        crd::ConcurrencyAlgorithm::Static => ConcurrencyAlgorithm::Static,
    })
}

pub(super) fn queue(policy: &str, mode: Mode, spec: &crd::Queue, problems: &mut Problems) -> Option<Queue> {
    let length = problems.keep("spec.queue.maxLength", count32(spec.max_length, 1, MOST));
    let timeout = problems.keep("spec.queue.timeout", millis(&spec.timeout));
    let parts = spec.tenant.iter().enumerate();
    let tenant: Vec<_> =
        parts.map(|(i, part)| problems.keep(format!("spec.queue.tenant[{i}]"), key_part(part))).collect();
    Some(Queue {
        policy: policy.to_owned(),
        mode,
        max_length: length?,
        timeout_millis: timeout?,
        tenant: tenant.into_iter().collect::<Option<_>>()?,
    })
}
